"""The bulk TLS stream: interchangeable with trio's own, whole in both directions at once, and honest about how a stream ended."""

from __future__ import annotations

import os
import ssl
from collections.abc import Callable
from pathlib import Path

import pytest
import trio
import trio.testing

from actors.tls_stream import TlsStream
from drivers.tls import SERVER_NAME, client_context, open_authority
from drivers.world import WallClock

MIB = 1024 * 1024


@pytest.fixture
def contexts(tmp_path: Path) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """(server's, client's)"""
    authority = open_authority(tmp_path / "tls", WallClock().now_ns())
    return authority.server_context(), client_context(authority.certificate_pem)


Make = Callable[[trio.abc.Stream, ssl.SSLContext, bool], TlsStream | trio.SSLStream[trio.abc.Stream]]


def ours(transport: trio.abc.Stream, context: ssl.SSLContext, server: bool) -> TlsStream:
    return TlsStream(transport, context, server_side=server, server_hostname=None if server else SERVER_NAME)


def trios(transport: trio.abc.Stream, context: ssl.SSLContext, server: bool) -> trio.SSLStream[trio.abc.Stream]:
    return trio.SSLStream(transport, context, server_side=server, server_hostname=None if server else SERVER_NAME)


async def connected(
    contexts: tuple[ssl.SSLContext, ssl.SSLContext], make_server: Make, make_client: Make
) -> tuple[TlsStream | trio.SSLStream[trio.abc.Stream], TlsStream | trio.SSLStream[trio.abc.Stream]]:
    left, right = trio.testing.memory_stream_pair()
    server, client = make_server(left, contexts[0], True), make_client(right, contexts[1], False)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(server.do_handshake)
        nursery.start_soon(client.do_handshake)
    return server, client


@pytest.mark.parametrize(("make_server", "make_client"), [(ours, ours), (ours, trios), (trios, ours)])
async def test_both_directions_at_once(
    contexts: tuple[ssl.SSLContext, ssl.SSLContext], make_server: Make, make_client: Make
) -> None:
    server, client = await connected(contexts, make_server, make_client)
    sent = {id(server): os.urandom(3 * MIB + 17), id(client): os.urandom(2 * MIB + 1)}
    got: dict[int, bytes] = {}

    async def send(stream: trio.abc.Stream) -> None:
        await stream.send_all(sent[id(stream)])

    async def receive(stream: trio.abc.Stream, length: int) -> None:
        found = bytearray()
        while len(found) < length:
            found += await stream.receive_some(100_000)
        got[id(stream)] = bytes(found)

    async with trio.open_nursery() as nursery:
        for stream, other in ((server, client), (client, server)):
            nursery.start_soon(send, stream)
            nursery.start_soon(receive, stream, len(sent[id(other)]))
    assert got[id(server)] == sent[id(client)]
    assert got[id(client)] == sent[id(server)]


async def test_an_orderly_end_is_an_end_and_a_cut_is_an_error(
    contexts: tuple[ssl.SSLContext, ssl.SSLContext],
) -> None:
    server, client = await connected(contexts, ours, ours)
    await client.send_all(b"last words")
    await client.aclose()
    assert await server.receive_some() == b"last words"
    assert await server.receive_some() == b""

    left, right = trio.testing.memory_stream_pair()
    server, client = ours(left, contexts[0], True), ours(right, contexts[1], False)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(server.do_handshake)
        nursery.start_soon(client.do_handshake)
    await client.send_all(b"cut")
    await right.aclose()
    assert await server.receive_some() == b"cut"
    with pytest.raises(trio.BrokenResourceError):
        await server.receive_some()


async def test_a_peer_that_is_not_trusted_or_speaks_no_tls(
    contexts: tuple[ssl.SSLContext, ssl.SSLContext], tmp_path: Path
) -> None:
    stranger = open_authority(tmp_path / "stranger", WallClock().now_ns())
    left, right = trio.testing.memory_stream_pair()
    server, client = ours(left, stranger.server_context(), True), ours(right, contexts[1], False)

    refused: list[TlsStream] = []

    async def refuse(stream: TlsStream) -> None:
        try:
            await stream.do_handshake()
        except trio.BrokenResourceError:
            refused.append(stream)
        await stream.aclose()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(refuse, server)
        nursery.start_soon(refuse, client)
    assert client in refused

    left, right = trio.testing.memory_stream_pair()
    await right.send_all(b"GET / HTTP/1.1\r\n\r\n")
    with pytest.raises(trio.BrokenResourceError):
        await ours(left, contexts[0], True).do_handshake()


async def test_a_cancelled_send_breaks_the_stream_and_a_cancelled_receive_does_not(
    contexts: tuple[ssl.SSLContext, ssl.SSLContext],
) -> None:
    left, right = trio.testing.memory_stream_pair()
    server, client = ours(left, contexts[0], True), ours(right, contexts[1], False)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(server.do_handshake)
        nursery.start_soon(client.do_handshake)
    with trio.move_on_after(0.01) as scope:
        await server.receive_some()
    assert scope.cancelled_caught
    await client.send_all(b"x")
    assert await server.receive_some() == b"x"
    right.send_stream.send_all_hook = trio.sleep_forever
    with trio.move_on_after(0.01) as scope:
        await client.send_all(b"nobody reads")
    assert scope.cancelled_caught
    with pytest.raises(trio.BrokenResourceError):
        await client.send_all(b"more")
    await client.aclose()
    await server.aclose()
