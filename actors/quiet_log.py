"""Log lines that a stranger can cause: bounded in rate, so that nobody fills a disk by sending rubbish."""

from __future__ import annotations

import logging

import trio

LINES_PER_WINDOW = 20
WINDOW_SECONDS = 10.0


class QuietLog:
    """Passes some lines of a window; the first line of the next window says how many were left out."""

    def __init__(self, log: logging.Logger) -> None:
        self._log = log
        self._window_start = -WINDOW_SECONDS
        self._lines = 0
        self.left_out = 0
        """In all."""
        self._left_out_now = 0

    def warning(self, text: str, *arguments: object) -> None:
        now = trio.current_time()
        if now - self._window_start >= WINDOW_SECONDS:
            self._window_start, self._lines = now, 0
            if self._left_out_now:
                self._log.warning("%d lines like these were left out", self._left_out_now)
                self._left_out_now = 0
        if self._lines >= LINES_PER_WINDOW:
            self.left_out += 1
            self._left_out_now += 1
            return
        self._lines += 1
        self._log.warning(text, *arguments)
