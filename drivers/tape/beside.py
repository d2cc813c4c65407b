"""Work for the processor while a drive is busy."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TypeVar

import trio

from rbcore import errors

T = TypeVar("T")


async def beside(command: Callable[[], Awaitable[T]], work: Callable[[], None]) -> T:
    """The result of ``command``, with ``work`` done once it waits for the drive: a transport sends before it waits.

    An ``RbError`` of the command comes out as it is, after ``work`` has been done; ``work`` raises nothing.
    """
    result: list[T] = []
    failure: errors.RbError | None = None

    async def do() -> None:
        work()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(do)
        try:
            result.append(await command())
        except errors.RbError as error:
            failure = error
    if failure is not None:
        raise failure
    return result[0]
