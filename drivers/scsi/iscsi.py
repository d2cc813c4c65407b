"""SCSI over iSCSI, through libiscsi's asynchronous interface driven by trio.

Everything runs on the trio thread: the library's socket is non-blocking, the loop waits for it like for any other. So deadlines
and cancellation are trio's own, and no second thread can touch a session that is being closed. The library's synchronous calls on
worker threads would cost the loop less, but they cannot be interrupted, and when the session fails under them it may still hold a
pointer into the stack of the call that has returned.

- The library's automatic reconnection is off: it would send commands again, and a WRITE carried out twice ruins a tape.
- A command that must end early (deadline, cancellation) takes the session with it. Losing the session makes the target
  abort its commands (RFC 7143, 7.2.2 and SAM-5 nexus loss); aborting one task in the middle of its data is where libraries and
  targets are weakest. The next command logs in again and meets the unit attention that tells of it.
- Pings of the target are answered by ``keep_alive``, or before the next command.
- A connection that died while nothing was under way is replaced unseen: that command had not been sent.
"""

from __future__ import annotations

import contextlib
import ctypes
import itertools
import select
import socket
import urllib.parse
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final, NoReturn

import msgspec
import trio

from drivers.scsi import libiscsi
from drivers.scsi.buffers import place_of, room
from rbcore.errors import DeadlineExceeded, InvalidRequest, Unavailable
from rbcore.scsi import ScsiResult

PORT: Final = 3260
LUN_DIGITS_MAX: Final = 5
LOGIN_SECONDS_MAX: Final = 15.0
LOGOUT_SECONDS_MAX: Final = 2.0
KEEP_ALIVE_SECONDS: Final = 1.0
"""Targets ping every 5 to 15 seconds and wait about as long for the answer."""
INITIATOR_NAME: Final = "iqn.2026-01.io.rbmedia:initiator"
CHECK_CONDITION: Final = 0x02
CDB_BYTES_MAX: Final = 16
_PENDING: Final = -1
"""Status of a task that has not ended; the library writes the real one before it calls back."""


class IscsiAddress(msgspec.Struct, frozen=True, kw_only=True):
    """Where one logical unit is. ``str`` and ``repr`` leave user and password out."""

    host: str
    port: int = PORT
    target: str
    lun: int
    user: str = ""
    password: str = ""

    def __repr__(self) -> str:
        return f"<{self}>"

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"iscsi://{host}:{self.port}/{self.target}/{self.lun}"

    @classmethod
    def parse(cls, url: str) -> IscsiAddress:
        """``iscsi://[user%password@]host[:port]/target/lun``, as libiscsi writes it. Raises ``InvalidRequest``."""
        form = f"{url.rpartition('@')[2]!r} is not an iSCSI address: iscsi://HOST[:PORT]/TARGET/LUN is wanted"
        credentials, at, rest = url.removeprefix("iscsi://").rpartition("@")
        user, _, password = credentials.partition("%")
        try:
            parts = urllib.parse.urlsplit("iscsi://" + rest)
            host, port = parts.hostname, parts.port or PORT
        except ValueError as error:
            raise InvalidRequest(form) from error
        target, slash, lun = urllib.parse.unquote(parts.path.removeprefix("/")).rpartition("/")
        if not (url.startswith("iscsi://") and host and slash and target and lun.isdecimal()) or bool(at) != bool(user):
            raise InvalidRequest(form)
        if len(lun) > LUN_DIGITS_MAX or int(lun) > 0x3FFF:
            raise InvalidRequest(f"{form}, LUN at most 16383")
        return cls(host=host, port=port, target=target, lun=int(lun), user=user, password=password)


_outcomes: dict[int, int] = {}
"""Token of a connection step under way -> its status. The callback below is the only one there is, so none can be leaked."""
_tokens = itertools.count(1)


def _on_outcome(_context: int, status: int, _data: int, token: int | None) -> None:
    if token in _outcomes:
        _outcomes[token] = status


_CALLBACK: Final = libiscsi.COMMAND_CALLBACK(_on_outcome)


@contextlib.contextmanager
def _expected_outcome() -> Iterator[int]:
    token = next(_tokens)
    _outcomes[token] = _PENDING
    try:
        yield token
    finally:
        del _outcomes[token]


@dataclass(slots=True, eq=False)
class _Session:
    """One login. Must not be used after ``close``."""

    library: ctypes.CDLL
    context: int
    watch: socket.socket | None = None
    """A second descriptor of the library's socket, to look at it without taking anything away."""

    def close(self) -> None:
        """At once, without a logout. Commands under way get their callbacks in here, and their buffers are free afterwards."""
        if self.watch is not None:
            self.watch.close()
            self.watch = None
        if self.context:
            descriptor = self.library.iscsi_get_fd(self.context)
            if descriptor >= 0:
                trio.lowlevel.notify_closing(descriptor)
            self.library.iscsi_destroy_context(self.context)
            self.context = 0

    def error(self) -> str:
        text: bytes | None = self.library.iscsi_get_error(self.context)
        return (text or b"").decode("utf-8", "replace").strip() or "the connection was closed"

    async def pump(self, ended: Callable[[], bool], *, write_at_once: bool) -> None:
        """Serve the session until ``ended``. Raises ``Unavailable`` when the connection breaks before."""
        while not ended():
            wanted = self.library.iscsi_which_events(self.context)
            descriptor = self.library.iscsi_get_fd(self.context)
            if descriptor < 0 or not wanted:
                raise Unavailable(self.error())
            if wanted & select.POLLOUT:
                if not write_at_once:
                    await trio.lowlevel.wait_writable(descriptor)
                happened, write_at_once = select.POLLOUT, False
            else:
                await trio.lowlevel.wait_readable(descriptor)
                happened, write_at_once = select.POLLIN, True
            if self._serve(happened) < 0 and not ended():
                raise Unavailable(self.error())

    def _serve(self, happened: int) -> int:
        """The library writes the header of each PDU by itself, and targets take as little as 8 KiB in one. Corked, they leave in full packets: writing to
        ``tgtd`` costs half the processor time."""
        if happened != select.POLLOUT or self.watch is None:
            return int(self.library.iscsi_service(self.context, happened))
        try:
            self.watch.setsockopt(socket.IPPROTO_TCP, socket.TCP_CORK, 1)
            served = int(self.library.iscsi_service(self.context, happened))
            self.watch.setsockopt(socket.IPPROTO_TCP, socket.TCP_CORK, 0)
        except OSError as error:
            raise Unavailable(f"the connection is gone: {error.strerror}") from error
        return served

    async def step(self, start: Callable[[int], int]) -> None:
        """One of the library's connection calls with its callback. Raises ``Unavailable`` when it fails."""
        with _expected_outcome() as token:
            if start(token) != 0:
                raise Unavailable(self.error())
            await self.pump(lambda: _outcomes[token] != _PENDING, write_at_once=False)
            if _outcomes[token] != 0:
                raise Unavailable(self.error())

    async def command(self, lun: int, task: ctypes._Pointer[libiscsi.Task]) -> None:
        """Carry out a task that has its buffers. Raises ``Unavailable`` when the target gave no status for it."""
        task.contents.status = _PENDING
        if self.library.iscsi_scsi_command_async(self.context, lun, task, _CALLBACK, None, None) != 0:
            raise Unavailable(self.error())
        await self.pump(lambda: task.contents.status != _PENDING, write_at_once=True)
        if task.contents.status in (libiscsi.STATUS_CANCELLED, libiscsi.STATUS_ERROR, libiscsi.STATUS_TIMEOUT):
            raise Unavailable(self.error())

    def is_alive(self) -> bool:
        """Nothing is under way: has the other side closed? Messages that came meanwhile (pings) are answered."""
        assert self.watch is not None
        for _ in range(64):
            try:
                if not self.watch.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT):
                    return False
            except BlockingIOError:
                return True
            except OSError:
                return False
            if self.library.iscsi_service(self.context, select.POLLIN) < 0:
                return False
            if self.library.iscsi_which_events(self.context) & select.POLLOUT:
                self.library.iscsi_service(self.context, select.POLLOUT)
        return False


class IscsiTransport:
    """``rbcore.scsi.ScsiTransport`` over TCP. Logs in at the first command, and again after a connection was lost."""

    def __init__(self, address: IscsiAddress | str, *, initiator_name: str = INITIATOR_NAME) -> None:
        self.address = IscsiAddress.parse(address) if isinstance(address, str) else address
        self.name = str(self.address)
        self._initiator_name = initiator_name
        self._session: _Session | None = None
        self._turn = trio.Lock()
        self._closed = False
        self._under_way: set[trio.CancelScope] = set()
        """Of the command that runs and of those that wait."""

    async def execute(
        self,
        cdb: bytes,
        *,
        send: bytes | memoryview = b"",
        receive_bytes: int = 0,
        timeout_seconds: float,
    ) -> ScsiResult:
        assert not (len(send) and receive_bytes), "one direction at a time"
        assert 6 <= len(cdb) <= CDB_BYTES_MAX, "commands have 6 to 16 bytes"
        try:
            with trio.fail_after(timeout_seconds) as scope:
                self._under_way.add(scope)
                try:
                    await self._take_turn()
                    try:
                        self._must_be_open()
                        session = await self._ready_session()
                        return await self._run(session, cdb, send, receive_bytes)
                    finally:
                        self._turn.release()
                finally:
                    self._under_way.discard(scope)
        except trio.TooSlowError:
            self._must_be_open()
            raise DeadlineExceeded(
                f"{self.name} did not end command {cdb[0]:02x}h within {timeout_seconds:g} s; the session was dropped"
            ) from None

    async def _take_turn(self) -> None:
        """Without a round of the loop when nobody has it: the command leaves at once, and what the caller has running beside it begins after that."""
        try:
            self._turn.acquire_nowait()
        except trio.WouldBlock:
            await self._turn.acquire()

    async def keep_alive(self) -> NoReturn:
        """Answer the target's pings while no command is under way; run it beside, end it by cancelling.

        Without it a target that pings drops a session that is idle for long. The next command would make another one, but a drive's
        position and the lock of its cartridge are lost with the first.
        """
        while True:
            await trio.sleep(KEEP_ALIVE_SECONDS)
            async with self._turn:
                if self._session is not None and not self._session.is_alive():
                    self._drop()

    async def aclose(self) -> None:
        """Commands under way end as ``Unavailable``. A logout that may take two seconds at most, then the connection is closed in any case."""
        self._closed = True
        for scope in tuple(self._under_way):
            scope.cancel()
        with trio.CancelScope(shield=True):
            async with self._turn:
                session, self._session = self._session, None
                if session is None:
                    return
                try:
                    if session.is_alive():
                        with trio.move_on_after(LOGOUT_SECONDS_MAX), contextlib.suppress(Unavailable):
                            await session.step(
                                lambda token: session.library.iscsi_logout_async(session.context, _CALLBACK, token)
                            )
                finally:
                    session.close()

    def _must_be_open(self) -> None:
        if self._closed:
            raise Unavailable(f"{self.name} is closed")

    async def _ready_session(self) -> _Session:
        if self._session is not None and not self._session.is_alive():
            self._drop()
        if self._session is None:
            self._session = await self._login()
        return self._session

    def _drop(self) -> None:
        session, self._session = self._session, None
        if session is not None:
            session.close()

    async def _login(self) -> _Session:
        library = libiscsi.load()
        address = self.address
        # Numbers only: the library would resolve a name while everything waits for it.
        try:
            found = await trio.socket.getaddrinfo(address.host, address.port, type=socket.SOCK_STREAM)
        except OSError as error:
            raise Unavailable(f"{self.name}: {address.host} is not known ({error})") from error
        numeric: str = found[0][4][0]  # type: ignore[assignment]  # bytes and numbers belong to other families than these
        portal = (f"[{numeric}]" if ":" in numeric else numeric).encode() + b":%d" % address.port
        context = library.iscsi_create_context(self._initiator_name.encode())
        if not context:
            raise Unavailable(f"{self.name}: libiscsi could not make a session")
        session = _Session(library, context)
        try:
            library.iscsi_set_noautoreconnect(context, 1)
            library.iscsi_set_session_type(context, libiscsi.SESSION_NORMAL)
            library.iscsi_set_targetname(context, address.target.encode())
            if address.user:
                library.iscsi_set_initiator_username_pwd(context, address.user.encode(), address.password.encode())
            with trio.fail_after(LOGIN_SECONDS_MAX):
                await session.step(lambda token: library.iscsi_connect_async(context, portal, _CALLBACK, token))
                await session.step(lambda token: library.iscsi_login_async(context, _CALLBACK, token))
            session.watch = socket.socket(fileno=socket.dup(library.iscsi_get_fd(context)))
        except (Unavailable, trio.TooSlowError) as error:
            session.close()
            why = error.message if isinstance(error, Unavailable) else f"no answer within {LOGIN_SECONDS_MAX:g} s"
            raise Unavailable(
                f"{self.name} cannot be reached: {why}. Is the target running, and is the address right?"
            ) from None
        except BaseException:
            session.close()
            raise
        return session

    async def _run(self, session: _Session, cdb: bytes, send: bytes | memoryview, receive_bytes: int) -> ScsiResult:
        library = session.library
        expected = len(send) or receive_bytes
        direction = (
            libiscsi.TRANSFER_WRITE
            if len(send)
            else libiscsi.TRANSFER_READ
            if receive_bytes
            else libiscsi.TRANSFER_NONE
        )
        task = library.scsi_create_task(len(cdb), cdb, direction, expected)
        if not task:
            raise Unavailable(f"{self.name}: libiscsi is out of memory")
        try:
            received = room(receive_bytes)
            with _pinned(send if len(send) else received) as place:
                if len(send):
                    library.scsi_task_add_data_out_buffer(task, len(send), place)
                elif receive_bytes:
                    library.scsi_task_add_data_in_buffer(task, receive_bytes, place)
                try:
                    await session.command(self.address.lun, task)
                except BaseException as error:
                    # Before the buffers and the task go: afterwards nothing of the library's refers to them.
                    self._drop()
                    if isinstance(error, Unavailable):
                        raise Unavailable(
                            f"{self.name}: the connection was lost during command {cdb[0]:02x}h ({error.message}); "
                            "whether it was carried out is not known"
                        ) from None
                    raise
                return _result(task.contents, received)
        finally:
            library.scsi_free_scsi_task(task)


def _result(task: libiscsi.Task, received: bytes) -> ScsiResult:
    residual = 0
    if task.residual_status == libiscsi.RESIDUAL_UNDERFLOW:
        residual = task.residual
    elif task.residual_status == libiscsi.RESIDUAL_OVERFLOW:
        residual = -task.residual
    sense = b""
    if task.status == CHECK_CONDITION and task.data_in.size > 2:
        # The data segment of the response: two bytes of length, then the sense (RFC 7143, 11.4.7).
        segment = ctypes.string_at(task.data_in.data, task.data_in.size)
        sense = segment[2 : 2 + int.from_bytes(segment[:2], "big")]
    # Without a residual this is ``received`` itself, no copy.
    data = received[: max(0, len(received) - max(0, residual))]
    return ScsiResult(status=task.status, sense=sense, data=data, residual_bytes=residual)


@contextlib.contextmanager
def _pinned(buffer: bytes | memoryview) -> Iterator[int]:
    """The address of a buffer's bytes, which stay there inside the block. Copies only memory that is read only and no ``bytes``."""
    if not len(buffer):
        yield 0
    elif isinstance(buffer, memoryview) and not buffer.readonly and buffer.contiguous:
        window = (ctypes.c_ubyte * buffer.nbytes).from_buffer(buffer)
        try:
            yield ctypes.addressof(window)
        finally:
            del window
    else:
        kept = buffer if isinstance(buffer, bytes) else bytes(buffer)
        yield place_of(kept)
        del kept
