"""Receiving a request body within bounds, so that a refusal reaches its sender.

A server that answers before the body has arrived and then closes makes the kernel reset the connection, and most clients see the
reset instead of the answer. So a body over the limit is swallowed, up to a second limit and for a bounded time, before the
refusal goes out. Nothing over the first limit is kept in memory.
"""

from __future__ import annotations

from collections.abc import Generator
from typing import Any

import trio
from quart_trio.wrappers.request import TrioBody, TrioRequest
from werkzeug.exceptions import RequestEntityTooLarge

SWALLOWED_BYTES_MAX = 16 * 1024 * 1024
"""Of a body that is refused; a larger one meets a closed connection."""
SWALLOW_SECONDS = 5.0


class BoundedBody(TrioBody):
    """Quart's body, but it is complete when all of it arrived, also when it is too large."""

    def __init__(self, expected_content_length: int | None, max_content_length: int | None) -> None:
        super().__init__(expected_content_length, max_content_length)
        self._received = 0
        if expected_content_length is not None and expected_content_length > SWALLOWED_BYTES_MAX:
            self.set_complete()

    def append(self, data: bytes) -> None:
        self._received += len(data)
        if self._max_content_length is not None and self._received > self._max_content_length:
            self._must_raise = RequestEntityTooLarge()
            self._data.clear()
        if self._received > SWALLOWED_BYTES_MAX:
            self.set_complete()
        if self._must_raise is None:
            self._data.extend(data)

    def __await__(self) -> Generator[Any, None, bytes]:
        yield from self._complete.wait().__await__()
        if self._must_raise is not None:
            raise self._must_raise
        return bytes(self._data)

    async def swallow(self) -> None:
        """Return when all of it arrived, or the patience is over."""
        if not self._complete.is_set():
            with trio.move_on_after(SWALLOW_SECONDS):
                await self._complete.wait()


class BoundedRequest(TrioRequest):
    body_class = BoundedBody
    body: BoundedBody
