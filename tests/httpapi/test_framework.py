"""What holds for every path: the envelope, slashes, verbs, bodies, parameters, headers. Bad input never costs a 5xx."""

from __future__ import annotations

import contextlib
import logging
import random
from typing import Any

import msgspec
import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from httpapi.envelope import Answer, partial, respond
from httpapi.idempotency import digest_of
from httpapi.json_body import DEPTH_MAX, read_object
from rbcore.errors import InvalidRequest
from tests.httpapi.house import API, BACKUP_TASK, House
from tests.httpapi.stories import backed_up


@pytest.mark.parametrize(
    "path", ["nothing", "pool_list/1/2", "pool_list//1", "/api/v1//pool_list", "/", "/api", "/favicon.ico"]
)
async def test_unknown_paths_are_404_in_the_envelope(house: House, path: str) -> None:
    answer = await house.call("GET", path)
    assert answer.status == 404
    assert answer.envelope["is_error"]
    assert answer.position == house.log.head


@pytest.mark.parametrize("path", ["pool_list", "pool_list/", "pool_list/1", "pool_list/1/", "server_hello/"])
async def test_a_trailing_slash_makes_no_difference_and_no_redirect(house: House, path: str) -> None:
    assert (await house.call("GET", path)).status == 200


async def test_post_with_a_trailing_slash_as_in_the_manuals_sample(house: House) -> None:
    await house.add_client()
    assert (await house.call("POST", "task_queue/", {"data": {"task": BACKUP_TASK}})).status == 201


@pytest.mark.parametrize(
    ("verb", "path", "allowed"),
    [
        ("PUT", "pool_list", "DELETE, GET, HEAD, OPTIONS, POST"),
        ("POST", "pool_list/1", "DELETE, GET, HEAD, OPTIONS, PATCH"),
        ("DELETE", "server_hello", "GET, HEAD, OPTIONS"),
        ("TRACE", "server_hello", "GET, HEAD, OPTIONS"),
        ("DELETE", "pool_list/available_for_copy_or_move", "GET, HEAD, OPTIONS"),
        ("GET", "library_slots/check_ltfs", "OPTIONS, PATCH"),
    ],
)
async def test_wrong_verbs_are_405_and_name_the_right_ones(house: House, verb: str, path: str, allowed: str) -> None:
    answer = await house.call(verb, path)
    assert answer.status == 405
    assert answer.envelope["is_error"]
    assert answer.headers["Allow"] == allowed


async def test_head_and_options(house: House) -> None:
    head = await house.call("HEAD", "pool_list")
    assert (head.status, head.headers["Content-Type"]) == (200, "application/json")
    options = await house.raw("OPTIONS", "task_queue/7")
    assert options.status == 200
    assert options.headers["Allow"] == "DELETE, GET, HEAD, OPTIONS"
    assert not any(name.lower().startswith("access-control") for name, _ in options.headers.items())


async def test_every_answer_carries_security_headers_and_its_position(house: House) -> None:
    for answer in (
        await house.call("GET", "pool_list"),
        await house.call("GET", "nothing"),
        await house.raw("GET", "pool_list"),
    ):
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
        assert answer.headers["Cache-Control"] == "no-store"
        assert answer.headers["Content-Type"] == "application/json"
        assert "default-src 'none'" in answer.headers["Content-Security-Policy"]
        assert 0 < answer.position <= house.log.head


POOL = b'{"data": {"pool_name": "p", "pool_type": "File system", "media_server": "rubackup-server"}}'


@pytest.mark.parametrize(
    ("body", "field"),
    [
        (b"", "_schema"),
        (b"{", "_schema"),
        (b"[]", "_schema"),
        (b"null", "_schema"),
        (b'"text"', "_schema"),
        (b"{} {}", "_schema"),
        (b'{"data": NaN}', "_schema"),
        (b'{"data": 1e400}', "_schema"),
        (b'{"data": {"pool_name": "\xff"}}', "_schema"),
        (b'{"data": {"pool_name": "\\ud800"}}', "_schema"),
        (b'{"data": {"pool_name": "a\\u0000b"}}', "pool_name"),
        (b"[" * 100_000, "_schema"),
        (b'{"data":' * 100_000, "_schema"),
        (b'{"data": ' + b"9" * 10_000 + b"}", "_schema"),
        (b'{"data": {}, "data": {}}', "data"),
        (b'{"data": {"pool_name": "a", "pool_\\u006eame": "b"}}', "pool_name"),
        (b'{"data": []}', "data"),
        (b'{"pool_name": "p"}', "pool_name"),
        (b'{"data": {"nonsense": 1}}', "nonsense"),
        (b'{"data": {"pool_name": 7, "pool_type": "File system", "media_server": "rubackup-server"}}', "pool_name"),
        (b'{"data": {"pool_type": "File system", "media_server": "rubackup-server"}}', "pool_name"),
        (POOL.replace(b"}}", b', "ignore_free_space_check": 1}}'), "ignore_free_space_check"),
        (POOL.replace(b"}}", b', "retention_period": "soon"}}'), "retention_period"),
        (POOL.replace(b"rubackup-server", b"elsewhere"), "media_server"),
        (POOL.replace(b"File system", b"Floppy"), "pool_type"),
    ],
)
async def test_bad_bodies_are_400_and_name_the_field(house: House, body: bytes, field: str) -> None:
    before = house.log.head
    answer = await house.call("POST", "pool_list")  # signs in
    headers = house.headers | {"Content-Type": "application/json"}
    answer = await house.raw("POST", "pool_list", data=body, headers=headers)
    assert answer.status == 400
    assert field in answer.errors, answer.raw
    assert house.log.head == before + 1, "the login is all that happened"


@pytest.mark.parametrize(
    "content_type", ["text/xml", "application/x-www-form-urlencoded", "application/json; charset=koi8-r"]
)
async def test_bodies_that_are_not_json_are_refused_with_a_hint(house: House, content_type: str) -> None:
    await house.login()
    answer = await house.raw("POST", "pool_list", data=POOL, headers=house.headers | {"Content-Type": content_type})
    assert answer.status == 400
    assert "Content-Type" in answer.errors


async def test_a_body_without_content_type_is_taken_as_json(house: House) -> None:
    await house.login()
    assert (await house.raw("POST", "pool_list", data=POOL, headers=house.headers)).status == 201


async def test_an_oversize_body_is_400_too_large(house: House) -> None:
    await house.login()
    answer = await house.raw("POST", "pool_list", data=b" " * (1024 * 1024 + 1), headers=house.headers)
    assert answer.status == 400
    assert "larger than 1048576 bytes" in answer.message


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ("page=0", "page"),
        ("page=-1", "page"),
        ("page=x", "page"),
        ("page=%EF%BC%91", "page"),
        ("page=99999999999999999999", "page"),
        ("limit=0", "limit"),
        ("limit=1001", "limit"),
        ("limit=", "limit"),
        ("sort_order=up", "sort_order"),
        ("sort_by=nothing", "nothing"),
        ("sort_by=id;drop", "id;drop"),
        ("page=1&page=2", "page"),
        ("sort=id&sort_by=id", "sort_by"),
        ("nonsense=1", "nonsense"),
        ("filter_data=pool_name", "pool_name"),
        ('filter_data=nothing="1"', "nothing"),
        ('filter_data=block_size="many"', "block_size"),
        ("at=tomorrow", "at"),
        ("at=999999", "at"),
        ("at=-1", "at"),
        ("sort_by=a%00b", "sort_by"),
    ],
)
async def test_bad_parameters_are_400_and_name_themselves(house: House, query: str, field: str) -> None:
    answer = await house.call("GET", f"pool_list?{query}")
    assert answer.status == 400, answer.raw
    assert any(field in name or name in field for name in answer.errors), answer.raw


async def test_invalid_utf8_in_path_and_query_is_not_our_error(house: House) -> None:
    assert (await house.call("GET", "pool_list?filter_data=%ff%fe")).status == 400
    assert (await house.call("GET", "pool_list/%ff")).status == 404


@pytest.mark.parametrize("segment", ["0", "-1", "x", "1.0", "99999999999999999999999", "١", "1e3", "%00", "999"])
async def test_what_is_not_an_id_names_nothing(house: House, segment: str) -> None:
    for verb in ("GET", "DELETE"):
        answer = await house.call(verb, f"pool_list/{segment}")
        assert (answer.status, answer.message) == (404, "pool not found")


async def test_an_unexpected_exception_is_an_incident_without_its_text(
    house: House, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def broken(*_: Any, **__: Any) -> Any:
        await trio.lowlevel.checkpoint()
        raise RuntimeError("secret detail of the bug")

    await house.login()
    monkeypatch.setattr(type(house.services.views), "row", broken)
    with caplog.at_level(logging.ERROR, "rbmedia.api"):
        answer = await house.call("GET", "pool_list/1")
    assert answer.status == 500
    assert b"secret detail" not in answer.raw
    incident = answer.data["incident"]
    assert incident in answer.message
    assert incident in caplog.text
    assert "secret detail of the bug" in caplog.text


async def test_repeating_a_post_with_the_same_key_changes_nothing(house: House) -> None:
    await house.add_client()
    body = {"data": {"task": BACKUP_TASK}}
    first = await house.call("POST", "task_queue", body, Idempotency_Key="k1")
    again = await house.call("POST", "task_queue", body, Idempotency_Key="k1")
    other = await house.call("POST", "task_queue", body, Idempotency_Key="k2")
    assert (first.status, again.status, other.status) == (201, 201, 201)
    assert first.envelope == again.envelope
    assert first.data != other.data
    assert (await house.call("GET", "task_queue")).data["total"] == 2


async def test_a_key_with_another_body_is_refused_and_changes_nothing(house: House) -> None:
    await house.add_client()
    body = {"data": {"task": BACKUP_TASK}}
    first = await house.call("POST", "task_queue", body, Idempotency_Key="k1")
    head = house.log.head
    other = await house.call(
        "POST", "task_queue", {"data": {"task": BACKUP_TASK | {"priority": 7}}}, Idempotency_Key="k1"
    )
    assert other.status == 400
    assert other.errors == {"Idempotency-Key": ["This key was used before, for a request with other contents."]}
    backwards = {"data": {"task": dict(reversed(BACKUP_TASK.items()))}}
    assert (await house.call("POST", "task_queue", backwards, Idempotency_Key="k1")).envelope == first.envelope
    assert house.log.head == head


async def test_a_key_with_another_parameter_is_refused(house: House) -> None:
    await house.add_client()
    backup = await backed_up(house)
    for name in ("Second", "Third"):
        body = {"data": {"pool_name": name, "pool_type": "File system", "media_server": "rubackup-server"}}
        assert (await house.call("POST", "pool_list", body)).status == 201
    path = f"repository/{backup}/copying?pool="
    assert (await house.call("POST", f"{path}Second", Idempotency_Key="k1")).status == 201
    assert (await house.call("POST", f"{path}Third", Idempotency_Key="k1")).status == 400
    assert (await house.call("POST", f"{path}Second", Idempotency_Key="k1")).status == 201


def test_no_password_goes_into_what_the_log_remembers_of_a_request() -> None:
    secret = {"data": {"username": "u", "user_password": "p1", "list": [{"new_password": "p2"}]}}
    other = {"data": {"username": "u", "user_password": "q1", "list": [{"new_password": "q2"}]}}
    assert digest_of({}, secret) == digest_of({}, other) != digest_of({"role": "maintainer"}, secret)


@pytest.mark.parametrize("key", ["k" * 129, "tab\tkey"])
async def test_bad_idempotency_keys_are_400(house: House, key: str) -> None:
    answer = await house.call("POST", "task_queue", {"data": {"task": BACKUP_TASK}}, Idempotency_Key=key)
    assert answer.status == 400
    assert "Idempotency-Key" in answer.errors


async def test_a_full_log_volume_keeps_reads_and_logins_going(house: House) -> None:
    await house.login()
    house.log.fill()
    answer = await house.call("POST", "pool_list", msgspec.json.decode(POOL))
    assert answer.status == 503
    assert (await house.call("GET", "pool_list")).status == 200
    assert (await house.login()).status == 200
    state = await house.call("GET", "server_state")
    assert state.data["log"]["read_only_reason"]
    house.log.make_room()
    assert (await house.call("POST", "pool_list", msgspec.json.decode(POOL))).status == 201


_JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text('ab"\\{}[]:,é\n'),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text('ab"\\:{é'), inner, max_size=4),
    max_leaves=20,
)


@given(st.dictionaries(st.text('ab"\\:{é'), _JSON, max_size=4))
def test_every_honest_object_is_read_as_it_was_written(document: dict[str, Any]) -> None:
    assert read_object(msgspec.json.encode(document)) == document


@given(st.binary(max_size=200) | st.text('{}[]",:\\u0 ', max_size=80).map(str.encode))
def test_no_bytes_do_worse_than_being_refused(raw: bytes) -> None:
    with contextlib.suppress(InvalidRequest):
        assert isinstance(read_object(raw), dict)


@pytest.mark.parametrize("depth", [DEPTH_MAX, DEPTH_MAX + 1])
def test_nesting_is_bounded(depth: int) -> None:
    raw = b'{"a":' * depth + b"1" + b"}" * depth
    if depth <= DEPTH_MAX:
        read_object(raw)
    else:
        with pytest.raises(InvalidRequest):
            read_object(raw)


async def test_no_filter_text_is_a_server_error(house: House) -> None:
    await house.login()
    draw = random.Random(4)
    alphabet = [
        "id",
        "pool_name",
        "retention_period",
        "media_server",
        "=",
        "~",
        "<",
        ">=",
        "!=",
        '"',
        "\\",
        ",",
        "&&",
        " ",
        "1",
        "%",
        "_",
        "ю",
        "\ud800",
        "\0",
    ]
    client = house.app.test_client(use_cookies=False)
    for _ in range(300):
        text = "".join(draw.choices(alphabet, k=draw.randint(0, 9)))
        query = {"filter_data": text.encode("utf-8", "surrogatepass")}
        response = await client.get(f"{API}/pool_list", query_string=query, headers=house.headers)
        assert response.status_code in (200, 400), text


async def test_a_partial_answer_is_207_and_says_what_was_not_done(house: House) -> None:
    async with house.app.test_request_context("/"):
        response = respond(partial([1, 3], {2: "There is no request with id 2."}, "not all"), 200, 7)
        raw = await response.get_data()
    assert (response.status_code, response.headers["X-Log-Position"]) == (207, "7")
    assert msgspec.json.decode(raw) == {
        "is_error": True,
        "message": "not all",
        "data": {"succeeded": [1, 3], "failed": [2]},
        "errors": {"2": ["There is no request with id 2."]},
    }


async def test_no_content_has_none(house: House) -> None:
    async with house.app.test_request_context("/"):
        response = respond(Answer({"ids": [1]}, "declined"), 204, 7)
        assert await response.get_data() == b""
    assert response.headers["X-Log-Position"] == "7"
    assert "Content-Type" not in response.headers
