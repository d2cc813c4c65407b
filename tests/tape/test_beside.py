"""Work beside a command: done once, while it waits, whatever becomes of it."""

from __future__ import annotations

import pytest
import trio
import trio.testing

from drivers.tape.beside import beside
from rbcore import errors


async def test_work_is_done_after_the_command_was_sent_and_before_it_ends() -> None:
    told: list[str] = []

    async def command() -> int:
        told.append("sent")
        await trio.testing.wait_all_tasks_blocked()
        told.append("ended")
        return 5

    assert await beside(command, lambda: told.append("worked")) == 5
    assert told == ["sent", "worked", "ended"]


async def test_an_error_comes_out_as_it_is_and_the_work_is_done() -> None:
    told: list[str] = []
    failure = errors.EndOfMedium("full")

    async def command() -> None:
        raise failure

    with pytest.raises(errors.EndOfMedium) as caught:
        await beside(command, lambda: told.append("worked"))
    assert caught.value is failure
    assert told == ["worked"]


async def test_a_cancelled_command_is_cancelled() -> None:
    with trio.move_on_after(0) as scope:
        await beside(trio.sleep_forever, lambda: None)
    assert scope.cancelled_caught
