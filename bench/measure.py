"""What the benchmarks share: rates measured in turns, and lines that say whether a ratio holds."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path


class Verdicts:
    """Prints ratios beside what they must be, and remembers whether all of them were."""

    def __init__(self) -> None:
        self.missed: list[str] = []

    def ratio(self, what: str, value: float, at_least: float | None) -> None:
        """``at_least`` None: for the reader, nothing is asked of it."""
        if at_least is None:
            print(f"  {what:<66} {value:6.2f}", flush=True)
            return
        held = value >= at_least
        if not held:
            self.missed.append(what)
        print(f"  {what:<66} {value:6.2f}  (at least {at_least:g}){'' if held else '  MISSED'}", flush=True)

    def end(self) -> int:
        """Exit code: 0 when everything held."""
        print("every ratio holds" if not self.missed else f"missed: {'; '.join(self.missed)}")
        return 1 if self.missed else 0


def rate_line(what: str, rates: Sequence[float], unit: str = "/s") -> None:
    """A rate over several rounds: the median, and the quarter below and above it."""
    low, middle, high = statistics.quantiles(rates, n=4) if len(rates) > 1 else (rates[0],) * 3
    print(f"  {what:<66} {middle:12,.0f} {unit}  ({low:,.0f} to {high:,.0f})", flush=True)


def ratio_of_rounds(ours: Sequence[float], theirs: Sequence[float]) -> float:
    """Median over rounds of the ratio within a round: disks and neighbours change between rounds, not within one."""
    return statistics.median(one / other for one, other in zip(ours, theirs, strict=True))


def seconds_of(work: Callable[[], object]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def anonymous_mebibytes() -> float:
    """Memory of this process that is not a mapped file (the log itself is mapped, and the kernel may drop its pages)."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("RssAnon:"):
            return int(line.split()[1]) / 1024
    raise AssertionError("Linux says how much anonymous memory a process has")
