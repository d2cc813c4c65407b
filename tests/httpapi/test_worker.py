"""A worker answers as the daemon does: to the byte, for everybody, with the daemon's judgement; and says so when the daemon is gone."""

from __future__ import annotations

import contextlib
import logging
from typing import Any

import msgspec
import pytest
import trio
import trio.testing

from actors.port import Progress
from eventlog.upcasting import decode_event
from httpapi import channel
from httpapi.judging import Admission
from httpapi.relay import TIMES_MAX, Times
from httpapi.rubackup import methods
from rbcore.commands import ChangeRecord
from rbcore.events import AccessDeniedNoted, LoginFailed
from rbcore.resources import by_name
from tests.httpapi.house import API, BACKUP_TASK, HWID, PASSWORD, USER, ApiAnswer, House, exchange, scope_of
from tests.httpapi.people import everybody, person
from tests.httpapi.stories import backed_up, queued, running

READS = [method.path for method in methods() if method.read is not None]
JSON = {"Content-Type": "application/json"}


def asked(verb: str, path: str, **headers: str) -> dict[str, Any]:
    scope = scope_of(verb, path if path.startswith("/") else f"{API}/{path}", {"headers": headers})
    assert scope is not None
    return scope


async def both(house: House, scope: dict[str, Any], *pieces: bytes) -> ApiAnswer:
    """The answer, which is the same from the daemon and from a worker."""
    ours, theirs = [await exchange(one, scope, *pieces) for one in (house.front, house.relay)]
    assert (ours.status, list(ours.headers.items()), ours.raw) == (
        theirs.status,
        list(theirs.headers.items()),
        theirs.raw,
    )
    return theirs


def test_most_lists_and_details_are_reads() -> None:
    """The others tell of the present what no view knows."""
    assert {"/task_queue", "/task_queue/{id}", "/clients", "/global_schedule", "/task_log", "/task_log/{id}"} <= set(
        READS
    )
    assert len(READS) >= 50
    for method in methods():
        if method.read is not None:
            assert (method.verb, method.body, method.asks_devices, method.status) == ("GET", None, False, 200)


async def test_every_read_is_routed_as_quart_routes_it(house: House) -> None:
    router = house.app.url_map.bind("localhost")
    for method in methods():
        if method.read is not None:
            target = API + method.path.replace("{id}", "7")
            endpoint, segments = router.match(target, "GET")
            found = house.front.reads.find(asked("GET", target))
            assert found is not None
            assert (found[0].name, found[0].operation_id, found[1]) == (method.name, endpoint, segments)


@pytest.mark.parametrize(
    ("verb", "target", "headers"),
    [
        ("HEAD", "pool_substitution", {}),
        ("POST", "pool_substitution", {}),
        ("GET", "pool_substitution/", {}),
        ("GET", "%70ool_substitution", {}),
        ("GET", "pool_substitution/x", {}),
        ("GET", "pool_substitution/-1", {}),
        ("GET", "pool_substitution/1/1", {}),
        ("GET", "pool_substitution", {"Content-Length": "2"}),
        ("GET", "pool_substitution", {"Transfer-Encoding": "chunked"}),
        ("GET", "https://localhost/api/v1/pool_substitution", {}),
    ],
)
async def test_what_is_written_in_any_other_way_is_quarts(
    house: House, verb: str, target: str, headers: dict[str, str]
) -> None:
    scope = asked(verb, f"{API}/{target}", **headers)
    if "://" in target:
        scope |= {"path": target, "raw_path": target.encode()}
    assert house.front.reads.find(scope) is None


@pytest.mark.parametrize("path", READS)
async def test_lists_and_details_are_the_same_to_the_byte(house: House, path: str) -> None:
    """``House.raw`` compares. Now, in the past, not there, badly asked for."""
    await house.add_client()
    await backed_up(house)
    middle = house.log.head // 2
    await house.execute(ChangeRecord(resource="pool_list", id=1, changes={"description": "changed"}))
    if path.endswith("{id}"):
        targets = [path.replace("{id}", one) for one in ("1", "2", "999999", "0", "1" + "0" * 18, "1" * 40)]
        wrong = ["?page=1"]
    else:
        targets = [path]
        wrong = [
            "?filter_data=nonsense%3D%221%22",
            "?filter_data=%22",
            "?sort_by=nonsense",
            "?limit=0",
            "?page=x",
            "?limit=1&limit=2",
        ]
        for more in (
            "?limit=2&page=2",
            "?sort_by=id&sort_order=desc",
            "?filter_data=id%3E%221%22&limit=1",
            "?order=desc",
        ):
            assert (await house.call("GET", path[1:] + more)).status == 200
    for target in targets:
        for more in ("", f"?at={middle}", "?at=0", f"?at={house.log.head}", "?at=2026-01-01T00:00:00"):
            assert (await house.call("GET", target[1:] + more)).status in (200, 404)
        for more in (f"?at={house.log.head + 1}", "?at=soon", "?unknown=1", *wrong):
            assert (await house.call("GET", target[1:] + more)).status in (400, 404)
    statuses = {status for _, status in house.compared}
    assert 400 in statuses
    assert statuses & {200, 404}


async def test_the_past_by_time_newest_first_is_the_same(house: House) -> None:
    """The one kind of list for which the reader asks the time of a position."""
    await house.add_client()
    column = next(one.name for one in by_name["task_queue"].fields if getattr(one, "event_time", False))
    for _ in range(3):
        house.clock.seconds += 60
        await queued(house)
    for at in range(1, house.log.head + 1):
        answer = await house.call("GET", f"task_queue?sort_by={column}&sort_order=desc&at={at}")
        assert answer.status == 200
    assert (f"{API}/task_queue", 200) in house.compared


async def test_progress_is_told_as_long_as_the_task_runs(house: House) -> None:
    await house.add_client()
    task_id = await queued(house)
    report = Progress(task_id=task_id, bytes_done=30, bytes_total=60, files_done=1, bytes_per_second=1.0, updated_ns=0)
    house.sessions.running[task_id] = report
    waiting = await both(house, asked("GET", "task_queue", **await tokens(house)))
    await running(house, task_id)
    under_way = await both(house, asked("GET", "task_queue", **house.headers))
    alone = await both(house, asked("GET", f"task_queue/{task_id}", **house.headers))
    assert [row["progress"] for row in waiting.data["items"]] != [50]
    assert [row["progress"] for row in under_way.data["items"]] == [alone.data["progress"]] == [50]


async def tokens(house: House) -> dict[str, str]:
    await house.login()
    return house.headers


async def test_everything_else_is_relayed_to_the_byte(house: House) -> None:
    headers = await tokens(house)
    for scope in (
        asked("GET", "/"),
        asked("GET", "nothing"),
        asked("GET", "pool_list", **headers),
        asked("HEAD", "task_queue", **headers),
        asked("OPTIONS", "task_queue/7"),
        asked("PUT", "pool_list", **headers),
        asked("GET", "openapi.json"),
        asked("GET", "swagger-ui/swagger-ui-bundle.js"),
        asked("GET", "task_queue"),
        asked("GET", "task_queue", Authorization="Bearer x"),
        asked("GET", "task_queue", Cookie="access_token_cookie=x"),
        asked("GET", "task_queue/", **headers),
        asked("DELETE", "pool_list/77", **headers),
    ):
        await both(house, scope)
    large = await both(house, asked("GET", "swagger-ui/swagger-ui-bundle.js"))
    assert len(large.raw) > 1_000_000


@pytest.mark.parametrize("sizes", [(10,), (300_000, 300_000), (900_000,), (1, 255_999, 262_144, 1), (700_000, 700_000)])
async def test_bodies_arrive_whole_whatever_their_pieces(house: House, sizes: tuple[int, ...]) -> None:
    scope = asked("POST", "pool_list", **await tokens(house), **JSON)
    pieces = [b'{"data": {"pool_name": "', *(b"x" * one for one in sizes), b'"}}']
    answer = await both(house, scope, *pieces)
    assert answer.status == 400
    assert ("larger than 1048576 bytes" in answer.message) == (sum(sizes) > 1_048_000)


async def test_a_login_and_a_write_through_a_worker_are_seen_at_once(house: House) -> None:
    body = b'{"rubackup_database": "rubackup", "rubackup_user": "%s", "password": "%s"}' % (
        USER.encode(),
        PASSWORD.encode(),
    )
    signed_in = await exchange(house.relay, asked("POST", "auth/login", **JSON), body)
    assert signed_in.status == 200
    assert len(signed_in.headers.getlist("set-cookie")) == 2
    house.tokens = signed_in.data
    for number in range(200):
        made = await exchange(
            (house.relay, house.front)[number % 2],
            asked("POST", "user_groups", **house.headers, **JSON),
            b'{"data": {"groupname": "group %d", "description": ""}}' % number,
        )
        assert made.status == 201, made.raw
        read = await exchange(house.relay, asked("GET", f"user_groups/{made.data['id']}", **house.headers))
        assert (read.status, read.data["groupname"]) == (200, f"group {number}")
        assert read.position >= made.position


async def test_a_repeated_key_is_carried_out_once_whoever_takes_it(house: House) -> None:
    await house.add_client()
    scope = asked("POST", "task_queue", **await tokens(house), **JSON, **{"Idempotency-Key": "k"})
    body = msgspec.json.encode({"data": {"task": BACKUP_TASK}})
    first = await exchange(house.relay, scope, body)
    second = await exchange(house.front, scope, body)
    assert (first.status, second.status) == (201, 201)
    assert first.raw == second.raw
    assert len(house.journal.state.tables["task"]) == 1


async def test_denials_and_failed_logins_are_recorded_once_with_the_clients_address(house: House) -> None:
    people = await everybody(house)
    house.tokens = people[""]
    client = ("192.0.2.77", 5)
    denied = await exchange(house.relay, asked("GET", "task_queue", **house.headers) | {"client": client})
    assert denied.status == 403
    body = b'{"rubackup_database": "rubackup", "rubackup_user": "rubackup", "password": "wrong"}'
    failed = await exchange(house.relay, asked("POST", "auth/login", **JSON) | {"client": client}, body)
    assert failed.status == 401
    bodies = [one for one in map(decode_event, house.log.read()) if isinstance(one, AccessDeniedNoted | LoginFailed)]
    assert [(type(one), one.address) for one in bodies] == [(AccessDeniedNoted, client[0]), (LoginFailed, client[0])]


async def test_a_role_taken_away_ends_with_the_next_request(house: House) -> None:
    house.tokens = await person(house, "max", ("supervisors", {}))
    assert (await exchange(house.relay, asked("GET", "task_queue", **house.headers))).status == 200
    kept, house.tokens = house.tokens, {}
    (given,) = (await house.call("GET", "supervisors")).data["items"]
    assert (await house.call("DELETE", f"supervisors/{given['id']}")).status == 200
    house.tokens = kept
    assert (await exchange(house.relay, asked("GET", "task_queue", **house.headers))).status == 403


async def test_a_reach_that_no_frame_holds_is_read_by_the_daemon(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    scope = asked("GET", "task_queue", **await tokens(house))
    monkeypatch.setattr(channel, "FRAME_BYTES_MAX", 3000)  # requests fit, and so do the pieces of this answer
    read = house.front.reads.find(scope)
    assert read is not None
    wide = [("id", list(range(2000)))]
    monkeypatch.setattr("httpapi.call.Call._reach", lambda *_: wide)
    answer = await both(house, scope)
    assert answer.status == 200


async def test_requests_in_progress_are_bounded_in_a_worker_too(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(house.relay, "_admission", Admission(0))
    answer = await exchange(house.relay, asked("GET", "task_queue", **await tokens(house)))
    assert (answer.status, answer.position) == (503, house.log.head)
    assert "Too many requests" in answer.message


async def test_a_bug_in_a_read_is_an_incident(
    house: House, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def broken(*_: Any, **__: Any) -> None:
        await trio.lowlevel.checkpoint()
        raise RuntimeError("secret text")

    monkeypatch.setattr(house.relay._views, "page", broken)
    with caplog.at_level(logging.ERROR, "rbmedia.api"):
        answer = await exchange(house.relay, asked("GET", "task_queue", **await tokens(house)))
    assert answer.status == 500
    assert "secret" not in answer.raw.decode()
    assert answer.data["incident"] in caplog.text


# --- ends -------------------------------------------------------------------------------------------------------------


async def cut(house: House) -> None:
    """As if the daemon had been killed."""
    house.relay._channel.close()
    await trio.testing.wait_all_tasks_blocked()


async def test_without_the_daemon_every_request_is_told_so(house: House) -> None:
    headers = await tokens(house)
    before = await exchange(house.relay, asked("GET", "task_queue", **headers))
    head = house.log.head
    await cut(house)
    for scope in (
        asked("GET", "task_queue", **headers),
        asked("POST", "user_groups", **headers, **JSON),
        asked("GET", "/"),
    ):
        answer = await exchange(house.relay, scope, b"{}")
        assert (answer.status, answer.position) == (503, before.position)
        assert "may have been carried out" in answer.message
    assert house.log.head == head


class Asking:
    """A request that waits for an agent."""

    def __init__(self, house: House, monkeypatch: pytest.MonkeyPatch) -> None:
        self.begun, self.ended = trio.Event(), trio.Event()

        async def ask(*_: Any, **__: Any) -> Any:
            self.begun.set()
            try:
                await trio.sleep_forever()
            finally:
                self.ended.set()

        monkeypatch.setattr(house.sessions, "ask", ask)


async def waiting_request(house: House) -> dict[str, Any]:
    client = await house.add_client()
    house.sessions.connected.add(client)
    return asked("POST", "list_client_filesystem", **await tokens(house), **JSON)


ASKED = b'{"data": {"client_hwid": "%s", "path": "/"}}' % HWID.encode()


async def test_the_daemon_goes_while_a_request_waits(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    asking, scope = Asking(house, monkeypatch), await waiting_request(house)
    answers: list[ApiAnswer] = []
    async with trio.open_nursery() as nursery:

        async def client() -> None:
            answers.append(await exchange(house.relay, scope, ASKED))

        nursery.start_soon(client)
        with trio.fail_after(5):
            await asking.begun.wait()
        await cut(house)
    assert [one.status for one in answers] == [503]
    with trio.fail_after(5):
        await asking.ended.wait()  # the daemon does not go on for nobody either


async def test_a_client_that_hangs_up_ends_its_request_in_the_daemon(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    asking, scope = Asking(house, monkeypatch), await waiting_request(house)
    put, take = trio.open_memory_channel[dict[str, Any]](1)

    async def send(_: Any) -> None:
        raise AssertionError("there is nothing to be told")

    async with trio.open_nursery() as nursery:
        nursery.start_soon(house.relay, scope, take.receive, send)
        await put.send({"type": "http.request", "body": ASKED, "more_body": False})
        with trio.fail_after(5):
            await asking.begun.wait()
            await put.send({"type": "http.disconnect"})
            await asking.ended.wait()
    assert not house.relay._answers
    assert (await exchange(house.relay, asked("GET", "/"))).status == 404


def test_times_are_remembered_within_a_bound() -> None:
    times = Times()
    for position in range(2 * TIMES_MAX):
        times.tell(position, position * 10)
    assert times(2 * TIMES_MAX - 1) == (2 * TIMES_MAX - 1) * 10
    with contextlib.suppress(KeyError):
        times(0)
        raise AssertionError("it should be forgotten")
