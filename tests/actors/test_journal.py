"""The journal: decisions in order, answers after the disk, state that goes back when the disk says no."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio
import trio.testing

from actors.journal import JournalActor
from drivers.simulated.world import SimulatedWorld
from drivers.world import RealWorld
from eventlog.lmdb_log import open_log
from eventlog.memory_log import open_memory_log
from rbcore.commands import AgentHello, AuthoriseClients, CreateRecord, Initialise, NoteLogin, Order, Reply
from rbcore.entities import Client, MediaServer
from rbcore.errors import (
    AuthenticationFailed,
    CommandIdReused,
    DeadlineExceeded,
    InvalidRequest,
    RbError,
    ReadOnly,
    Unavailable,
)


def order(command: object, command_id: str, deadline_seconds: float = 30.0) -> Order:
    return Order(command=command, command_id=command_id, actor="user:test", deadline_seconds=deadline_seconds)


INITIALISE = Initialise(
    hostname="media-1", hwid="0123456789abcdef", superuser="rubackup", credential_id="c1", default_catalog_path="/pool"
)


@asynccontextmanager
async def opened(path: Path, *, in_flight_max: int = 4096) -> AsyncIterator[JournalActor]:
    async with open_log(path / "log", secrets=path / "secrets") as log:
        journal = JournalActor(log, RealWorld(), in_flight_max=in_flight_max)
        await journal.recover()
        yield journal


def hello(number: int = 1, key: str = "ab") -> AgentHello:
    return AgentHello(
        hwid=f"{number:016x}",
        hostname=f"host{number}",
        public_key=key * 32,
        address="127.0.0.1:1",
        os_type="Linux",
        os_version="6",
        agent_version="1",
        resource_types=["File system"],
    )


async def test_a_command_is_answered_when_its_events_are_durable(tmp_path: Path) -> None:
    async with opened(tmp_path) as journal:
        reply = await journal.execute(order(INITIALISE, "1"))
        assert reply.position == journal.log.head == journal.state.position > 0
        assert [one.hostname for one in journal.state.all(MediaServer)] == ["media-1"]


async def test_recovery_folds_the_log_into_the_same_state(tmp_path: Path) -> None:
    async with opened(tmp_path) as journal:
        await journal.execute(order(INITIALISE, "1"))
        reply = await journal.execute(order(hello(), "2"))
        await journal.execute(order(AuthoriseClients(ids=[reply.data["client_id"]]), "3"))
        digest, position = journal.state.digest(), journal.state.position
    async with opened(tmp_path) as journal:
        assert (journal.state.digest(), journal.state.position) == (digest, position)
        assert journal.statistics().events_replayed == position
        assert [one.hostname for one in journal.state.all(Client)] == ["host1"]


async def test_a_repeat_gets_the_first_answer_even_in_flight_and_after_a_restart(tmp_path: Path) -> None:
    replies: list[Reply] = []
    async with opened(tmp_path) as journal:

        async def one() -> None:
            replies.append(await journal.execute(order(hello(), "the-one")))

        async with trio.open_nursery() as nursery:
            for _ in range(10):
                nursery.start_soon(one)
        await one()
        assert journal.log.head == 1
    async with opened(tmp_path) as journal:
        replies.append(await journal.execute(order(hello(), "the-one")))
    assert len(set(map(str, replies))) == 1


async def test_the_same_id_with_another_question_is_refused_also_in_flight_and_after_a_restart(tmp_path: Path) -> None:
    def asked(digest: str) -> Order:
        return Order(command=hello(), command_id="the-one", actor="user:test", digest=digest)

    outcomes: list[str] = []

    async def one(journal: JournalActor, digest: str) -> None:
        try:
            await journal.execute(asked(digest))
            outcomes.append(digest)
        except CommandIdReused:
            outcomes.append("refused")

    async with opened(tmp_path) as journal:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(one, journal, "first")
            await trio.testing.wait_all_tasks_blocked()
            nursery.start_soon(one, journal, "other")
        assert journal.log.head == 1
    async with opened(tmp_path) as journal:
        for digest in ("other", "first", ""):
            await one(journal, digest)
        assert journal.log.head == 1
    assert sorted(outcomes[:2]) == ["first", "refused"]
    assert outcomes[2:] == ["refused", "first", ""], "without a digest nothing is compared"


async def test_a_refusal_is_recorded_raised_and_remembered(tmp_path: Path) -> None:
    async with opened(tmp_path) as journal:
        row = (await journal.execute(order(hello(), "1"))).data["client_id"]
        await journal.execute(order(AuthoriseClients(ids=[row]), "2"))
        head = journal.log.head
        for _ in range(2):
            with pytest.raises(AuthenticationFailed, match="another key"):
                await journal.execute(order(hello(key="cd"), "3"))
        assert [one.type for one in journal.log.read(head)] == ["client.refused"]


async def test_an_error_changes_nothing(tmp_path: Path) -> None:
    async with opened(tmp_path) as journal:
        await journal.execute(order(INITIALISE, "1"))
        digest, head = journal.state.digest(), journal.log.head
        with pytest.raises(RbError):
            await journal.execute(order(CreateRecord(resource="pool_list", fields={"pool_name": ""}), "2"))
        with pytest.raises(InvalidRequest):
            await journal.execute(order(hello(key="zz"), "3"))
        assert (journal.state.digest(), journal.log.head) == (digest, head)
        assert journal.statistics().refused == 2


async def test_many_clients_share_commits_and_every_position_is_used_once(tmp_path: Path) -> None:
    positions: list[int] = []
    async with opened(tmp_path) as journal:

        async def client(number: int) -> None:
            for turn in range(20):
                note = NoteLogin(user_name=f"u{number}", address="a", succeeded=False, reason="wrong")
                positions.append((await journal.execute(order(note, f"{number}/{turn}"))).position)

        async with trio.open_nursery() as nursery:
            for number in range(32):
                nursery.start_soon(client, number)
        assert sorted(positions) == list(range(1, 641))
        statistics = journal.log.statistics()
        assert statistics.commits < 640, "they were committed in groups"


async def test_the_bound_refuses_and_takes_nothing(tmp_path: Path) -> None:
    async with opened(tmp_path, in_flight_max=2) as journal:
        outcomes: list[str] = []

        async def client(number: int) -> None:
            try:
                await journal.execute(order(hello(number), f"c{number}"))
                outcomes.append("done")
            except Unavailable:
                outcomes.append("refused")

        async with trio.open_nursery() as nursery:
            for number in range(8):
                nursery.start_soon(client, number)
        assert outcomes.count("done") == journal.log.head >= 2
        assert outcomes.count("refused") == 8 - journal.log.head > 0


async def test_settled_waits_for_what_is_in_flight(tmp_path: Path) -> None:
    async with opened(tmp_path) as journal, trio.open_nursery() as nursery:
        nursery.start_soon(journal.execute, order(hello(), "1"))
        while journal.state.position == 0:
            await trio.lowlevel.checkpoint()
        await journal.settled()
        assert journal.log.head == 1


async def test_a_full_volume_takes_events_and_state_back_together(autojump_clock: trio.testing.MockClock) -> None:
    async with open_memory_log(commit_seconds=0.01) as log:
        journal = JournalActor(log, SimulatedWorld.of_seed(1))
        await journal.execute(order(INITIALISE, "0"))
        before = journal.state.digest(), journal.state.position
        outcomes: list[str] = []

        async def client(number: int) -> None:
            try:
                await journal.execute(order(hello(number), f"c{number}"))
                outcomes.append("done")
            except ReadOnly:
                outcomes.append("read only")

        async with trio.open_nursery() as nursery:
            for number in range(5):
                nursery.start_soon(client, number)
            while journal.statistics().in_flight < 5:
                await trio.lowlevel.checkpoint()
            log.fill()
        assert outcomes == ["read only"] * 5
        assert (journal.state.digest(), journal.state.position) == before
        assert journal.statistics().rolled_back == 5
        with pytest.raises(ReadOnly):
            await journal.execute(order(hello(9), "c9"))
        log.make_room()
        reply = await journal.execute(order(hello(2), "c2"))
        assert reply.data["client_id"] == 1, "the number that was given back is given again"
        assert journal.state.position == log.head == before[1] + 1


async def test_an_answer_waits_for_what_it_was_decided_upon(autojump_clock: trio.testing.MockClock) -> None:
    """A refusal that rests on events not yet durable may not be told before they are."""
    async with open_memory_log(commit_seconds=1.0) as log, trio.open_nursery() as nursery:
        journal = JournalActor(log, SimulatedWorld.of_seed(1))
        nursery.start_soon(journal.execute, order(INITIALISE, "0"))
        await trio.testing.wait_all_tasks_blocked()
        assert log.head == 0
        with pytest.raises(RbError):
            await journal.execute(order(AuthoriseClients(ids=[77]), "1"))
        assert log.head > 0


async def test_a_deadline_is_kept_and_the_command_can_be_asked_for_again(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with open_memory_log(commit_seconds=5.0) as log:
        journal = JournalActor(log, SimulatedWorld.of_seed(1))
        with pytest.raises(DeadlineExceeded):
            await journal.execute(order(hello(), "1", deadline_seconds=1.0))
        reply = await journal.execute(order(hello(), "1"))
        assert reply.position == log.head == 1
