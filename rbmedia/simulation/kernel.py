"""The kernel of a simulation: one trio run whose every scheduling choice follows from a seed.

trio shuffles the tasks that are ready in the same tick, so that nobody comes to lean on their order. A simulation wants that
shuffle, because it finds races, and wants it again, because a race that cannot be repeated cannot be mended. trio has a
switch for it (made for Hypothesis): with it set, the ready tasks are sorted before the shuffle, and the shuffle's generator
can be seeded. Virtual time (``MockClock``) jumps to the next deadline when everybody waits.

No thread may run inside: the ports run work in place. What would make two runs differ is caught by comparing traces.
"""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

import trio
import trio.testing

T = TypeVar("T")


@contextmanager
def seeded_scheduler(seed: int) -> Iterator[None]:
    """Make trio runs within the block repeat exactly. The former state comes back afterwards."""
    run = trio._core._run
    shuffle: random.Random = run._r
    allowed_before = run._ALLOW_DETERMINISTIC_SCHEDULING
    state_before = shuffle.getstate()
    run._ALLOW_DETERMINISTIC_SCHEDULING = True  # type: ignore[misc]
    shuffle.seed(seed)
    try:
        yield
    finally:
        run._ALLOW_DETERMINISTIC_SCHEDULING = allowed_before  # type: ignore[misc]
        shuffle.setstate(state_before)


def run_seeded(seed: int, main: Callable[[], Awaitable[T]]) -> T:
    """Run ``main`` under virtual time with the scheduling of ``seed``."""
    with seeded_scheduler(seed):
        return trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0.0))
