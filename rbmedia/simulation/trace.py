"""The trace of a simulation: what happened, in order, on the virtual clock. Two runs of a seed have equal digests."""

from __future__ import annotations

from collections import deque

import trio
from blake3 import blake3


class Trace:
    """Every line goes into the digest; the newest ``kept`` lines are kept for people."""

    def __init__(self, kept: int = 2000) -> None:
        self._hasher = blake3()
        self._lines: deque[str] = deque(maxlen=kept)
        self._origin_seconds = trio.current_time()
        self.count = 0

    def note(self, who: str, what: str) -> None:
        line = f"{trio.current_time() - self._origin_seconds:12.6f} {who}: {what}"
        self._hasher.update(line.encode("utf-8", "surrogateescape") + b"\n")
        self._lines.append(line)
        self.count += 1

    def lines(self) -> list[str]:
        return list(self._lines)

    def digest(self) -> str:
        return self._hasher.hexdigest()
