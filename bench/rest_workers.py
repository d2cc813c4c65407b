"""What HTTP workers bring: the same requests to daemons without, with one and with two of them, taking turns in the same run.

``scripts/bench rest --workers 0,1,2 [--tasks N] [--rounds N] [--seconds S] [--connections N] [--folder DIR]``. Each daemon has a log of its own, of the same history. Rates are of one client
program with a thread per connection, which needs a processor too: how much of one is printed, and so are the processor seconds that daemon and workers take for a request, because those say
what a machine with more processors gets.
"""

from __future__ import annotations

import contextlib
import os
import random
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from bench.measure import ratio_of_rounds
from bench.rest import API, PAGE, Connection, Server, daemon, page
from rbmedia.settings import Home

TICKS: Final = os.sysconf("SC_CLK_TCK")
WORKERS_SECONDS: Final = 60.0
"""How long workers may take to serve."""
LINE_SECONDS: Final = 0.02
"""Until the access line of a request that was answered is surely written."""


def processor_seconds(process: int) -> float:
    """User and system time of a process so far."""
    fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


def workers_of(process: int) -> list[int]:
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            parent = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
            if parent == process and b"http-worker" in (folder / "cmdline").read_bytes():
                found.append(int(folder.name))
    return found


@dataclass(slots=True)
class Figures:
    """Of one kind of request to one daemon, a value per round."""

    rates: list[float] = field(default_factory=list)
    """Requests a second."""
    daemon: list[float] = field(default_factory=list)
    """Processor seconds of the daemon per request, whoever it was answered by."""
    workers: list[float] = field(default_factory=list)
    """Of all its workers together."""
    client: list[float] = field(default_factory=list)
    own: list[float] = field(default_factory=list)
    """Share of the requests that the daemon answered itself."""

    def add(self, rate: float, daemon: float, workers: float, client: float, own: float) -> None:
        self.rates.append(rate)
        self.daemon.append(daemon)
        self.workers.append(workers)
        self.client.append(client)
        self.own.append(own)


class Measured:
    """A daemon with so many workers."""

    def __init__(self, workers: int, server: Server, home: Home, process: int) -> None:
        self.workers, self.server, self._process = workers, server, process
        self._lines = home.messages / "access" / "rbmedia.access.log"
        self._workers_lines = [
            home.messages / f"http-worker-{number}" / "access" / "rbmedia.access.log"
            for number in range(1, workers + 1)
        ]
        self.figures: dict[str, Figures] = {}
        self._wait()

    def _wait(self) -> None:
        """Until every worker answers."""
        deadline = time.monotonic() + WORKERS_SECONDS
        before = [_size(one) for one in self._workers_lines]
        while time.monotonic() < deadline:
            self.server.rate(lambda: self.server.get(f"{API}/server_hello"), 2 * self.workers + 2, 0.1)
            if all(_size(one) > then for one, then in zip(self._workers_lines, before, strict=True)):
                return
        raise SystemExit(f"not all of {self.workers} HTTP workers answered within {WORKERS_SECONDS:g} s")

    def round(self, kind: str, requests: Callable[[], bytes], connections: int, seconds: float) -> None:
        self._round(
            kind, requests, [Connection(self.server.url, self.server.context) for _ in range(connections)], seconds
        )
        if self.workers:
            at_workers, others = self._at_workers(requests(), connections)
            self._round(f"{kind}, all at workers", requests, at_workers, seconds)
            for one in others:
                one.close()

    def _round(self, kind: str, requests: Callable[[], bytes], opened: list[Connection], seconds: float) -> None:
        processes = workers_of(self._process)
        begun = processor_seconds(self._process), sum(map(processor_seconds, processes)), time.process_time()
        read = _size(self._lines)
        rate = self.server.rate(requests, len(opened), seconds, opened)
        ended = processor_seconds(self._process), sum(map(processor_seconds, processes)), time.process_time()
        count = rate * seconds
        daemon_s, workers_s, client_s = ((after - before) / count for before, after in zip(begun, ended, strict=True))
        with self._lines.open("rb") as lines:
            lines.seek(read)
            own = lines.read().count(b"GET ") / count
        self.figures.setdefault(kind, Figures()).add(rate, daemon_s, workers_s, client_s, own)

    def _at_workers(self, request: bytes, count: int) -> tuple[list[Connection], list[Connection]]:
        """So many connections that workers have, and those that the daemon kept meanwhile."""
        found: list[Connection] = []
        kept: list[Connection] = []
        while len(found) < count:
            one = Connection(self.server.url, self.server.context)
            before = _size(self._lines)
            one.ask(request)
            time.sleep(LINE_SECONDS)
            (kept if _size(self._lines) > before else found).append(one)
        return found, kept


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def compare_workers(
    folder: Path, counts: Sequence[int], tasks: int, connections: int, rounds: int, seconds: float
) -> None:
    drawn = random.Random(1)
    with contextlib.ExitStack() as stack:
        measured = []
        for count in counts:
            environment = {"RBMEDIA_HTTP_WORKERS": str(count)}
            installation, server = stack.enter_context(daemon(folder / f"workers-{count}", tasks, environment))
            measured.append(Measured(count, server, installation.home, installation.processes["daemon"]))
        for _ in range(rounds):
            for one in measured:
                server = one.server
                listed = server.get(page(sort_by="id", sort_order="desc"))
                one.round(f"page of {PAGE}", lambda listed=listed: listed, connections, seconds)  # type: ignore[misc]
                one.round(
                    "detail",
                    lambda server=server: server.get(f"{API}/task_queue/{drawn.randint(1, tasks)}"),  # type: ignore[misc]
                    connections,
                    seconds,
                )
        _print(measured)


def _print(measured: Sequence[Measured]) -> None:
    first = measured[0]
    for one in measured:
        for kind, found in one.figures.items():
            base = first.figures[kind.partition(",")[0]]
            rate, ratio = statistics.median(found.rates), ratio_of_rounds(found.rates, base.rates)
            times = [1e6 * statistics.median(values) for values in (found.daemon, found.workers, found.client)]
            print(
                f"  {one.workers} workers, {kind:<30} {rate:7,.0f}/s, {ratio:.2f} times {first.workers}; us of a processor per request: daemon {times[0]:.0f}, workers {times[1]:.0f},"
                f" client {times[2]:.0f}; answered by the daemon: {100 * statistics.median(found.own):.0f} %",
                flush=True,
            )
