"""The REST API over a long history, beside a constant answer of the same size from Hypercorn and Quart-Trio alone in the same run.

``scripts/bench rest [--tasks N] [--small N] [--rounds N] [--seconds S] [--folder DIR] [--workers N,N]``. A real daemon on a log of N tasks from queued to done, over TLS, one process; the
peer is ``bench.rest_peer``. Both take turns, round by round, under the same number of connections; ratios are of requests a second within a round (above 1: we are
faster), and of latencies where a limit is one of latency. What is asked for:

- pages of 50 tasks, sorted by every column that can be sorted by (both ways) with a filter that most rows pass, and filtered by every column's value of a row in the middle;
- details of tasks; durable creates over 64 connections;
- the same pages and details at a position in the middle of the history, beside now;
- the same again on a log of ``--small`` tasks: what growth costs.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import json
import random
import socket
import ssl
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Final
from urllib.parse import quote, urlsplit

import trio

from bench.backup import PASSWORD, Installation
from bench.measure import Verdicts, ratio_of_rounds
from bench.views import CLIENTS, POOLS, queued, step
from eventlog import StoreOptions, open_log
from eventlog.port import Batch
from eventlog.views.schema import SORTABLE, EntityTable
from rbcore.events import ClientAuthorised, Event, NewEvent, RecordCreated
from rbcore.resources import by_name
from rbmedia.secrets import SUPERUSER
from rbmedia.settings import Home

PAGE: Final = 50
READERS: Final = 8
WRITERS: Final = 64
BATCH_TASKS: Final = 1024
LIST_MIN, DETAIL_MIN, CREATE_MIN = 0.5, 0.6, 0.25
PAST_MAX, GROWTH_MAX = 2.0, 1.5
LATENCY_REQUESTS: Final = 60
START_SECONDS: Final = 900.0
"""A log of millions of events is read, and its views are made anew."""
API: Final = "/api/v1"


# --- a history --------------------------------------------------------------------------------------------------------


def lengthen(home: Home, tasks: int) -> None:
    """Append a history of ``tasks`` tasks to the log of a daemon that is not running."""
    trio.run(_lengthen, home, tasks)


async def _lengthen(home: Home, tasks: int) -> None:
    now_ns = time.time_ns()
    numbers = itertools.count()

    def batch(events: list[NewEvent]) -> Batch:
        number = next(numbers)
        return Batch(
            events=events,
            expected={},
            command_id=f"history-{number}",
            actor="actor:bench",
            causation=0,
            correlation="history",
            time_ns=now_ns + number * 1_000_000,
            answer=b"",
        )

    async with open_log(home.log, secrets=home.secrets, options=StoreOptions(map_bytes=64 << 30)) as log:
        await log.submit(batch([NewEvent(stream, event) for stream, event in _surroundings()])).durable()
        for first in range(1, tasks + 1, BATCH_TASKS):
            group = range(first, min(first + BATCH_TASKS, tasks + 1))
            events = [
                NewEvent(f"task/{number}", event)
                for number in group
                for event in (queued(number), step(number, "New", "Assigned"), step(number, "Assigned", "Done"))
            ]
            await log.submit(batch(events)).durable()


def _surroundings() -> Iterator[tuple[str, Event]]:
    for pool in range(2, POOLS + 1):
        yield (
            f"pool/{pool}",
            RecordCreated({"pool_name": f"pool {pool}", "pool_type": "File system", "media_server": 1}),
        )
    for client in range(1, CLIENTS + 1):
        hwid = f"{client * 7919:016x}"
        yield (
            f"client/{client}",
            ClientAuthorised(client, hwid, f"host{client}", hwid * 4, "192.0.2.1", "Linux", "12", "1"),
        )


# --- asking -----------------------------------------------------------------------------------------------------------


class Connection:
    """One kept alive. As little work as can be: the machine is shared with what is measured."""

    def __init__(self, url: str, context: ssl.SSLContext) -> None:
        address = urlsplit(url)
        assert address.hostname is not None, "an endpoint has a host"
        plain = socket.create_connection((address.hostname, address.port), timeout=60)
        plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._socket = context.wrap_socket(plain, server_hostname=address.hostname)

    def ask(self, request: bytes) -> bytes:
        """The body of an answer of success."""
        self._socket.sendall(request)
        answer = b""
        while (end := answer.find(b"\r\n\r\n")) < 0:
            answer += self._received()
        head = answer[:end].lower()
        length = int(head.split(b"content-length:", 1)[1].split(b"\r\n", 1)[0])
        body = [answer[end + 4 :]]
        missing = length - len(body[0])
        while missing > 0:
            body.append(self._received())
            missing -= len(body[-1])
        if head[9:11] != b"20":
            sys.exit(f"{request.split(b' HTTP', 1)[0].decode()}: {b''.join(body).decode()[:500]}")
        return b"".join(body)

    def _received(self) -> bytes:
        got = self._socket.recv(256 * 1024)
        if not got:
            sys.exit("the server closed the connection")
        return got

    def close(self) -> None:
        self._socket.close()


@dataclass(slots=True)
class Server:
    """One of the two that are compared."""

    url: str
    context: ssl.SSLContext
    headers: str = ""

    def get(self, path: str) -> bytes:
        return f"GET {path} HTTP/1.1\r\nHost: localhost\r\n{self.headers}\r\n".encode()

    def post(self, path: str, body: bytes) -> bytes:
        head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n{self.headers}\r\n"
        return head.encode() + body

    def once(self, request: bytes) -> bytes:
        with contextlib.closing(Connection(self.url, self.context)) as connection:
            return connection.ask(request)

    def sign_in(self) -> None:
        body = {"rubackup_database": SUPERUSER, "rubackup_user": SUPERUSER, "password": PASSWORD}
        answer = json.loads(self.once(self.post(f"{API}/auth/login", json.dumps(body).encode())))["data"]
        self.headers = f"Authorization: Bearer {answer['access_token']}\r\nX-CSRF-TOKEN: {answer['csrf_token']}\r\n"

    def rate(
        self, requests: Callable[[], bytes], connections: int, seconds: float, opened: list[Connection] | None = None
    ) -> float:
        """Requests a second over so many connections, new ones if none are given; they are closed."""
        counts = [0] * connections
        opened = opened or [Connection(self.url, self.context) for _ in range(connections)]
        ready = threading.Barrier(connections + 1)

        def ask(number: int) -> None:
            connection = opened[number]
            ready.wait()
            until = time.perf_counter() + seconds
            while time.perf_counter() < until:
                connection.ask(requests())
                counts[number] += 1

        threads = [threading.Thread(target=ask, args=(number,)) for number in range(connections)]
        for one in threads:
            one.start()
        ready.wait()
        started = time.perf_counter()
        for one in threads:
            one.join()
        took = time.perf_counter() - started
        for connection in opened:
            connection.close()
        return sum(counts) / took


def latencies(server: Server, requests: list[list[bytes]], times: int) -> list[list[float]]:
    """Seconds of each kind of request, one connection; the kinds take turns, so that what disturbs one disturbs all."""
    found: list[list[float]] = [[] for _ in requests]
    with contextlib.closing(Connection(server.url, server.context)) as connection:
        for kind in requests:
            connection.ask(kind[0])
        for turn in range(times):
            for kind, seconds in zip(requests, found, strict=True):
                started = time.perf_counter()
                connection.ask(kind[turn % len(kind)])
                seconds.append(time.perf_counter() - started)
    return found


def p99(seconds: list[float]) -> float:
    return statistics.quantiles(seconds, n=100)[98]


# --- what is asked for ------------------------------------------------------------------------------------------------


def sortable_columns() -> list[str]:
    table = EntityTable(by_name["task_queue"])
    return ["id", *(one.name for one in table.columns.values() if one.kind in SORTABLE and one.in_list)]


def page(**query: Any) -> str:
    return f"{API}/task_queue?limit={PAGE}" + "".join(f"&{name}={quote(str(value))}" for name, value in query.items())


def pages(server: Server, tasks: int) -> dict[str, str]:
    """Name -> path: sorted both ways by every column with a filter that most rows pass; filtered by every column."""
    middle = json.loads(server.once(server.get(f"{API}/task_queue/{tasks // 2}")))["data"]
    found = {}
    for column in sortable_columns():
        for order in ("asc", "desc"):
            found[f"sorted by {column} {order}"] = page(
                filter_data='status="Done",priority>"99"', sort_by=column, sort_order=order
            )
        value = middle[column]
        shown = str(value).lower() if isinstance(value, bool) else "" if value is None else value
        found[f"filtered by {column}"] = page(filter_data=f'{column}="{shown}"')
    return found


# --- the comparison ---------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def peer(home: Home, context: ssl.SSLContext) -> Iterator[Server]:
    certificate, key = home.pki / "server.pem", home.pki / "server.key"
    process = subprocess.Popen(
        [sys.executable, "-m", "bench.rest_peer", str(certificate), str(key), str(home.path / "peer")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    try:
        output: IO[bytes] | None = process.stdout
        assert output is not None, "a pipe was asked for"
        url = output.readline().decode().strip()
        assert url, "the peer started"
        yield Server(url, context)
    finally:
        assert process.stdin is not None, "a pipe was asked for"
        process.stdin.close()
        process.wait(30)


@contextlib.contextmanager
def daemon(
    folder: Path, tasks: int, environment: Mapping[str, str] | None = None
) -> Iterator[tuple[Installation, Server]]:
    """On a log of so many tasks; nothing of it goes with time."""
    started = time.perf_counter()
    if not folder.exists():
        folder.mkdir(parents=True)
        first = Installation(folder)
        periods = ("done", "error", "broken", "killed")
        first.rest.call(
            "PATCH", "/global_configuration", body={"data": {f"{one}_tasks_remove_period": 0 for one in periods}}
        )
        first.close()
        started = time.perf_counter()
        lengthen(first.home, tasks)
    appended = time.perf_counter()
    again = Installation(folder, environment, start_seconds=START_SECONDS)
    try:
        ready = time.perf_counter()
        print(
            f"  {tasks:,} tasks: {3 * tasks:,} events written in {appended - started:.0f} s, read and folded into views in {ready - appended:.0f} s",
            flush=True,
        )
        server = Server(again.rest.url, ssl.create_default_context(cafile=str(again.home.ca_certificate)))
        server.sign_in()
        yield again, server
    finally:
        again.close()


class Comparison:
    def __init__(self, ours: Server, theirs: Server, rounds: int, seconds: float) -> None:
        self._ours, self._theirs, self._rounds, self._seconds = ours, theirs, rounds, seconds

    def ratio(self, requests: Callable[[], bytes], size: int, connections: int, *, post: bytes = b"") -> float:
        """Of rates, the median of the rounds."""
        path = f"/bytes/{size}"
        constant = self._theirs.post(path, post) if post else self._theirs.get(path)
        ours, theirs = [], []
        for _ in range(self._rounds):
            theirs.append(self._theirs.rate(lambda: constant, connections, self._seconds))
            ours.append(self._ours.rate(requests, connections, self._seconds))
        self.last = statistics.median(ours), statistics.median(theirs)
        return ratio_of_rounds(ours, theirs)


def compare_lists(comparison: Comparison, ours: Server, tasks: int, verdicts: Verdicts) -> None:
    ratios = {}
    for name, path in pages(ours, tasks).items():
        request = ours.get(path)
        size = len(ours.once(request))
        ratios[name] = comparison.ratio(lambda request=request: request, size, READERS)  # type: ignore[misc]
        ours_rate, peer_rate = comparison.last
        print(f"    {name:<40} {ratios[name]:5.2f}   {ours_rate:7,.0f}/s of {peer_rate:7,.0f}/s", flush=True)
    worst = min(ratios, key=ratios.__getitem__)
    print(f"  lists: median {statistics.median(ratios.values()):.2f}", flush=True)
    verdicts.ratio(f"page of {PAGE} of {tasks:,} tasks, the slowest: {worst}", ratios[worst], LIST_MIN)


def compare_details(comparison: Comparison, ours: Server, tasks: int, verdicts: Verdicts) -> None:
    drawn = random.Random(1)
    size = len(ours.once(ours.get(f"{API}/task_queue/{tasks // 2}")))
    ratio = comparison.ratio(lambda: ours.get(f"{API}/task_queue/{drawn.randint(1, tasks)}"), size, READERS)
    verdicts.ratio("detail GET ({:,.0f}/s of {:,.0f}/s)".format(*comparison.last), ratio, DETAIL_MIN)


def compare_creates(comparison: Comparison, ours: Server, verdicts: Verdicts) -> None:
    numbers = itertools.count()

    def create() -> bytes:
        body = {"data": {"groupname": f"group {time.time_ns()} {next(numbers)}", "description": "of the benchmark"}}
        return ours.post(f"{API}/user_groups", json.dumps(body).encode())

    size = len(ours.once(create()))
    ratio = comparison.ratio(create, size, WRITERS, post=create().partition(b"\r\n\r\n")[2])
    what = "durable create, {} connections ({:,.0f}/s of {:,.0f}/s)".format(WRITERS, *comparison.last)
    verdicts.ratio(what, ratio, CREATE_MIN)


def compare_past(ours: Server, tasks: int, verdicts: Verdicts) -> None:
    """Medians at one connection, now and in the middle of the history taking turns."""
    head = int(json.loads(ours.once(ours.get(f"{API}/server_state")))["data"]["log"]["position"])
    asked = {**pages(ours, tasks), "a detail": f"{API}/task_queue/{tasks // 4}"}
    names = list(asked)
    requests = []
    for path in asked.values():
        separator = "&" if "?" in path else "?"
        requests += [[ours.get(path)], [ours.get(f"{path}{separator}at={head // 2}")]]
    found = [statistics.median(one) for one in latencies(ours, requests, LATENCY_REQUESTS)]
    ratios = {name: found[2 * at + 1] / found[2 * at] for at, name in enumerate(names)}
    for name in sorted(ratios, key=ratios.__getitem__)[-8:]:
        at = names.index(name)
        print(f"    {name:<40} now {found[2 * at] * 1e3:7.2f} ms, then {found[2 * at + 1] * 1e3:7.2f} ms", flush=True)
    worst = max(ratios, key=ratios.__getitem__)
    print(f"  the past: median {statistics.median(ratios.values()):.2f} times now", flush=True)
    verdicts.ratio(
        f"now beside the past (1 / {ratios[worst]:.2f}), the slowest: {worst}", 1 / ratios[worst], 1 / PAST_MAX
    )


def latencies_of_pages(ours: Server, tasks: int) -> dict[str, list[float]]:
    asked = {**pages(ours, tasks), "a detail": f"{API}/task_queue/{tasks // 4}"}
    found = latencies(ours, [[ours.get(path)] for path in asked.values()], LATENCY_REQUESTS * 2)
    return dict(zip(asked, found, strict=True))


def compare_growth(small: dict[str, list[float]], large: dict[str, list[float]], verdicts: Verdicts) -> None:
    """p99 of everything that is asked for, and of each."""
    whole = p99([one for several in large.values() for one in several]) / p99(
        [one for several in small.values() for one in several]
    )
    medians = {name: statistics.median(large[name]) / statistics.median(small[name]) for name in large}
    worst = max(medians, key=medians.__getitem__)
    print(f"  growth: the median that grew most is that of {worst}: {medians[worst]:.2f} times", flush=True)
    verdicts.ratio(f"p99 of the small log beside the large one (1 / {whole:.2f})", 1 / whole, 1 / GROWTH_MAX)


def _workers(options: argparse.Namespace) -> int:
    from bench.rest_workers import compare_workers  # it is made of what stands here

    counts = [int(one) for one in options.workers.split(",")]
    with contextlib.ExitStack() as stack:
        name = options.folder or stack.enter_context(tempfile.TemporaryDirectory(prefix="rbmedia-bench-"))
        compare_workers(Path(name), counts, options.tasks, options.connections, options.rounds, options.seconds)
    return 0


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="bench.rest", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--tasks", type=int, default=1_000_000)
    parser.add_argument("--small", type=int, default=10_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=0.7)
    parser.add_argument("--folder", type=Path, help="where logs and views lie; they stay there, for the next time")
    parser.add_argument(
        "--workers",
        help="numbers of HTTP workers, such as 0,1,2: only what they bring is measured (bench.rest_workers)",
    )
    parser.add_argument("--connections", type=int, default=READERS, help="with --workers")
    options = parser.parse_args()
    if options.workers:
        return _workers(options)
    verdicts = Verdicts()
    with contextlib.ExitStack() as stack:
        name = options.folder or stack.enter_context(tempfile.TemporaryDirectory(prefix="rbmedia-bench-"))
        with daemon(Path(name) / "small", options.small) as (_, ours):
            small = latencies_of_pages(ours, options.small)
        with daemon(Path(name) / "large", options.tasks) as (installation, ours):
            large = latencies_of_pages(ours, options.tasks)
            compare_growth(small, large, verdicts)
            compare_past(ours, options.tasks, verdicts)
            with peer(installation.home, ours.context) as theirs:
                comparison = Comparison(ours, theirs, options.rounds, options.seconds)
                compare_details(comparison, ours, options.tasks, verdicts)
                compare_creates(comparison, ours, verdicts)
                compare_lists(comparison, ours, options.tasks, verdicts)
    return verdicts.end()


if __name__ == "__main__":
    sys.exit(main())
