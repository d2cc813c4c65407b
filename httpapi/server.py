"""Serving the application: Hypercorn's HTTP on trio, over TLS, with bounds that Hypercorn's own worker does not have.

Hypercorn's ``serve`` puts all connections into one nursery, so that an exception in the handling of a single one (it has had several:
a WebSocket upgrade with trailing bytes, data after a close) takes the whole process down, journal included; and its accept
loop has no limit. So the loop here is our own: it counts connections and runs each one inside a guard.
"""

from __future__ import annotations

import errno
import logging
import socket
import ssl
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import trio
from hypercorn.app_wrappers import ASGIWrapper
from hypercorn.config import Config
from hypercorn.logging import Logger
from hypercorn.trio.lifespan import Lifespan
from hypercorn.trio.worker_context import WorkerContext
from hypercorn.typing import AppWrapper, ResponseSummary, WWWScope

from httpapi.connection import Connection
from httpapi.handover import HandedConnections, Handover

log = logging.getLogger("rbmedia.api")
access_log = logging.getLogger("rbmedia.access")

ACCEPT_RETRY_SECONDS = 0.1
LOOKS_PER_BOUND = 4
"""A connection that stands still is closed after its bound and a quarter of it at the latest."""
_ACCEPT_AGAIN = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOBUFS})
"""Accepting fails for want of something that will be there again: wait, do not stop serving."""


AsgiApplication = Callable[[Any, Any, Any], Awaitable[None]]
"""Of a scope, ``receive`` and ``send``."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Listen:
    """Where and how to serve."""

    host: str
    port: int
    """0: any free one; ``serve`` tells which."""
    certificate: Path
    key: Path
    connections_max: int = 1000
    """Beyond it a connection is closed at once."""
    keep_alive_seconds: float = 30.0
    """How long a connection may be idle, between requests and before the first."""
    handshake_seconds: float = 10.0
    stalled_seconds: float = 30.0
    """How long a peer may leave what was sent to it unread."""
    graceful_seconds: float = 5.0
    """How long requests in progress may go on after the order to stop."""


@dataclass(frozen=True, slots=True)
class Serving:
    """Told through ``task_status`` when connections are accepted."""

    host: str
    port: int

    @property
    def url(self) -> str:
        name = f"[{self.host}]" if ":" in self.host else self.host
        return f"https://{name}:{self.port}"


async def serve(
    app: AsgiApplication,
    listen: Listen,
    *,
    handed: HandedConnections | None = None,
    handover: Handover | None = None,
    stop: Callable[[], Awaitable[None]] = trio.sleep_forever,
    task_status: trio.TaskStatus[Serving] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Serve until ``stop()`` returns or the caller cancels; then no connection is accepted, requests end, all is closed.

    In a worker connections are ``handed`` to it instead of being accepted; in the daemon ``handover`` hands some of those that it accepts to workers. Raises ``OSError`` when the address cannot be bound, ``ssl.SSLError`` when the certificate or key is no good.
    """
    config = _config(listen)
    wrapped = ASGIWrapper(app)
    context = _tls_context(listen)
    listener: trio.SocketListener | HandedConnections
    if handed is not None:
        listener, port, ended = handed, listen.port, handed.ended
    else:
        bound = await _bind(listen)
        listener, port, ended = (
            trio.SocketListener(trio.socket.from_stdlib_socket(bound)),
            bound.getsockname()[1],
            _nobody_counts,
        )
    lifespan = Lifespan(wrapped, config, {})
    async with trio.open_nursery() as nursery:
        await nursery.start(lifespan.handle_lifespan)
        await lifespan.wait_for_startup()
        task_status.started(Serving(listen.host, port))
        connections = _Connections(wrapped, config, listen, context, handover or Handover(), ended)
        await connections.accept_until(stop, listener)
        await lifespan.wait_for_shutdown()
        nursery.cancel_scope.cancel()


def _nobody_counts() -> None:
    """The connections of the daemon itself are counted by ``_Connections``."""


class _Connections:
    """The connections of one listener."""

    def __init__(
        self,
        app: AppWrapper,
        config: Config,
        listen: Listen,
        tls: ssl.SSLContext,
        handover: Handover,
        ended: Callable[[], None],
    ) -> None:
        self._app = app
        self._config = config
        self._listen = listen
        self._tls = tls
        self._handover = handover
        self._ended = ended
        self._context = WorkerContext(None)
        self._open: set[Connection] = set()

    async def accept_until(
        self, stop: Callable[[], Awaitable[None]], listener: trio.abc.Listener[trio.SocketStream]
    ) -> None:
        async with trio.open_nursery() as beside:
            beside.start_soon(
                self._drop_stalled
            )  # also while the last requests end: what is being sent is shielded from the deadline
            async with trio.open_nursery() as connections:
                async with listener, trio.open_nursery() as accepting:
                    accepting.start_soon(self._accept, listener, connections)
                    await stop()
                    accepting.cancel_scope.cancel()
                await self._context.terminated.set()
                connections.cancel_scope.deadline = trio.current_time() + self._listen.graceful_seconds
            beside.cancel_scope.cancel()

    async def _accept(self, listener: trio.abc.Listener[trio.SocketStream], connections: trio.Nursery) -> None:
        while True:
            try:
                stream = await listener.accept()
            except OSError as error:
                if error.errno not in _ACCEPT_AGAIN:
                    raise
                log.warning("cannot accept connections at this moment: %s", error)
                await trio.sleep(ACCEPT_RETRY_SECONDS)
                continue
            own, others = len(self._open), self._handover.connections
            if own + others >= self._listen.connections_max:
                log.warning("refused a connection: %d are open, which is the bound", own + others)
                await trio.aclose_forcefully(stream)
            elif not self._handover.take(stream, own):
                tls = trio.SSLStream(stream, self._tls, server_side=True, https_compatible=True)
                connection = Connection(self._app, self._config, self._context, tls)
                self._open.add(connection)
                connections.start_soon(self._serve, connection)

    async def _serve(self, connection: Connection) -> None:
        try:
            await connection.run()
        except (Exception, BaseExceptionGroup) as error:
            _keep_cancellation(error)
            log.exception("a connection ended in an error of the HTTP server")
        finally:
            self._open.discard(connection)
            self._ended()
            await trio.aclose_forcefully(connection.stream)

    async def _drop_stalled(self) -> None:
        """Close the connections of peers that leave unread what was sent to them."""
        bound = self._listen.stalled_seconds
        while True:
            await trio.sleep(bound / LOOKS_PER_BOUND)
            oldest = trio.current_time() - bound
            for connection in [one for one in self._open if one.sending_since < oldest]:
                await trio.aclose_forcefully(connection.stream)


def _keep_cancellation(error: BaseException) -> None:
    """Raise again what is not an ordinary exception (cancellation, the interrupt key)."""
    if isinstance(error, BaseExceptionGroup):
        _, extraordinary = error.split(Exception)
        if extraordinary is not None:
            raise extraordinary


class _AccessLines(Logger):
    """One line per request: client, method, path, status, bytes, microseconds.

    Hypercorn writes one more, without a status, for each stream that is closed before the end of its answer has been seen off, which with Quart-Trio is
    nearly each. And it gathers all that a format could name for each line, the environment of the process included, which costs more than the line.
    """

    async def access(self, request: WWWScope, response: ResponseSummary | None, request_time: float) -> None:
        if response is None or request["type"] != "http":
            return
        host, port = request.get("client") or ("-", 0)
        length = next((value.decode() for name, value in response["headers"] if name.lower() == b"content-length"), "-")
        access_log.info(
            "%s:%d %s %s %s %s %s %dus",
            host,
            port,
            request["method"],
            request["path"],
            request["http_version"],
            response["status"],
            length,
            request_time * 1e6,
        )


def _config(listen: Listen) -> Config:
    config = Config()
    config.logger_class = _AccessLines
    config.alpn_protocols = ["http/1.1"]
    config.include_server_header = False
    config.keep_alive_timeout = listen.keep_alive_seconds
    config.keep_alive_max_requests = 2**31
    config.ssl_handshake_timeout = listen.handshake_seconds
    config.graceful_timeout = listen.graceful_seconds
    config.errorlog = log
    return config


def _tls_context(listen: Listen) -> ssl.SSLContext:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.load_cert_chain(listen.certificate, listen.key)
    context.set_alpn_protocols(["http/1.1"])
    return context


async def _bind(listen: Listen) -> socket.socket:
    """A listening socket on the first address of the host, IPv4 before IPv6; every address when the host is one of the
    unspecified ones. Its options go over to accepted ones: no delay, dead peers noticed."""
    found = await trio.socket.getaddrinfo(listen.host, listen.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    family, _, _, _, address = min(found, key=lambda one: one[0] != socket.AF_INET)
    bound = socket.socket(family, socket.SOCK_STREAM)
    try:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        bound.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if family == socket.AF_INET6:
            bound.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        bound.setblocking(False)
        bound.bind(address)
        bound.listen(256)
    except BaseException:
        bound.close()
        raise
    return bound
