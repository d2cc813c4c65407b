"""Keeping HTTP workers: child processes that serve connections which the daemon hands them, started again whenever they end.

A worker inherits one end of each of two pairs of sockets and nothing else: one brings it connections, over the other it asks the daemon. Their end is the daemon's end.
"""

from __future__ import annotations

import logging
import os
import socket
import subprocess
from dataclasses import dataclass

import trio

from httpapi.channel import Hello
from httpapi.front import Front
from httpapi.handover import Handover, Place
from httpapi.workers import serve_worker
from rbmedia import companion
from rbmedia.settings import SETTING_NAMES, Home, declared

log = logging.getLogger("rbmedia")

RESTART_SECONDS = 2.0
STOP_SECONDS = 8.0
"""More than the requests in progress of a server may take (``Listen.graceful_seconds``); then it is ended by force."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HttpWorkers:
    """``run`` starts them and keeps them until told to stop, and returns when all have ended."""

    count: int
    home: Home
    front: Front
    handover: Handover
    hello: Hello
    debug: bool = False

    async def run(self, stop: trio.Event) -> None:
        async with trio.open_nursery() as nursery:
            for number in range(1, self.count + 1):
                nursery.start_soon(self._keep, number, stop)

    async def _keep(self, number: int, stop: trio.Event) -> None:
        while not stop.is_set():
            code, reason = await self._once(number, stop)
            if stop.is_set():
                return
            log.warning("HTTP worker %d ended with code %d%s; it is started again", number, code, reason)
            with trio.move_on_after(RESTART_SECONDS):
                await stop.wait()

    async def _once(self, number: int, stop: trio.Event) -> tuple[int, str]:
        """One process from start to end: its exit code, and why the daemon let it go."""
        ours, theirs = socket.socketpair()
        place, handed = socket.socketpair(type=socket.SOCK_SEQPACKET)
        with ours, place:
            with theirs, handed:
                process = await self._start(number, handed, theirs)
            try:
                reason = await self._serve(process, ours, Place(place), stop)
            finally:
                place.close()
                ours.close()  # the end of a worker that does not know it yet
                await _ended(process)
        return process.returncode or 0, f" ({reason})" if reason else ""

    async def _serve(self, process: trio.Process, channel: socket.socket, place: Place, stop: trio.Event) -> str:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_terminate_on, stop, process)
            reason = await serve_worker(self.front, channel, self.hello, place, self.handover)
            nursery.cancel_scope.cancel()
        return reason

    async def _start(self, number: int, handed: socket.socket, channel: socket.socket) -> trio.Process:
        options = ["--home", str(self.home.path), "--number", str(number)]
        sockets = ["--handed", str(handed.fileno()), "--channel", str(channel.fileno())]
        return await trio.lowlevel.open_process(
            [*companion.COMMAND, "http-worker", *options, *sockets, *(["--debug"] if self.debug else [])],
            stdin=subprocess.DEVNULL,
            env=_environment(),
            pass_fds=(handed.fileno(), channel.fileno()),
            start_new_session=True,
        )


def _environment() -> dict[str, str]:
    """Without settings, of which some are secret: a worker is told what it needs."""
    settings = {declared(name).environment for name in SETTING_NAMES}
    return {name: value for name, value in os.environ.items() if name not in settings}


async def _terminate_on(stop: trio.Event, process: trio.Process) -> None:
    await stop.wait()
    process.terminate()


async def _ended(process: trio.Process) -> None:
    with trio.move_on_after(STOP_SECONDS, shield=True):
        await process.wait()
        return
    process.kill()
    with trio.CancelScope(shield=True):
        await process.wait()
