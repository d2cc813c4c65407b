"""Children that never outlive whoever started them, and starting them.

The parent keeps the write end of a pipe that is the child's standard input. However the parent ends, ``kill -9`` included, the
kernel closes it; the child sees end of file and stops in order. Nothing polls, and no process id is trusted.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping, Sequence
from typing import IO

import trio

COMMAND = (sys.executable, "-m", "rbmedia")


def start(
    arguments: Sequence[str], *, output: IO[bytes] | int | None, environment: Mapping[str, str]
) -> subprocess.Popen[bytes]:
    """Start this command as a companion, in a session of its own so that a terminal's Ctrl-C reaches only the parent."""
    return subprocess.Popen(  # noqa: S603 - this very command
        [*COMMAND, *arguments],
        stdin=subprocess.PIPE,
        stdout=output,
        stderr=subprocess.STDOUT if output is not None else None,
        env=dict(environment),
        start_new_session=True,
    )


async def parent_gone() -> None:
    """Return when standard input ends: whoever started this process is gone."""
    async with trio.lowlevel.FdStream(_own_stdin()) as stream:
        while await stream.receive_some(4096):
            pass


def _own_stdin() -> int:
    import os

    return os.dup(sys.stdin.fileno())
