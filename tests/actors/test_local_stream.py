"""Bulk over the Unix socket of one host: whole in both directions, for the owner alone, and TLS where it cannot be used."""

from __future__ import annotations

import contextlib
import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import trio
import trio.testing

from actors.framing import DataChannel
from actors.network import ClientNetwork, ServerNetwork
from actors.tls_stream import TlsStream
from drivers.bulk_stream import bulk
from drivers.local_stream import LocalStream, dial_local, listen_local
from drivers.tls import open_authority
from drivers.world import WallClock
from rbcore.errors import ProtocolViolation, Unavailable
from rbcore.messages import FRAME_PAYLOAD_BYTES_MAX, Blocks, Stored

MIB = 1024 * 1024
LONG = "a folder whose name alone is longer than half of what the address of a Unix socket may have"


@contextlib.asynccontextmanager
async def pair(path: Path) -> AsyncIterator[tuple[LocalStream, LocalStream]]:
    listening = listen_local(path)
    dialled = await dial_local(path)
    accepted = LocalStream(await listening.accept())
    try:
        yield dialled, accepted
    finally:
        for one in (dialled, accepted, listening):
            await trio.aclose_forcefully(one)


async def test_both_directions_at_once_from_a_path_longer_than_an_address(tmp_path: Path) -> None:
    folder = tmp_path / LONG / LONG
    folder.mkdir(parents=True)
    async with pair(folder / "data.sock") as streams:
        sent = [[os.urandom(3 * MIB + 17), b"", b"x" * 5] * 200, [os.urandom(2 * MIB)]]
        sent[0][3:] = sent[0][3:9] + [b"y"] * 1500  # more parts than a system call takes
        got: list[bytes] = [b"", b""]

        async def receive(number: int) -> None:
            found = memoryview(bytearray(sum(map(len, sent[1 - number]))))
            filled = 0
            while filled < len(found):
                filled += await streams[number].receive_into(found[filled:])
            got[number] = bytes(found)

        async with trio.open_nursery() as nursery:
            for number in range(2):
                nursery.start_soon(streams[number].send_parts, sent[number])
                nursery.start_soon(receive, number)
        assert got == [b"".join(sent[1]), b"".join(sent[0])]


async def test_ends_and_errors_are_those_of_streams(tmp_path: Path) -> None:
    async with pair(tmp_path / "data.sock") as (ours, theirs):
        await theirs.send_all(b"last words")
        await theirs.aclose()
        room = memoryview(bytearray(100))
        assert await ours.receive_into(room) == 10
        assert await ours.receive_into(room) == 0
        with pytest.raises(trio.BrokenResourceError):
            await ours.send_parts([bytes(MIB)] * 8)
        await ours.aclose()
        with pytest.raises(trio.ClosedResourceError):
            await ours.receive_into(room)
        with pytest.raises(trio.ClosedResourceError):
            await ours.send_all(b"x")


async def test_one_sender_at_a_time(tmp_path: Path) -> None:
    async with pair(tmp_path / "data.sock") as (ours, _), trio.open_nursery() as nursery:
        nursery.start_soon(ours.send_all, bytes(64 * MIB))
        await trio.testing.wait_all_tasks_blocked()
        with pytest.raises(trio.BusyResourceError):
            await ours.send_all(b"x")
        nursery.cancel_scope.cancel()


async def test_a_socket_left_by_a_crash_is_replaced_and_for_the_owner_alone(tmp_path: Path) -> None:
    path = tmp_path / "data.sock"
    await trio.aclose_forcefully(listen_local(path))
    with pytest.raises(ConnectionRefusedError):
        await dial_local(path)
    async with pair(path):
        assert path.stat().st_mode & 0o077 == 0


async def test_an_agent_of_this_host_takes_the_socket_and_otherwise_tls(tmp_path: Path) -> None:
    authority = open_authority(tmp_path / "pki", WallClock().now_ns())
    local, away = tmp_path / "data.sock", tmp_path / "away"
    addresses: list[str] = []

    async def handler(stream: trio.abc.Stream, address: str) -> None:
        addresses.append(address)
        await stream.send_all(await stream.receive_some(100))

    async with trio.open_nursery() as nursery:
        port: int = await nursery.start(ServerNetwork(authority, local).serve_data, "127.0.0.1", 0, handler)
        network = ClientNetwork(authority.certificate_pem, local)
        for expected in (LocalStream, TlsStream):
            stream = await network.dial_data("127.0.0.1", port)
            assert isinstance(stream, expected)
            await stream.send_all(b"hello")
            assert await stream.receive_some(5) == b"hello"
            await trio.aclose_forcefully(stream)
            if local.exists():
                local.rename(away)
        away.rename(local)
        nursery.cancel_scope.cancel()
    assert not local.exists(), "a home at rest holds files alone, which every program can copy"
    assert addresses[0] == "this host"
    assert addresses[1].startswith("127.0.0.1:")


async def test_where_no_socket_can_be_made_bulk_goes_over_tls(tmp_path: Path) -> None:
    authority = open_authority(tmp_path / "pki", WallClock().now_ns())
    local = tmp_path / "no folder" / "data.sock"

    async def handler(stream: trio.abc.Stream, address: str) -> None:
        await stream.send_all(address.partition(":")[0].encode())

    async with trio.open_nursery() as nursery:
        port: int = await nursery.start(ServerNetwork(authority, local).serve_data, "127.0.0.1", 0, handler)
        stream = await ClientNetwork(authority.certificate_pem, local).dial_data("127.0.0.1", port)
        assert await stream.receive_some(100) == b"127.0.0.1"
        await trio.aclose_forcefully(stream)
        nursery.cancel_scope.cancel()


async def test_frames_of_every_size_over_it_and_none_with_a_payload_before_the_attach(tmp_path: Path) -> None:
    async with pair(tmp_path / "data.sock") as streams:
        ours, theirs = DataChannel(streams[0]), DataChannel(streams[1])
        payloads = [b"", os.urandom(1), os.urandom(20_000), os.urandom(5 * MIB), os.urandom(FRAME_PAYLOAD_BYTES_MAX)]

        async def send() -> None:
            for number, payload in enumerate(payloads):
                await ours.send(Blocks(count=number), [payload[: len(payload) // 3], payload[len(payload) // 3 :]])
                await ours.send(Stored(block=number, bytes=0))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(send)
            for number, payload in enumerate(payloads):
                assert await theirs.receive() == (Blocks(count=number), bytearray(payload))
                assert await theirs.receive() == (Stored(block=number, bytes=0), bytearray())
        await ours.send(Blocks(count=1), [b"x"])
        with pytest.raises(ProtocolViolation):
            await theirs.receive(payload_bytes_max=0)
        await ours.aclose()
        with pytest.raises(Unavailable):
            await ours.receive()


def test_streams_that_are_not_for_bulk_are_wrapped_and_others_are_not(tmp_path: Path) -> None:
    left, _ = trio.testing.memory_stream_pair()
    wrapped = bulk(left)
    assert bulk(wrapped) is wrapped
