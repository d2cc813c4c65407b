"""Faults from outside of the program: one line in, one line out, on a unix socket of the directory of a simulated library.

A line is the name of a method of ``Faults`` and its arguments, positional ones first: ``take_out 1024 noticed=no``; or ``status``.
Whoever may open the socket may do everything; it belongs to its user only (mode 0600). The answer begins with ``ok`` or ``refused``.
"""

from __future__ import annotations

import contextlib
import functools
import inspect
import logging
import os
import socket
import stat
import types
import typing
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import trio

from drivers.simulated.tape.faults import Faults
from drivers.simulated.tape.library import SimulatedLibrary
from rbcore.errors import InvalidRequest, RbError, Unavailable

SOCKET_NAME: Final = "control"
LINE_BYTES_MAX: Final = 1024
REQUEST_SECONDS_MAX: Final = 10.0
CONNECTIONS_MAX: Final = 16
STATUS: Final = "status"
_WORDS: Final = {"yes": True, "true": True, "no": False, "false": False}

log = logging.getLogger("rbmedia.simulator")


def fault_methods() -> dict[str, Callable[..., object]]:
    """Everything that can be done, by name."""
    return {name: method for name, method in vars(Faults).items() if not name.startswith("_")}


def usage(name: str) -> str:
    """``put_in BARCODE ADDRESS [noticed=yes|no]``."""
    words = [name]
    for parameter in _parameters(name):
        is_bool = bool in _types(name, parameter)
        if parameter.kind is parameter.KEYWORD_ONLY:
            word = f"{parameter.name}={'yes|no' if is_bool else parameter.name.upper()}"
        else:
            word = parameter.name.upper()
        words.append(word if parameter.default is parameter.empty else f"[{word}]")
    return " ".join(words)


def parse_fault(line: str) -> tuple[str, list[Any], dict[str, Any]]:
    """Method, positional and named arguments, each of the type that the method declares. Raises ``InvalidRequest``."""
    words = line.split()
    name = words[0] if words else ""
    if name not in fault_methods():
        raise InvalidRequest(
            f"there is no fault {name!r}; there are {', '.join(sorted(fault_methods()))}, and {STATUS}"
        )
    positional = [one for one in _parameters(name) if one.kind is not one.KEYWORD_ONLY]
    named = {one.name: one for one in _parameters(name) if one.kind is one.KEYWORD_ONLY}
    arguments: list[Any] = []
    options: dict[str, Any] = {}
    for word in words[1:]:
        key, separator, text = word.partition("=")
        if separator and key in named and key not in options:
            options[key] = _value(name, named[key], text)
        elif not separator and not options and len(arguments) < len(positional):
            arguments.append(_value(name, positional[len(arguments)], word))
        else:
            raise InvalidRequest(f"{word!r} does not belong there: {usage(name)}")
    required = [one.name for one in positional[len(arguments) :] if one.default is one.empty]
    required += [key for key, one in named.items() if one.default is one.empty and key not in options]
    if required:
        raise InvalidRequest(f"{', '.join(required)} is missing: {usage(name)}")
    return name, arguments, options


def _parameters(name: str) -> list[inspect.Parameter]:
    return list(inspect.signature(fault_methods()[name]).parameters.values())[1:]


def _types(name: str, parameter: inspect.Parameter) -> tuple[object, ...]:
    hint = typing.get_type_hints(fault_methods()[name])[parameter.name]
    return typing.get_args(hint) if isinstance(hint, types.UnionType) else (hint,)


def _value(name: str, parameter: inspect.Parameter, text: str) -> object:
    accepted = _types(name, parameter)
    if bool in accepted:
        if text in _WORDS:
            return _WORDS[text]
    elif int in accepted:
        if text.isascii() and text.isdecimal() and len(text) <= 12:
            return int(text)
    elif text.isascii() and text.isprintable() and 0 < len(text) <= 32:
        return text
    raise InvalidRequest(f"{text!r} cannot be {parameter.name}: {usage(name)}")


async def carry_out(library: SimulatedLibrary, line: str) -> str:
    """The answer to one line. Raises ``RbError`` when it is refused; nothing was done then."""
    if line.split() == [STATUS]:
        return await library.at_rest(lambda: _status(library))
    name, arguments, options = parse_fault(line)
    if name in ("kill_drive", "reset_drive", "require_cleaning") and arguments[0] >= len(library.drive_units):
        raise InvalidRequest(
            f"there is no drive {arguments[0]}: they are counted from 0 to {len(library.drive_units) - 1}"
        )
    if name in ("cut", "mend") and arguments and arguments[0] not in library.luns:
        raise InvalidRequest(f"there is no LUN {arguments[0]}")
    method = functools.partial(getattr(library.faults, name), *arguments, **options)
    done: object = await library.at_rest(method)
    log.info("fault: %s", line)
    return "" if done is None else " ".join(map(str, done)) if isinstance(done, tuple) else str(done)


def _status(library: SimulatedLibrary) -> str:
    parts = [repr(library.changer_unit), *map(repr, library.drive_units)]
    parts += [repr(element) for element in library.changer_unit.elements.values() if element.cartridge or element.seen]
    parts += [f"<outside {name}>" for name in sorted(library.outside)]
    return "\n".join(part[1:-1] for part in parts)


# --- the socket ---


async def serve_control(
    library: SimulatedLibrary, directory: Path, *, task_status: trio.TaskStatus[Path] = trio.TASK_STATUS_IGNORED
) -> None:
    """Answer on ``directory``/control until cancelled. A socket that an earlier process left is replaced: one process has the directory."""
    path = directory / SOCKET_NAME
    with contextlib.suppress(FileNotFoundError):
        if not stat.S_ISSOCK(path.lstat().st_mode):
            raise Unavailable(f"{path} is no socket: remove it, the simulator needs the name")
        path.unlink()
    limiter = trio.CapacityLimiter(CONNECTIONS_MAX)
    listening = trio.socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    with _short_path(directory) as short:
        before = os.umask(0o177)
        try:
            await listening.bind(short)
        finally:
            os.umask(before)
    listening.listen(CONNECTIONS_MAX)
    try:
        task_status.started(path)
        await trio.serve_listeners(functools.partial(_answer, library, limiter), [trio.SocketListener(listening)])
    finally:
        path.unlink(missing_ok=True)


async def _answer(library: SimulatedLibrary, limiter: trio.CapacityLimiter, stream: trio.SocketStream) -> None:
    async with stream, limiter:
        with trio.move_on_after(REQUEST_SECONDS_MAX), contextlib.suppress(trio.BrokenResourceError):
            raw = await _receive_line(stream)
            try:
                text = await carry_out(library, raw.decode("ascii", "replace").strip())
                answer = f"ok {text}".rstrip()
            except RbError as error:
                answer = f"refused {error.message}"
            await stream.send_all(answer.encode() + b"\n")


async def _receive_line(stream: trio.SocketStream) -> bytes:
    raw = b""
    while b"\n" not in raw and len(raw) <= LINE_BYTES_MAX:
        received = await stream.receive_some(LINE_BYTES_MAX)
        if not received:
            break
        raw += received
    return raw.partition(b"\n")[0][: LINE_BYTES_MAX + 1]


def request(directory: Path, line: str) -> str:
    """Ask the simulator that serves ``directory``; its answer. Raises ``Unavailable`` when none does, ``InvalidRequest`` with its refusal."""
    if "\n" in line or not line.isascii() or len(line) >= LINE_BYTES_MAX:
        raise InvalidRequest("a fault is one line of ASCII")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.settimeout(2 * REQUEST_SECONDS_MAX)
        try:
            with _short_path(directory) as short:
                connection.connect(short)
            connection.sendall(line.encode() + b"\n")
            raw = b"".join(iter(lambda: connection.recv(65536), b""))
        except OSError as error:
            raise Unavailable(f"no simulated tape library is served from {directory}: {error}") from error
    verdict, _, text = raw.decode("utf-8", "replace").strip().partition(" ")
    if verdict == "refused":
        raise InvalidRequest(text)
    if verdict != "ok":
        raise Unavailable(f"the simulator of {directory} gave no answer; whether it did what was asked is not known")
    return text


@contextlib.contextmanager
def _short_path(directory: Path) -> Iterator[str]:
    """A name for the socket that is short enough (107 bytes) however deep the directory is."""
    descriptor = os.open(directory, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{descriptor}/{SOCKET_NAME}"
    finally:
        os.close(descriptor)
