"""The bus over every transport it has: the same tests for memory, inproc, ipc and TLS."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest
import trio

from actors.bus import Address, Bus
from actors.bus_memory import FaultPlan, Faults, memory_link_pair
from actors.bus_nng import NngListener, client_tls, dial, server_tls
from actors.link import Link
from drivers.simulated.world import SeededRandomness, SimulatedWorld
from drivers.tls import SERVER_NAME, open_authority
from drivers.world import RealWorld
from rbcore.errors import DeadlineExceeded, InvalidRequest, NotFound, Unavailable


class Add(msgspec.Struct, frozen=True):
    left: int
    right: int


class Sum(msgspec.Struct, frozen=True):
    value: int


class Wait(msgspec.Struct, frozen=True):
    pass


TYPES = (Add, Sum, Wait)


async def adder(bus: Bus, address: str, seen: list[Any]) -> None:
    """Adds; never answers ``Wait``; refuses negative numbers."""
    mailbox = bus.serve(address, bound=4)
    while True:
        delivery = await mailbox.get()
        seen.append(delivery.message)
        if isinstance(delivery.message, Add):
            if delivery.message.left < 0:
                delivery.fail(InvalidRequest("Only natural numbers are added here."))
            else:
                delivery.answer(Sum(delivery.message.left + delivery.message.right))


@asynccontextmanager
async def two_hosts(transport: str, tmp_path: Path, faults: Faults | None = None) -> AsyncIterator[tuple[Bus, Bus]]:
    """Two buses, connected."""
    world: Any = RealWorld() if transport != "memory" else SimulatedWorld.of_seed(1)
    near, far = Bus("near", world, TYPES), Bus("far", world, TYPES)
    async with trio.open_nursery() as nursery:
        if transport == "memory":
            one, other = memory_link_pair(faults)
            nursery.start_soon(near.attach, one)
            nursery.start_soon(far.attach, other)
        else:
            listen_tls = dial_tls = None
            url = {"inproc": "inproc://rbmedia-test", "ipc": f"ipc://{tmp_path}/bus", "tls": "tls+tcp://127.0.0.1:0"}[
                transport
            ]
            if transport == "tls":
                authority = open_authority(tmp_path / "tls", world.clock.now_ns())
                listen_tls = server_tls(
                    authority.server_certificate_path.read_text(), authority.server_key_path.read_text()
                )
                dial_tls = client_tls(authority.certificate_pem, SERVER_NAME)
            listener = NngListener(url, listen_tls)
            nursery.start_soon(listener.serve, far.attach)
            nursery.start_soon(near.attach, await dial(listener.url, dial_tls))
        with trio.fail_after(20):
            await near.connected("far")
            await far.connected("near")
        yield near, far
        nursery.cancel_scope.cancel()


@pytest.fixture(params=["memory", "inproc", "ipc", "tls"])
def transport(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


async def test_an_actor_is_asked_by_its_address(transport: str, tmp_path: Path) -> None:
    async with two_hosts(transport, tmp_path) as (near, far), trio.open_nursery() as nursery:
        nursery.start_soon(adder, far, "adder/1@far", [])
        await trio.testing.wait_all_tasks_blocked()
        assert await near.ask("adder/1@far", Add(2, 3), 5) == Sum(5)
        assert await far.ask("adder/1@far", Add(2, 4), 5) == Sum(6)
        nursery.cancel_scope.cancel()


async def test_errors_arrive_as_what_they_were(transport: str, tmp_path: Path) -> None:
    async with two_hosts(transport, tmp_path) as (near, far), trio.open_nursery() as nursery:
        nursery.start_soon(adder, far, "adder/1@far", [])
        await trio.testing.wait_all_tasks_blocked()
        with pytest.raises(InvalidRequest, match="natural"):
            await near.ask("adder/1@far", Add(-1, 3), 5)
        with pytest.raises(NotFound, match="adder/2@far"):
            await near.ask("adder/2@far", Add(1, 3), 5)
        with pytest.raises(Unavailable, match="not connected"):
            await near.ask("adder/1@elsewhere", Add(1, 3), 5)
        with pytest.raises(InvalidRequest):
            await near.ask("adder@far", Add(1, 3), 5)
        with pytest.raises(DeadlineExceeded):
            await near.ask("adder/1@far", Wait(), 0.3)
        nursery.cancel_scope.cancel()


async def test_a_full_mailbox_refuses_and_nothing_waits(transport: str, tmp_path: Path) -> None:
    async with two_hosts(transport, tmp_path) as (near, far):
        mailbox = far.serve("deaf/1@far", bound=2)
        for _ in range(2):
            await far.tell("deaf/1@far", Wait())
        with pytest.raises(Unavailable, match="bound"):
            await near.ask("deaf/1@far", Wait(), 5)
        assert mailbox.statistics().waiting == 2
        assert mailbox.statistics().refused >= 1


async def test_withdrawing_an_actor_answers_who_waits(transport: str, tmp_path: Path) -> None:
    async with two_hosts(transport, tmp_path) as (near, far):
        far.serve("deaf/1@far")

        async def withdraw() -> None:
            await trio.sleep(0.5)
            far.withdraw("deaf/1@far")

        async with trio.open_nursery() as nursery:
            nursery.start_soon(withdraw)
            with pytest.raises((Unavailable, NotFound)):
                await near.ask("deaf/1@far", Wait(), 10)


async def test_lost_repeated_and_late_messages_change_nothing(
    autojump_clock: trio.testing.MockClock, tmp_path: Path
) -> None:
    for seed in range(20):
        faults = Faults(SeededRandomness(seed), FaultPlan(lose=0.3, repeat=0.3, delay=0.3, delay_seconds_max=3.0))
        seen: list[Any] = []
        async with two_hosts("memory", tmp_path, faults) as (near, far), trio.open_nursery() as nursery:
            nursery.start_soon(adder, far, "adder/1@far", seen)
            await trio.testing.wait_all_tasks_blocked()
            for number in range(10):
                assert await near.ask("adder/1@far", Add(number, 1), 600) == Sum(number + 1)
            nursery.cancel_scope.cancel()
        assert seen == [Add(number, 1) for number in range(10)], f"seed {seed}: done once each, in order"
        assert faults.statistics.lost > 0


async def test_the_same_id_is_done_once(autojump_clock: trio.testing.MockClock, tmp_path: Path) -> None:
    seen: list[Any] = []
    async with two_hosts("memory", tmp_path) as (near, far), trio.open_nursery() as nursery:
        nursery.start_soon(adder, far, "adder/1@far", seen)
        await trio.testing.wait_all_tasks_blocked()
        for _ in range(3):
            assert await near.ask("adder/1@far", Add(1, 1), 5, id="the-one") == Sum(2)
        nursery.cancel_scope.cancel()
    assert len(seen) == 1


@pytest.mark.parametrize(
    "spoil",
    [
        lambda: b"",
        lambda: b"\xc1",
        lambda: b"\x93" * 5000,
        lambda: msgspec.msgpack.encode({"id": "x", "kind": "shipment"}),
        lambda: msgspec.msgpack.encode({"id": "x" * 1000, "kind": "greeting", "content": {"host": "h"}}),
        lambda: msgspec.msgpack.encode({"id": 7}),
    ],
)
async def test_malformed_messages_end_the_link_or_are_refused(
    autojump_clock: trio.testing.MockClock, spoil: Callable[[], bytes]
) -> None:
    bus = Bus("far", SimulatedWorld.of_seed(1), TYPES)
    ours: Link
    ours, theirs = memory_link_pair()
    ended: list[BaseException | None] = []

    async def attach() -> None:
        try:
            await bus.attach(theirs)
        except* Exception as error:
            ended.append(error)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(attach)
        await ours.send(spoil())
        await trio.sleep(1)
        assert bus.addresses() == []
        nursery.cancel_scope.cancel()


def test_addresses() -> None:
    assert Address.parse("drive/3@media-1") == Address("drive", "3", "media-1")
    assert str(Address.parse("directory/17@host.example")) == "directory/17@host.example"
    for wrong in ("", "drive", "drive/3", "drive/3@", "/3@h", "Drive/3@h", "drive/3@h@i", "drive/3@h\n"):
        with pytest.raises(InvalidRequest):
            Address.parse(wrong)
