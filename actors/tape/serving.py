"""Answering one message of a device's mailbox: an answer, an error with an address, or, whatever else ends the actor, that it has ended."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from actors.bus import Delivery
from rbcore.errors import RbError, Unavailable


async def serve(delivery: Delivery, answer: Callable[[Any], Awaitable[Any]], who: str) -> None:
    """Nobody who asked waits for an actor that was cancelled or has failed: the error goes on to its supervisor."""
    try:
        delivery.answer(await answer(delivery.message))
    except RbError as error:
        delivery.fail(error)
    except BaseException:
        delivery.fail(Unavailable(f"{who} has ended; it is started again."))
        raise
