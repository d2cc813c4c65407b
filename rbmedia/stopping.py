"""Running a program until it is told to stop: by a signal, by the end of whoever started it, or by force when it takes too long."""

from __future__ import annotations

import functools
import logging
import os
import signal
from collections.abc import Awaitable, Callable

import trio

from rbcore.errors import RbError
from rbmedia import companion
from rbmedia.exits import CommandFailed, Exit

log = logging.getLogger("rbmedia")

STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM)


def run_until_told(
    program: Callable[[trio.Event], Awaitable[None]], name: str, stop_seconds: float, *, until_stdin_closes: bool
) -> int:
    """Run ``program(stop)``; it ends in order when ``stop`` is set. The exit code.

    A stop that takes longer than ``stop_seconds`` is ended by force, as a crash would. Raises :class:`CommandFailed` with the sentence
    of an error that has one; programming errors pass through.
    """
    try:
        trio.run(functools.partial(_supervised, program, name, stop_seconds, until_stdin_closes=until_stdin_closes))
    except BaseExceptionGroup as group:
        known, unknown = group.split((CommandFailed, RbError, OSError))
        if unknown is not None or known is None:
            raise
        error = _first(known)
        log.critical("%s cannot start or go on: %s", name, error)
        if isinstance(error, CommandFailed | RbError):
            raise error from group
        raise CommandFailed(f"{name} cannot start or go on: {error}") from group
    log.info("%s has stopped", name)
    return Exit.OK


async def _supervised(
    program: Callable[[trio.Event], Awaitable[None]], name: str, stop_seconds: float, *, until_stdin_closes: bool
) -> None:
    stop = trio.Event()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_stop_on_signal, stop)
        if until_stdin_closes:
            nursery.start_soon(_stop_with_parent, stop)
        nursery.start_soon(_force, stop, name, stop_seconds)
        await program(stop)
        nursery.cancel_scope.cancel()


async def _stop_on_signal(stop: trio.Event) -> None:
    with trio.open_signal_receiver(*STOP_SIGNALS) as signals:
        async for number in signals:
            log.info("stopping on %s", signal.Signals(number).name)
            stop.set()


async def _stop_with_parent(stop: trio.Event) -> None:
    await companion.parent_gone()
    log.info("stopping: whoever started this program is gone")
    stop.set()


async def _force(stop: trio.Event, name: str, seconds: float) -> None:
    """An orderly stop has a bound. After it the process ends as in a crash, which everything here survives."""
    await stop.wait()
    await trio.sleep(seconds)
    log.critical("%s did not stop within %s seconds and is ended by force", name, seconds)
    logging.shutdown()
    os._exit(Exit.FAILED)


def _first(error: BaseException) -> BaseException:
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error
