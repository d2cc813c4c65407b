"""One connection: Hypercorn's HTTP/1.1 on a TLS stream, without the parts that a stranger could abuse.

HTTP/2 is left out: over TLS it would come by ALPN, which is not offered, but Hypercorn also takes the upgrade of a clear-text
connection and the bare preface. WebSockets are left out until something is served on them. Sends are bounded by progress instead of being
shielded: a peer that stops reading loses its connection (``server`` looks at ``sending_since``), and stopping the daemon does not wait for it.
"""

from __future__ import annotations

import math
from typing import Any

import h11
import trio
from hypercorn.config import Config
from hypercorn.events import Closed, Event, RawData, Updated
from hypercorn.protocol.events import Request
from hypercorn.protocol.h11 import STREAM_ID, H11Protocol
from hypercorn.protocol.http_stream import HTTPStream
from hypercorn.trio.task_group import TaskGroup
from hypercorn.trio.tcp_server import TCPServer
from hypercorn.trio.worker_context import WorkerContext
from hypercorn.typing import AppWrapper, ConnectionState
from hypercorn.utils import parse_socket_addr

SEND_BYTES = 64 * 1024
"""Handed to the stream at once: what must move within the bound of ``sending_since``."""


class Http11(H11Protocol):
    """Every request is HTTP/1.1, whatever it would rather be: offers to upgrade are declined by not being heard.

    The head of an answer goes out together with the first bytes of its body: one TLS record and one system call instead of three.
    """

    _head = b""

    async def _send_h11_event(self, event: Any) -> None:
        try:
            data = self._head + (self.connection.send(event) or b"")
        except h11.LocalProtocolError:
            if self.connection.their_state != h11.ERROR:
                raise
            return
        self._head = data if isinstance(event, h11.Response) else b""
        if data and not self._head:
            await self.send(RawData(data=data))

    async def _check_protocol(self, event: h11.Request) -> None:
        pass

    async def _create_stream(self, request: h11.Request) -> None:
        self.stream = HTTPStream(
            self.app,
            self.config,
            self.context,
            self.task_group,
            self.ssl,
            self.client,
            self.server,
            self.stream_send,
            STREAM_ID,
        )
        await self.stream.handle(
            Request(
                stream_id=STREAM_ID,
                headers=[one for one in request.headers if one[0] != b"upgrade"],
                http_version=request.http_version.decode(),
                method=request.method.decode("ascii").upper(),
                raw_path=request.target,
                state=self.connection_state,
            )
        )
        self.keep_alive_requests += 1


class Connection(TCPServer):
    """Handshake, requests until the peer or an idle time ends it, close."""

    def __init__(
        self,
        app: AppWrapper,
        config: Config,
        context: WorkerContext,
        stream: trio.SSLStream[trio.SocketStream],
    ) -> None:
        super().__init__(app, config, context, ConnectionState({}), stream)
        self._reading = trio.CancelScope()
        self.sending_since = math.inf
        """On trio's clock: when what is being sent was handed to the stream. A deadline of its own for each would cost a twentieth of a small answer."""

        self._idle_since = math.inf
        """On trio's clock; infinity: a request is under way."""
        self._idle_watch = trio.CancelScope()

    async def run(self) -> None:
        with trio.move_on_after(self.config.ssl_handshake_timeout) as patience:
            try:
                await self.stream.do_handshake()
            except (trio.BrokenResourceError, OSError):
                return
        if patience.cancelled_caught:
            return
        inner = self.stream.transport_stream.socket
        try:
            client = parse_socket_addr(inner.family, inner.getpeername())
            server = parse_socket_addr(inner.family, inner.getsockname())
        except OSError:
            return
        async with TaskGroup() as task_group:
            self._task_group = task_group
            self.protocol = Http11(  # type: ignore[assignment]
                self.app,
                self.config,
                self.context,
                task_group,
                ConnectionState(self.state.copy()),
                True,
                client,
                server,
                self.protocol_send,
            )
            await self.protocol.initiate()
            self._idle_since = trio.current_time()
            task_group.spawn(self._close_when_idle)
            with self._reading:
                await self._read_data()
            self._idle_watch.cancel()

    async def protocol_send(self, event: Event) -> None:
        if isinstance(event, Updated):
            self._idle_since = trio.current_time() if event.idle else math.inf
            return
        if not isinstance(event, RawData):
            # Quart-Trio cancels the task of a request as soon as its answer is out, and that task is the one that gets here to close.
            with trio.CancelScope(shield=True):
                await super().protocol_send(event)
            return
        async with self.send_lock:
            view = memoryview(event.data)
            try:
                for start in range(0, len(view), SEND_BYTES):
                    self.sending_since = trio.current_time()
                    await self.stream.send_all(view[start : start + SEND_BYTES])
            except (trio.BrokenResourceError, trio.ClosedResourceError, OSError):
                await trio.aclose_forcefully(self.stream)
                await self.protocol.handle(Closed())
                # With a request in the pipeline the reader waits for the end of the answer, which does not come when the application was cancelled by this.
                self._reading.cancel()
            finally:
                self.sending_since = math.inf

    async def _close_when_idle(self) -> None:
        """One task per connection that looks now and then: Hypercorn starts and ends one with every request, a tenth of a small answer."""
        patience = self.config.keep_alive_timeout
        with self._idle_watch:
            looks = self._idle_since + patience
            while True:
                with trio.move_on_at(looks):
                    await self.context.terminated.wait()
                if self.context.terminated.is_set():
                    if self._idle_since == math.inf:
                        return  # the connection ends with the answer
                    break
                now = trio.current_time()
                if self._idle_since + patience <= now:
                    break
                looks = min(self._idle_since, now) + patience
            with trio.CancelScope(shield=True):
                await self._initiate_server_close()
