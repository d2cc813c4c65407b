"""The real network between daemon and agents: control over nng (``tls+tcp``), bulk over TLS streams,
or over a Unix socket where both are on one host (``drivers.local_stream``).

Both trust the daemon's private authority and nothing else (``drivers.tls``). Implements ``actors.link.Network``.
"""

from __future__ import annotations

import contextlib
import functools
import logging
import socket
import ssl
from collections.abc import Awaitable, Callable
from pathlib import Path

import pynng
import trio

from actors.bus_nng import NngDialLink, NngListener, client_tls, dial, server_tls
from actors.link import LinkClosed
from actors.tls_stream import TlsStream
from drivers.local_stream import LocalStream, dial_local, listen_local
from drivers.tls import SERVER_NAME, Authority, client_context
from rbcore.errors import Unavailable

_log = logging.getLogger(__name__)

STREAM_DIAL_SECONDS_MAX = 10.0
HANDSHAKE_SECONDS_MAX = 10.0
STREAMS_MAX = 1024
"""Bulk streams at once; more wait in the kernel's queue."""


class ServerNetwork:
    """The daemon's side: it listens."""

    def __init__(self, authority: Authority, local: Path | None = None) -> None:
        """``local``: where agents of this host find a Unix socket for bulk; its folder is there, and for the owner alone."""
        self._local = local
        self._tls = server_tls(authority.server_certificate_path.read_text(), authority.server_key_path.read_text())
        self._context = authority.server_context()
        self._streams = trio.Semaphore(STREAMS_MAX)

    async def listen_control(self, host: str, port: int) -> NngListener:
        await trio.lowlevel.checkpoint()
        try:
            return NngListener(f"tls+tcp://{_bracketed(host)}:{port}", self._tls)
        except pynng.NNGException as error:
            raise Unavailable(f"Agents cannot be listened for at {host}:{port}: {error}") from error

    async def dial_control(self, host: str, port: int) -> NngDialLink:
        raise LinkClosed("A daemon does not dial.")

    async def serve_data(
        self,
        host: str,
        port: int,
        handler: Callable[[trio.abc.Stream, str], Awaitable[None]],
        *,
        task_status: trio.TaskStatus[int] = trio.TASK_STATUS_IGNORED,
    ) -> None:
        try:
            listeners = await trio.open_tcp_listeners(port, host=host)
        except OSError as error:
            raise Unavailable(f"Bulk cannot be listened for at {host}:{port}: {error}") from error
        bound: int = listeners[0].socket.getsockname()[1]
        if self._local is not None:
            try:
                listeners.append(listen_local(self._local))
            except (
                OSError
            ) as error:  # a file system that knows no sockets, or is full: the agent of this host takes TLS
                _log.warning("bulk of this host goes over TLS, because %s cannot be made: %s", self._local, error)

        async def one(plain: trio.SocketStream) -> None:
            if plain.socket.family == socket.AF_UNIX:
                await handler(LocalStream(plain), "this host")
                return
            address = "{}:{}".format(*plain.socket.getpeername()[:2])
            secure = TlsStream(plain, self._context, server_side=True)
            try:
                with trio.fail_after(HANDSHAKE_SECONDS_MAX):
                    await secure.do_handshake()
            except (trio.BrokenResourceError, trio.TooSlowError, ssl.SSLError):
                return  # nobody who speaks TLS with us; it cost one connection
            await handler(secure, address)

        async def bounded(plain: trio.SocketStream) -> None:
            try:
                async with self._streams:
                    await one(plain)
            except OSError:
                return  # gone before it was looked at
            finally:
                await trio.aclose_forcefully(plain)

        try:
            async with trio.open_nursery() as nursery:
                await nursery.start(functools.partial(trio.serve_listeners, bounded, listeners))
                task_status.started(bound)
        finally:
            if self._local is not None:
                with contextlib.suppress(OSError):  # what is left there is replaced at the next start
                    self._local.unlink()

    async def dial_data(self, host: str, port: int) -> trio.abc.Stream:
        raise LinkClosed("A daemon does not dial.")


class ClientNetwork:
    """The agent's side: it dials."""

    def __init__(self, authority_pem: str, local: Path | None = None) -> None:
        """``local``: the Unix socket of a daemon on this host. Where it cannot be used, bulk goes over TLS."""
        self._local = local
        self._tls = client_tls(authority_pem, SERVER_NAME)
        self._context = client_context(authority_pem)

    async def listen_control(self, host: str, port: int) -> NngListener:
        raise Unavailable("An agent does not listen.")

    async def dial_control(self, host: str, port: int) -> NngDialLink:
        return await dial(f"tls+tcp://{_bracketed(host)}:{port}", self._tls)

    async def serve_data(
        self,
        host: str,
        port: int,
        handler: Callable[[trio.abc.Stream, str], Awaitable[None]],
        *,
        task_status: trio.TaskStatus[int] = trio.TASK_STATUS_IGNORED,
    ) -> None:
        raise Unavailable("An agent does not listen.")

    async def dial_data(self, host: str, port: int) -> trio.abc.Stream:
        if self._local is not None:
            try:
                return await dial_local(self._local)
            except OSError as error:
                _log.info("bulk goes over TLS, because %s cannot be used: %s", self._local, error)
        try:
            with trio.fail_after(STREAM_DIAL_SECONDS_MAX):
                plain = await trio.open_tcp_stream(host, port)
                plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                secure = TlsStream(plain, self._context, server_hostname=SERVER_NAME)
                try:
                    await secure.do_handshake()
                except BaseException:
                    await trio.aclose_forcefully(plain)
                    raise
                return secure
        except (OSError, trio.BrokenResourceError, trio.TooSlowError, ssl.SSLError) as error:
            raise LinkClosed(f"The daemon's bulk port {host}:{port} cannot be reached: {error}") from error


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host
