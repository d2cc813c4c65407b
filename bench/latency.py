"""How long a detail GET takes while a full backup runs, beside the same GET while nothing does.

``python -m bench.latency [--quick]``. One connection asks for one task again and again, a hundred times a second at the most; daemon and
agent are processes of their own on the same machine. The ratio of the two p99 says whether the daemon's loop is ever blocked.
"""

from __future__ import annotations

import argparse
import http.client
import json
import ssl
import statistics
import sys
import tempfile
import threading
import time
from pathlib import Path
from urllib.parse import urlsplit

from bench.backup import PASSWORD, Installation, installed
from bench.trees import large_files, small_files
from rbmedia.secrets import SUPERUSER

RATIO_MAX = 10.0
IDLE_REQUESTS = 1000
PAUSE_SECONDS = 0.01


class Asker:
    """A signed-in consumer with one connection."""

    def __init__(self, ours: Installation, path: str) -> None:
        address = urlsplit(ours.rest.url)
        context = ssl.create_default_context(cafile=str(ours.home.ca_certificate))
        assert address.hostname is not None, "an endpoint has a host"
        self._connection = http.client.HTTPSConnection(address.hostname, address.port, context=context, timeout=30)
        self._path = f"/api/v1{path}"
        self._headers = self._sign_in()

    def _sign_in(self) -> dict[str, str]:
        body = json.dumps({"rubackup_database": SUPERUSER, "rubackup_user": SUPERUSER, "password": PASSWORD})
        self._connection.request("POST", "/api/v1/auth/login", body, {"Content-Type": "application/json"})
        data = json.loads(self._connection.getresponse().read())["data"]
        return {"Authorization": f"Bearer {data['access_token']}", "X-CSRF-TOKEN": data["csrf_token"]}

    def ask(self) -> float:
        """Seconds of one GET."""
        began = time.perf_counter()
        self._connection.request("GET", self._path, headers=self._headers)
        answer = self._connection.getresponse()
        answer.read()
        if answer.status != 200:
            sys.exit(f"GET {self._path} answered {answer.status}")
        return time.perf_counter() - began


def p99(seconds: list[float]) -> float:
    return statistics.quantiles(seconds, n=100)[98]


def idle(asker: Asker) -> list[float]:
    found = []
    for _ in range(IDLE_REQUESTS):
        found.append(asker.ask())
        time.sleep(PAUSE_SECONDS)
    return found


def during_a_full_backup(asker: Asker, ours: Installation, tree: Path) -> list[float]:
    found: list[float] = []
    backup = threading.Thread(target=ours.backup, args=(tree, "full"))
    backup.start()
    while backup.is_alive():
        found.append(asker.ask())
        time.sleep(PAUSE_SECONDS)
    backup.join()
    return found


def main() -> int:
    parser = argparse.ArgumentParser(prog="bench.latency", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a tenth of the files")
    options = parser.parse_args()
    tenth = 10 if options.quick else 1
    good = True
    with tempfile.TemporaryDirectory(prefix="rbmedia-bench-") as name:
        trees = {"100,000 small files": Path(name) / "small", "1,000 files of 4 MiB": Path(name) / "large"}
        small_files(trees["100,000 small files"], 100_000 // tenth)
        large_files(trees["1,000 files of 4 MiB"], 1000 // tenth)
        with installed(Path(name)) as ours:
            ours.backup(trees["1,000 files of 4 MiB"], "full")
            asker = Asker(ours, "/task_queue/1")
            for what, tree in trees.items():
                quiet = p99(idle(asker))
                busy_seconds = during_a_full_backup(asker, ours, tree)
                busy = p99(busy_seconds)
                kept = busy / quiet <= RATIO_MAX
                good = good and kept
                print(
                    f"  {what}: p99 of a detail GET {busy * 1000:.1f} ms during a full backup ({len(busy_seconds)} requests), "
                    f"{quiet * 1000:.1f} ms idle, ratio {busy / quiet:.1f} (limit {RATIO_MAX:.0f}: {'kept' if kept else 'BROKEN'})",
                    flush=True,
                )
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
