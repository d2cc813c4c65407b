"""Many units of work side by side, their results in the order of the plan, and never more than a window of them in memory."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Generic, TypeAlias, TypeVar

import trio

U = TypeVar("U")
R = TypeVar("R")

Submit: TypeAlias = Callable[[U], Awaitable[None]]


class _Slot(Generic[U, R]):
    """A unit on its way. Holds no result before the unit is done and none after it was consumed."""

    __slots__ = ("done", "result", "unit")

    def __init__(self, unit: U) -> None:
        self.unit = unit
        self.done = trio.Event()
        self.result: list[R] = []


async def run_in_order(
    plan: Callable[[Submit[U]], Awaitable[None]],
    perform: Callable[[U], Awaitable[R]],
    consume: Callable[[R], Awaitable[None]],
    *,
    window: int,
) -> None:
    """``plan`` submits units; each is performed at once in a task of its own; ``consume`` gets the results in order.

    A submission waits while ``window`` units are neither consumed nor being consumed: that is the bound on memory. Whatever raises ends
    all of it (as an exception group).
    """
    send, receive = trio.open_memory_channel[_Slot[U, R]](window - 1)

    async def run(slot: _Slot[U, R]) -> None:
        slot.result.append(await perform(slot.unit))
        slot.done.set()

    async with trio.open_nursery() as nursery:

        async def submit(unit: U) -> None:
            slot: _Slot[U, R] = _Slot(unit)
            await send.send(slot)
            nursery.start_soon(run, slot)

        async def run_plan() -> None:
            async with send:
                await plan(submit)

        nursery.start_soon(run_plan)
        async for slot in receive:
            await slot.done.wait()
            await consume(slot.result.pop())
