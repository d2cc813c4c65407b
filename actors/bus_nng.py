"""Links over nng: ``inproc://``, ``ipc://`` and ``tls+tcp://`` (Pair version 1).

A listener is one polyamorous socket; each connection (nng: pipe) becomes a ``Link``. A dialler has a socket of its own per
connection, so that a lost connection is seen as one and the session starts afresh.

What nng does, and what follows:
- A polyamorous socket drops what a slow peer does not take (two messages wait per pipe). Links may lose; conversations repeat.
- ``close`` drops what is queued. Conversations acknowledge before anybody closes.
- Messages over ``recv_max_size`` make nng close the connection before it allocates anything.
- Callbacks run on nng's threads; ``run_sync_soon`` brings them home. After ``fork`` nothing of nng may be used: processes are spawned.
- nng cancels asynchronously: a cancelled call ends when nng said how it ended, so a socket outlives every call on it.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Awaitable, Callable
from typing import Any

import pynng
import trio

from actors.link import Link, LinkClosed
from rbcore.messages import MESSAGE_BYTES_MAX

_log = logging.getLogger(__name__)

LINK_MESSAGES_MAX = 256
"""Received messages that wait per link; what comes on top is dropped (and repeated by the peer)."""
LINK_BYTES_MAX = 8 * 1024 * 1024
CONNECTIONS_MAX = 4096
DIAL_SECONDS_MAX = 5.0
RECEIVE_BYTES_MAX = MESSAGE_BYTES_MAX + 64 * 1024
"""A little more than the protocol allows: what is slightly too large is refused with a log line, the rest by nng itself."""

BOUND_PORT_OPTION = "tcp-bound-port"


def _home(token: trio.lowlevel.TrioToken, call: Callable[..., None], *arguments: Any) -> None:
    """From an nng thread to the loop; nothing to do when the run is over."""
    with contextlib.suppress(trio.RunFinishedError):
        token.run_sync_soon(call, *arguments)


class _Inbox:
    """What one connection sent and nobody took yet: bounded in messages and in bytes."""

    def __init__(self) -> None:
        self._in, self._out = trio.open_memory_channel[bytes](LINK_MESSAGES_MAX)
        self._waiting_bytes = 0
        self.dropped = 0

    def put(self, data: bytes) -> None:
        if self._waiting_bytes and self._waiting_bytes + len(data) > LINK_BYTES_MAX:
            self.dropped += 1
            return
        try:
            self._in.send_nowait(data)
        except trio.WouldBlock:
            self.dropped += 1
        except (trio.ClosedResourceError, trio.BrokenResourceError):
            return
        else:
            self._waiting_bytes += len(data)

    async def get(self, address: str) -> bytes:
        try:
            data = await self._out.receive()
        except (trio.EndOfChannel, trio.ClosedResourceError):
            raise LinkClosed(f"The connection to {address} is closed.") from None
        self._waiting_bytes -= len(data)
        return data

    def close(self) -> None:
        self._in.close()


class NngPipeLink:
    """The listener's end of one connection."""

    def __init__(self, pipe: Any, address: str) -> None:
        self.address = address
        self._pipe = pipe
        self._inbox = _Inbox()
        self._closed = False

    async def send(self, data: bytes) -> None:
        if self._closed:
            raise LinkClosed(f"The connection to {self.address} is closed.")
        try:
            await self._pipe.asend(data)
        except pynng.NNGException as error:
            raise LinkClosed(f"The connection to {self.address} is closed: {error}") from error

    async def receive(self) -> bytes:
        return await self._inbox.get(self.address)

    def close(self) -> None:
        if not self._closed:
            self.gone()
            with contextlib.suppress(pynng.NNGException):
                self._pipe.close()

    def gone(self) -> None:
        self._closed = True
        self._inbox.close()

    def take(self, data: bytes) -> None:
        self._inbox.put(data)


class NngListener:
    """Implements ``actors.link.LinkListener``. ``url`` is the one it really listens at."""

    def __init__(self, url: str, tls: Any = None, *, connections_max: int = CONNECTIONS_MAX) -> None:
        self._token = trio.lowlevel.current_trio_token()
        self._connections_max = connections_max
        self._links: dict[int, NngPipeLink] = {}
        self._arrivals_in, self._arrivals = trio.open_memory_channel[NngPipeLink](connections_max)
        self._socket: Any = pynng.Pair1(polyamorous=True, recv_max_size=RECEIVE_BYTES_MAX, tls_config=tls)
        self._socket.add_pre_pipe_connect_cb(lambda pipe: _home(self._token, self._connected, pipe))
        self._socket.add_post_pipe_remove_cb(lambda pipe: _home(self._token, self._removed, pipe.id))
        try:
            listener = self._socket.listen(url)
        except pynng.NNGException:
            self._socket.close()
            raise
        self.port = 0
        self.url = url
        if "tcp://" in url:
            self.port = pynng.options._getopt_int(listener, BOUND_PORT_OPTION)
            self.url = f"{url.rpartition(':')[0]}:{self.port}"

    def _connected(self, pipe: Any) -> None:
        if len(self._links) >= self._connections_max:
            _log.warning("a connection is refused: %d are open, which is the bound", len(self._links))
            with contextlib.suppress(pynng.NNGException):
                pipe.close()
            return
        link = self._links[pipe.id] = NngPipeLink(pipe, _address_of(pipe))
        self._arrivals_in.send_nowait(link)

    def _removed(self, pipe_id: int) -> None:
        link = self._links.pop(pipe_id, None)
        if link is not None:
            link.gone()

    async def serve(self, handler: Callable[[Link], Awaitable[None]]) -> None:
        async def one(link: NngPipeLink) -> None:
            try:
                await handler(link)
            finally:
                link.close()

        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._read)
                async for link in self._arrivals:
                    nursery.start_soon(one, link)
        finally:
            self.close()

    async def _read(self) -> None:
        while True:
            message = await self._socket.arecv_msg()
            if message.pipe is not None:
                link = self._links.get(message.pipe.id)
                if link is not None:
                    link.take(message.bytes)

    def close(self) -> None:
        self._socket.close()


class NngDialLink:
    """The dialler's end: a socket of its own."""

    def __init__(self, socket: Any, address: str) -> None:
        self.address = address
        self._socket = socket
        self._closed = False

    async def send(self, data: bytes) -> None:
        if self._closed:
            raise LinkClosed(f"The connection to {self.address} is closed.")
        try:
            await self._socket.asend(data)
        except pynng.NNGException as error:
            raise LinkClosed(f"The connection to {self.address} is closed: {error}") from error

    async def receive(self) -> bytes:
        try:
            data: bytes = await self._socket.arecv()
        except pynng.NNGException as error:
            raise LinkClosed(f"The connection to {self.address} is closed: {error}") from error
        return data

    def close(self) -> None:
        if not self._closed:
            self._closed = True
            self._socket.close()


async def dial(url: str, tls: Any = None, *, seconds_max: float = DIAL_SECONDS_MAX) -> NngDialLink:
    """Connect. nng tries again by itself until ``seconds_max``; raises ``LinkClosed`` then."""
    token = trio.lowlevel.current_trio_token()
    connected = trio.Event()
    socket = pynng.Pair1(
        recv_max_size=RECEIVE_BYTES_MAX, reconnect_time_min=200, reconnect_time_max=1000, tls_config=tls
    )
    link = NngDialLink(socket, url)
    socket.add_post_pipe_connect_cb(lambda _pipe: _home(token, connected.set))
    socket.add_post_pipe_remove_cb(lambda _pipe: _home(token, link.close))
    try:
        socket.dial(url, block=False)
        with trio.move_on_after(seconds_max):
            await connected.wait()
            return link
    except pynng.NNGException as error:
        link.close()
        raise LinkClosed(f"{url} cannot be dialled: {error}") from error
    except BaseException:
        link.close()
        raise
    link.close()
    raise LinkClosed(f"Nobody who can be trusted answers at {url} within {seconds_max} s.")


def server_tls(certificate_pem: str, key_pem: str) -> Any:
    """nng's TLS settings for a listener."""
    return pynng.TLSConfig(
        pynng.TLSConfig.MODE_SERVER,
        own_cert_string=certificate_pem,
        own_key_string=key_pem,
        auth_mode=pynng.TLSConfig.AUTH_MODE_NONE,
    )


def client_tls(authority_pem: str, server_name: str) -> Any:
    """nng's TLS settings for a dialler that trusts ``authority_pem`` and nothing else."""
    return pynng.TLSConfig(
        pynng.TLSConfig.MODE_CLIENT,
        server_name=server_name,
        ca_string=authority_pem,
        auth_mode=pynng.TLSConfig.AUTH_MODE_REQUIRED,
    )


def _address_of(pipe: Any) -> str:
    try:
        return str(pipe.remote_address)
    except pynng.NNGException:
        return "unknown"
