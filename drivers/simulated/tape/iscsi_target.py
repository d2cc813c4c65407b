"""An iSCSI target (RFC 7143) on trio: serves a simulated library, or any other logical units, to whoever speaks iSCSI.

Who may come in, and how many; what a session does is in ``iscsi_session``. One connection per session, error recovery level 0, no
digests, CHAP or no authentication. There is no encryption: meant for loopback.
"""

from __future__ import annotations

import functools
import ipaddress
import itertools
import logging
from collections.abc import Iterable, Sequence
from typing import Final

import msgspec
import trio

from drivers.simulated.tape.iscsi_login import (
    LOGIN_SECONDS_MAX,
    PORTAL_GROUP,
    Login,
    LoginRefused,
    LoginStatus,
    Negotiation,
    accept,
    log_in,
    refuse,
)
from drivers.simulated.tape.iscsi_pdu import PduReader
from drivers.simulated.tape.iscsi_session import Session
from drivers.simulated.tape.iscsi_tasks import Units
from rbcore.errors import InvalidRequest, ProtocolViolation, Unavailable
from rbcore.scsi import ScsiResult, ScsiTransport

TARGET_NAME: Final = "iqn.2026-01.io.rbmedia:simulated"
CONNECTIONS_MAX: Final = 64
_HANDLES: Final = 0xFFFF

log = logging.getLogger("rbmedia.iscsi")


class IscsiServing(msgspec.Struct, frozen=True, kw_only=True):
    """Where the target is."""

    host: str
    port: int
    target_name: str

    def address(self, lun: int) -> str:
        """``iscsi://host:port/target/lun``."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"iscsi://{host}:{self.port}/{self.target_name}/{lun}"


class SharedUnits:
    """``Units`` out of transports that are there already; ``transports[n]`` is LUN n. All initiators share their nexuses, and a reset
    only aborts. Closing the transports is left to their owner."""

    def __init__(self, transports: Sequence[ScsiTransport]) -> None:
        self._transports = tuple(transports)

    @property
    def luns(self) -> tuple[int, ...]:
        return tuple(range(len(self._transports)))

    def connect(self, lun: int, initiator: str) -> ScsiTransport:
        return _Borrowed(self._transports[lun], initiator)

    async def reset(self, lun: int) -> None:
        await trio.lowlevel.checkpoint()


class _Borrowed:
    """A transport that outlives the session."""

    def __init__(self, transport: ScsiTransport, initiator: str) -> None:
        self.name = f"{transport.name} for {initiator}"
        self._transport = transport

    async def execute(
        self,
        cdb: bytes,
        *,
        send: bytes | memoryview = b"",
        receive_bytes: int = 0,
        timeout_seconds: float,
    ) -> ScsiResult:
        return await self._transport.execute(
            cdb, send=send, receive_bytes=receive_bytes, timeout_seconds=timeout_seconds
        )

    async def aclose(self) -> None:
        await trio.lowlevel.checkpoint()


class IscsiTarget:
    """The sessions of one target. ``serve`` one connection after its accept; ``serve_iscsi`` does that with a listener."""

    def __init__(
        self,
        units: Units,
        portal: str,
        *,
        target_name: str = TARGET_NAME,
        user: str = "",
        password: str = "",
        ping_seconds: float | None = None,
        connections_max: int = CONNECTIONS_MAX,
    ) -> None:
        """``portal``: host:port for initiators that ask. ``user``: CHAP is wanted with this name. ``ping_seconds``: ask an initiator
        that is silent for so long, and drop the session when it stays silent as long again; None: never. Raises ``InvalidRequest``."""
        if bool(user) != bool(password):
            raise InvalidRequest("CHAP needs a user and a password")
        self.units = units
        self.portal = f"{portal},{PORTAL_GROUP}"
        self.target_name = target_name
        self._user = user
        self._password = password
        self._ping_seconds = ping_seconds
        self._connections_max = connections_max
        self._connections = 0
        self._sessions: dict[int, Session] = {}
        """By handle (TSIH)."""
        self._handles = itertools.count()

    def __repr__(self) -> str:
        return f"<IscsiTarget {self.target_name} at {self.portal}, {len(self._sessions)} sessions>"

    def sessions(self) -> Iterable[Session]:
        return self._sessions.values()

    async def serve(self, stream: trio.abc.Stream) -> None:
        """One connection to its end; closes it. Whatever goes wrong on it stays there."""
        async with stream:
            if self._connections >= self._connections_max:
                log.warning("%s has %d connections and takes no more", self.target_name, self._connections)
                return
            self._connections += 1
            try:
                await self._serve(stream)
            except* (ProtocolViolation, Unavailable, LoginRefused) as group:
                log.info("a connection to %s ended: %s", self.target_name, _reasons(group))
            except* (trio.BrokenResourceError, trio.ClosedResourceError):
                log.debug("an initiator of %s is gone without a logout", self.target_name)
            except* Exception:
                log.exception("a connection to %s ended by an error of this program", self.target_name)
            finally:
                self._connections -= 1

    async def _serve(self, stream: trio.abc.Stream) -> None:
        reader = PduReader(stream)
        negotiation = Negotiation(self.target_name, user=self._user, password=self._password)
        try:
            with trio.fail_after(LOGIN_SECONDS_MAX):
                login = await log_in(reader, stream, negotiation)
                handle = await self._make_room(login, stream)
        except trio.TooSlowError:
            raise ProtocolViolation(f"no login within {LOGIN_SECONDS_MAX:g} seconds") from None
        session = self._sessions[handle] = Session(self, login, stream, reader)
        log.debug("%s has logged in", login.port)
        try:
            await session.run(functools.partial(accept, stream, login, handle), ping_seconds=self._ping_seconds)
        finally:
            del self._sessions[handle]

    async def _make_room(self, login: Login, stream: trio.abc.SendStream) -> int:
        """The handle for a new session. An older one of the same initiator port ends first (RFC 7143, 6.3.5)."""
        joined = int.from_bytes(login.last_request.header[14:16], "big")
        if joined:
            known = joined in self._sessions
            status = LoginStatus.TOO_MANY_CONNECTIONS if known else LoginStatus.NO_SUCH_SESSION
            await self._turn_away(login, stream, status, "a session has one connection")
        while earlier := self._earlier(login):
            earlier.end()
            await earlier.ended.wait()
        return next(one for one in (1 + n % _HANDLES for n in self._handles) if one not in self._sessions)

    def _earlier(self, login: Login) -> Session | None:
        for session in self.sessions():
            if session.login.port == login.port and session.login.is_discovery == login.is_discovery:
                return session
        return None

    async def _turn_away(self, login: Login, stream: trio.abc.SendStream, status: int, reason: str) -> None:
        await refuse(stream, login.last_request, login.status_number - 1 & 0xFFFFFFFF, status)
        raise LoginRefused(status, reason)


def _reasons(group: BaseExceptionGroup[BaseException]) -> str:
    return "; ".join(_reasons(one) if isinstance(one, BaseExceptionGroup) else str(one) for one in group.exceptions)


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


async def serve_iscsi(
    units: Units,
    host: str = "127.0.0.1",
    port: int = 0,
    *,
    target_name: str = TARGET_NAME,
    user: str = "",
    password: str = "",
    ping_seconds: float | None = None,
    connections_max: int = CONNECTIONS_MAX,
    task_status: trio.TaskStatus[IscsiServing] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Serve until cancelled: ``serving = await nursery.start(serve_iscsi, library)``; then ``serving.address(lun)`` is the address.

    ``host`` is a numeric address of loopback: nothing here is encrypted, and whoever comes in may erase cartridges; ``port`` 0: any free one. The other arguments are those of ``IscsiTarget``. Cancelling ends all
    sessions at once, as a target does that is switched off. Raises ``InvalidRequest`` for another address, ``OSError`` when it cannot be bound.
    """
    if not _is_loopback(host):
        raise InvalidRequest(f"a simulated library is served on loopback only, not on {host}")
    listeners = await trio.open_tcp_listeners(port, host=host)
    bound: int = listeners[0].socket.getsockname()[1]
    serving = IscsiServing(host=host, port=bound, target_name=target_name)
    portal = serving.address(0).removeprefix("iscsi://").partition("/")[0]
    target = IscsiTarget(
        units,
        portal,
        target_name=target_name,
        user=user,
        password=password,
        ping_seconds=ping_seconds,
        connections_max=connections_max,
    )
    task_status.started(serving)
    await trio.serve_listeners(target.serve, listeners)
