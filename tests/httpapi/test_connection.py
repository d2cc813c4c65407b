"""Idle time of a connection, on trio's virtual clock: bytes in memory stand in for the socket and its TLS."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import Any

import trio
import trio.testing
from hypercorn.config import Config
from hypercorn.logging import Logger
from hypercorn.trio.worker_context import WorkerContext
from hypercorn.utils import wrap_app

from httpapi.connection import Connection

PATIENCE, WORK = 30.0, 100.0
REQUEST = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"


class Stream:
    """Bytes in memory with what a TLS stream has beyond."""

    def __init__(self, within: trio.abc.Stream, transport: socket.socket) -> None:
        self.transport_stream = SimpleNamespace(socket=transport)
        self.receive_some, self.send_all, self.aclose = within.receive_some, within.send_all, within.aclose

    async def do_handshake(self) -> None:
        pass


class Silent(Logger):
    async def access(self, request: Any, response: Any, request_time: float) -> None:
        pass


async def slow(scope: Any, receive: Any, send: Any) -> None:
    """Answers after ``WORK`` seconds."""
    await trio.sleep(WORK)
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
    await send({"type": "http.response.body", "body": b"ok", "more_body": False})


@asynccontextmanager
async def served() -> AsyncIterator[tuple[trio.abc.Stream, WorkerContext]]:
    near, far = trio.testing.memory_stream_pair()
    plain, beside = socket.socketpair()
    config = Config()
    config.logger_class, config.keep_alive_timeout = Silent, PATIENCE
    context = WorkerContext(None)
    with plain, beside:
        connection = Connection(wrap_app(slow, 0, "asgi"), config, context, Stream(near, plain))  # type: ignore[arg-type]
        async with trio.open_nursery() as nursery:
            nursery.start_soon(connection.run)
            yield far, context
            await far.aclose()


async def ended(stream: trio.abc.Stream) -> float:
    """When the other side closes."""
    while await stream.receive_some():
        pass
    return trio.current_time()


async def test_a_connection_that_asks_nothing_ends(autojump_clock: trio.testing.MockClock) -> None:
    async with served() as (stream, _):
        assert await ended(stream) == PATIENCE


async def test_work_is_not_idle_time_which_begins_again_after_it(autojump_clock: trio.testing.MockClock) -> None:
    async with served() as (stream, _):
        await trio.sleep(20)
        for number in (1, 2):
            await stream.send_all(REQUEST)
            assert (await stream.receive_some()).endswith(b"ok")
            assert trio.current_time() == 20 + number * WORK + (number - 1) * 29
            await trio.sleep(29)
        assert await ended(stream) == 20 + 2 * WORK + 29 + PATIENCE


async def test_at_the_end_of_the_server_an_idle_connection_ends_at_once_and_another_with_its_answer(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with served() as (stream, context):
        await trio.sleep(7)
        await context.terminated.set()
        assert await ended(stream) == 7
    async with served() as (stream, context):
        await stream.send_all(REQUEST)
        await trio.sleep(7)
        await context.terminated.set()
        assert await ended(stream) == 7 + WORK


async def test_nothing_is_left_of_a_connection_that_its_peer_closes(autojump_clock: trio.testing.MockClock) -> None:
    async with served() as (stream, _):
        await stream.send_all(REQUEST)
        assert (await stream.receive_some()).endswith(b"ok")
        closed = trio.current_time()
    assert trio.current_time() == closed
