"""Log files for people (the event log is something else): as documented for the API service.

Two files, each rotated at midnight with 15 kept: ``rbmedia.log`` with everything, and ``access/rbmedia.access.log`` with incidents
of authorisation and every request (loggers under ``rbmedia.access``). The first also goes to the console. Format:
``2026-05-07 22:06:26,066 - [WARNING] - 'text'``. Passwords, tokens and keys are never logged: whoever holds one does not format it.
"""

from __future__ import annotations

import logging
import logging.handlers
import sys
from pathlib import Path

FORMAT = "%(asctime)s - [%(levelname)s] - '%(message)s'"
DEBUG_FORMAT = "%(asctime)s - [%(levelname)s] - %(name)s - '%(message)s'"
FILES_KEPT = 15
QUIET_LOGGERS = ("httpx", "httpcore", "h2", "hpack", "hypercorn.access", "quart.serving")


class _OneLine(logging.Formatter):
    """A message is one line, whatever a foreign name in it holds; only a traceback adds lines."""

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - logging's name
        if not record.message.isprintable():
            record.message = "".join(one if one.isprintable() else f"\\x{ord(one):02x}" for one in record.message)
        return super().formatMessage(record)


def configure_logging(folder: Path, *, debug: bool, console: bool = True) -> None:
    """Send the root logger to the files in ``folder`` and to stderr. Call once, at the start of a program."""
    formatter = _OneLine(DEBUG_FORMAT if debug else FORMAT)
    (folder / "access").mkdir(parents=True, exist_ok=True)
    handlers: list[logging.Handler] = [_daily(folder / "rbmedia.log")]
    if console:
        handlers.append(logging.StreamHandler(sys.stderr))
    access = _daily(folder / "access" / "rbmedia.access.log")
    for handler in (*handlers, access):
        handler.setFormatter(formatter)
    root = logging.getLogger()
    root.setLevel(logging.DEBUG if debug else logging.INFO)
    for old in list(root.handlers):
        root.removeHandler(old)
    for handler in handlers:
        root.addHandler(handler)
    requests = logging.getLogger("rbmedia.access")
    requests.addHandler(access)
    requests.propagate = False
    for name in QUIET_LOGGERS:
        logging.getLogger(name).setLevel(logging.WARNING)


def _daily(path: Path) -> logging.Handler:
    return logging.handlers.TimedRotatingFileHandler(
        path, when="midnight", backupCount=FILES_KEPT, encoding="utf-8", errors="backslashreplace"
    )
