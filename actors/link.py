"""A link: one connection that carries whole messages, and may lose them. What the bus and the sessions are built on.

The promise is weak on purpose, so that every transport keeps it: a message arrives whole, once, or not at all, in
order; a closed link says so on both ends. ``actors.conversation`` makes requests and answers out of that.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Protocol

import trio


class LinkClosed(Exception):
    """The link is gone: closed here, closed there, or broken."""


class Link(Protocol):
    address: str
    """Where the peer is, for people to read."""

    async def send(self, data: bytes) -> None:
        """Hand ``data`` to the transport. Raises ``LinkClosed``."""

    async def receive(self) -> bytes:
        """The next message. Raises ``LinkClosed``."""

    def close(self) -> None:
        """Close; idempotent, never waits. What is queued may be lost: have it acknowledged before."""


class LinkListener(Protocol):
    port: int
    """Where it listens, 0 for transports without ports."""

    async def serve(self, handler: Callable[[Link], Awaitable[None]]) -> None:
        """Run ``handler`` for each incoming link in a task of its own, until cancelled. The link is closed when the handler ends."""


class Network(Protocol):
    """How a daemon and its agents reach each other: real sockets with TLS, or memory in simulation."""

    async def listen_control(self, host: str, port: int) -> LinkListener:
        """Port 0: any free one."""

    async def dial_control(self, host: str, port: int) -> Link:
        """Raises ``LinkClosed`` when nobody answers there, or when who answers is not trusted."""

    async def serve_data(
        self,
        host: str,
        port: int,
        handler: Callable[[trio.abc.Stream, str], Awaitable[None]],
        *,
        task_status: trio.TaskStatus[int] = trio.TASK_STATUS_IGNORED,
    ) -> None:
        """Run ``handler(stream, peer address)`` for each incoming bulk stream until cancelled. Started with the port."""

    async def dial_data(self, host: str, port: int) -> trio.abc.Stream:
        """Raises ``LinkClosed``."""
