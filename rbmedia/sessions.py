"""Logins of the command line, kept between calls in a file that only its owner can read.

A refresh token is good for one exchange; a second one with the same token ends the whole login (it looks like theft).
So whoever refreshes holds the file's lock and looks again first: another call may have done it already.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path

import msgspec

from rbcore.errors import UNDECODABLE


class Session(msgspec.Struct, frozen=True, kw_only=True):
    """One login at one daemon."""

    url: str
    user: str
    access_token: str
    refresh_token: str
    csrf_token: str
    ca_certificate: str
    """Path of the authority's certificate this login trusts."""


def default_session_file() -> Path:
    """``$RBMEDIA_SESSION``, else ``$XDG_STATE_HOME/rbmedia/session.json``, by default ``~/.local/state/rbmedia/session.json``."""
    named = os.environ.get("RBMEDIA_SESSION")
    if named:
        return Path(named).expanduser()
    base = os.environ.get("XDG_STATE_HOME") or os.path.join(os.path.expanduser("~"), ".local", "state")
    return Path(base) / "rbmedia" / "session.json"


class SessionFile:
    """At most one login per daemon (by URL)."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def find(self, url: str) -> Session | None:
        return self._read().get(url)

    def last(self) -> Session | None:
        """The newest login: what a command means that names no daemon."""
        sessions = list(self._read().values())
        return sessions[-1] if sessions else None

    def save(self, session: Session) -> None:
        sessions = self._read()
        sessions.pop(session.url, None)
        sessions[session.url] = session
        self._write(sessions)

    def forget(self, url: str) -> None:
        sessions = self._read()
        if sessions.pop(url, None) is not None:
            self._write(sessions)

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Keep other calls from changing logins meanwhile."""
        self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor = os.open(
            self.path.with_name(self.path.name + ".lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600
        )
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)

    def _read(self) -> dict[str, Session]:
        with contextlib.suppress(FileNotFoundError, *UNDECODABLE):
            return msgspec.json.decode(self.path.read_bytes(), type=dict[str, Session])
        return {}

    def _write(self, sessions: dict[str, Session]) -> None:
        self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        temporary = self.path.with_name(f"{self.path.name}.{os.getpid()}.new")
        temporary.unlink(missing_ok=True)
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(msgspec.json.format(msgspec.json.encode(sessions), indent=2))
        temporary.replace(self.path)
