"""The iSCSI transport when things go well, and when the target dies, hangs, comes back, or was never there."""

from __future__ import annotations

import ctypes.util
import gc
import os
import select
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
import trio
import trio.testing

from drivers.scsi import iscsi, libiscsi
from drivers.scsi.changer import Changer
from drivers.scsi.drive import Drive
from drivers.scsi.iscsi import IscsiAddress, IscsiTransport
from drivers.scsi.sense import Attention
from rbcore import errors
from rbcore.errors import DeadlineExceeded, InvalidRequest, Unavailable
from tests.tape import vtl
from tests.tape.libraries import need_target, running_target

MEBIBYTE = 1 << 20
READY = bytes(6)
WRITE = bytes([0x0A, 0, 0x10, 0, 0, 0])
REWIND = bytes([1, 0, 0, 0, 0, 0])


@pytest.fixture
def target(tmp_path: Path) -> Iterator[vtl.VirtualLibrary]:
    need_target()
    with running_target(tmp_path) as running:
        yield running


async def put_in(target: vtl.VirtualLibrary) -> None:
    changer = Changer(IscsiTransport(target.changer_url))
    await changer.move(vtl.SLOTS, vtl.DRIVES)
    await changer.aclose()


async def write_for_ever(transport: IscsiTransport, data: memoryview) -> None:
    while True:
        await transport.execute(WRITE, send=data, timeout_seconds=4)


async def ready(transport: IscsiTransport) -> None:
    """Past the unit attention of a new session."""
    await transport.execute(READY, timeout_seconds=5)
    assert (await transport.execute(READY, timeout_seconds=5)).status == 0


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("iscsi://127.0.0.1/iqn.x:y/0", "iscsi://127.0.0.1:3260/iqn.x:y/0"),
        ("iscsi://me%secret@host:99/iqn.x%3Ay/12", "iscsi://host:99/iqn.x:y/12"),
        ("iscsi://[::1]:99/iqn/1", "iscsi://[::1]:99/iqn/1"),
    ],
)
def test_addresses(url: str, shown: str) -> None:
    address = IscsiAddress.parse(url)
    assert str(address) == shown
    assert "secret" not in str(address)
    assert address.password == ("secret" if "secret" in url else "")


@pytest.mark.parametrize(
    "url",
    [
        "",
        "iscsi://",
        "iscsi://h/t",
        "iscsi://h/t/x",
        "http://h/t/1",
        "iscsi://h:x/t/1",
        "iscsi://h/t/99999",
        "/dev/sg0",
    ],
)
def test_what_is_no_address_is_refused(url: str) -> None:
    with pytest.raises(InvalidRequest):
        IscsiAddress.parse(url)


def test_a_missing_library_names_its_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ctypes.util, "find_library", lambda _: "libiscsi-is-not-here.so.7")
    with pytest.raises(Unavailable, match="libiscsi7"):
        libiscsi.load.__wrapped__()


async def test_a_portal_that_nobody_serves(target: vtl.VirtualLibrary) -> None:
    target.kill()
    transport = IscsiTransport(target.changer_url)
    with pytest.raises(Unavailable, match="cannot be reached"):
        await transport.execute(READY, timeout_seconds=5)


async def test_a_target_that_is_not_there(target: vtl.VirtualLibrary) -> None:
    transport = IscsiTransport(target.changer_url.replace("library", "nobody"))
    with pytest.raises(Unavailable, match="cannot be reached"):
        await transport.execute(READY, timeout_seconds=5)


async def test_a_target_that_wants_a_password(target: vtl.VirtualLibrary) -> None:
    target.require_password("me", "a-long-secret")
    right = IscsiTransport(target.changer_url.replace("iscsi://", "iscsi://me%a-long-secret@"))
    await right.execute(READY, timeout_seconds=5)
    assert "secret" not in right.name
    for wrong in ("iscsi://", "iscsi://me%another-secret@", "iscsi://you%a-long-secret@"):
        transport = IscsiTransport(target.changer_url.replace("iscsi://", wrong))
        with pytest.raises(Unavailable, match="cannot be reached") as caught:
            await transport.execute(READY, timeout_seconds=5)
        assert "-secret" not in caught.value.message
    await right.aclose()


async def test_every_kind_of_buffer_is_sent(target: vtl.VirtualLibrary) -> None:
    await put_in(target)
    transport = IscsiTransport(target.drive_url(0))
    await ready(transport)
    data = os.urandom(MEBIBYTE)
    for sent in (data, memoryview(data), memoryview(bytearray(data)), memoryview(b"x" + data)[1:]):
        await transport.execute(REWIND, timeout_seconds=5)
        assert (await transport.execute(WRITE, send=sent, timeout_seconds=5)).status == 0
        await transport.execute(REWIND, timeout_seconds=5)
        back = await transport.execute(bytes([8, 0, 0x10, 0, 0, 0]), receive_bytes=MEBIBYTE, timeout_seconds=5)
        assert back.data == data
    await transport.aclose()


async def test_a_target_that_dies_in_the_middle_of_commands(target: vtl.VirtualLibrary) -> None:
    """Whatever the moment: a stated error within the deadline, and the next session works."""
    await put_in(target)
    data = memoryview(bytearray(MEBIBYTE))
    for moment in range(12):
        transport = IscsiTransport(target.drive_url(0))
        await ready(transport)

        async def die(after_steps: int) -> None:
            for _ in range(after_steps):
                await trio.lowlevel.checkpoint()
            target.kill()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(die, 5 * moment + moment % 3)
            with pytest.raises(Unavailable), trio.fail_after(5):
                await write_for_ever(transport, data)
        target.start()
        await put_in(target)
        await ready(transport)
        await transport.aclose()


async def test_a_target_that_hangs_costs_no_more_than_the_deadline(target: vtl.VirtualLibrary) -> None:
    await put_in(target)
    transport = IscsiTransport(target.drive_url(0))
    await ready(transport)
    assert target.process is not None
    target.process.send_signal(signal.SIGSTOP)
    try:
        for send in (b"", bytes(8 * MEBIBYTE)):
            started = trio.current_time()
            cdb = bytes([0x0A, 0]) + len(send).to_bytes(3, "big") + bytes(1) if send else READY
            with pytest.raises(DeadlineExceeded):
                await transport.execute(cdb, send=send, timeout_seconds=0.2)
            assert trio.current_time() - started < 1
    finally:
        target.process.send_signal(signal.SIGCONT)
    await transport.execute(READY, timeout_seconds=5)
    await transport.aclose()


async def test_cancellation_ends_a_command_at_once(target: vtl.VirtualLibrary) -> None:
    transport = IscsiTransport(target.drive_url(0))
    await transport.execute(READY, timeout_seconds=5)
    assert target.process is not None
    target.process.send_signal(signal.SIGSTOP)
    with trio.move_on_after(0.1) as scope:
        await transport.execute(READY, timeout_seconds=30)
    target.process.send_signal(signal.SIGCONT)
    assert scope.cancelled_caught
    await transport.execute(READY, timeout_seconds=5)
    await transport.aclose()


async def test_closing_ends_what_runs_and_what_waits(target: vtl.VirtualLibrary) -> None:
    transport = IscsiTransport(target.drive_url(0))
    await transport.execute(READY, timeout_seconds=5)
    ended: list[str] = []

    async def ask() -> None:
        with pytest.raises(Unavailable, match="closed") as caught:
            await transport.execute(READY, timeout_seconds=30)
        ended.append(caught.value.code)

    assert target.process is not None
    target.process.send_signal(signal.SIGSTOP)
    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(ask)
            nursery.start_soon(ask)
            await trio.testing.wait_all_tasks_blocked()
            with trio.fail_after(3), trio.CancelScope() as scope:
                scope.cancel()
                await transport.aclose()
    finally:
        target.process.send_signal(signal.SIGCONT)
    assert ended == ["unavailable", "unavailable"]


async def test_a_connection_lost_while_idle_is_replaced_unseen(target: vtl.VirtualLibrary) -> None:
    drive = Drive(IscsiTransport(target.drive_url(0)))
    await put_in(target)
    await drive.rewind()
    await drive.write(b"before")
    drive.take_attentions()
    target.kill()
    target.start()
    await put_in(target)
    # The command was not sent over the dead connection, but the device was reset: a write must not go on as if nothing were.
    with pytest.raises(errors.PositionLost, match="reset"):
        await drive.write(b"after")
    assert [sense.attention for sense in drive.take_attentions()] == [Attention.RESET]
    with pytest.raises(errors.PositionLost):
        await drive.write(b"after")
    await drive.rewind()
    assert (await drive.read(100)).data == b"before"
    await drive.aclose()


async def test_an_idle_session_lives_while_it_is_kept_alive(tmp_path: Path) -> None:
    """Two sessions with a target that pings every second: one is kept alive, the other is dropped and made again."""
    need_target()
    with running_target(tmp_path, ping_seconds=1) as target:
        kept, left = IscsiTransport(target.drive_url(0)), IscsiTransport(target.drive_url(1))
        for transport in (kept, left):
            await transport.execute(READY, timeout_seconds=5)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(kept.keep_alive)
            assert left._session is not None
            hangup = select.poll()
            hangup.register(left._session.watch or -1, select.POLLRDHUP)
            assert await trio.to_thread.run_sync(hangup.poll, 20000)
            nursery.cancel_scope.cancel()
        assert (await kept.execute(READY, timeout_seconds=5)).sense[12] == 0x3A
        assert (await left.execute(READY, timeout_seconds=5)).sense[12] == 0x29
        await kept.aclose()
        await left.aclose()


async def test_commands_of_several_tasks_wait_for_each_other(target: vtl.VirtualLibrary) -> None:
    transport = IscsiTransport(target.changer_url)
    statuses: list[int] = []

    async def ask() -> None:
        statuses.extend([(await transport.execute(READY, timeout_seconds=5)).status for _ in range(20)])

    async with trio.open_nursery() as nursery:
        for _ in range(5):
            nursery.start_soon(ask)
    assert len(statuses) == 100
    await transport.aclose()


async def test_nothing_is_left_behind(target: vtl.VirtualLibrary) -> None:
    """Sessions that ended every way there is leave no descriptor and no expected callback."""

    async def all_ways() -> None:
        for kill in (False, True):
            transport = IscsiTransport(target.changer_url)
            await transport.execute(READY, timeout_seconds=5)
            with trio.move_on_after(0):
                await transport.execute(READY, timeout_seconds=5)
            if kill:
                target.kill()
                with pytest.raises(Unavailable):
                    await transport.execute(READY, timeout_seconds=5)
                target.start()
            await transport.aclose()
            await transport.aclose()
            with pytest.raises(Unavailable, match="closed"):
                await transport.execute(READY, timeout_seconds=5)

    await all_ways()
    gc.collect()
    before = len(os.listdir("/proc/self/fd"))
    await all_ways()
    gc.collect()
    assert len(os.listdir("/proc/self/fd")) <= before
    assert iscsi._outcomes == {}
