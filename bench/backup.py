"""The whole job from agent to daemon over TLS on loopback, beside restic and ``cp -a`` on the same files in the same run.

``python -m bench.backup [--quick] [--runs N] [--folder DIR] {small,large}``. Daemon and agent are processes of their own, a job is queued over
REST and its time is from the request until the task is seen as Done. Compression ``fast``, AES-256-GCM; restic with its defaults. Steps of
ours and of the peers take turns, dirty pages are written before each; a ratio is our time divided by the peer's, the median of the runs.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from bench.trees import large_files, small_files
from rbmedia import companion
from rbmedia.cli.work import task_id_of
from rbmedia.client import RestClient
from rbmedia.endpoint import Endpoint, read_endpoint
from rbmedia.settings import Home

PASSWORD = "only for this benchmark"
START_SECONDS = 60.0
POLL_SECONDS = 0.02
LIMITS: Mapping[str, Mapping[str, float]] = {
    "small": {"full": 1.0, "again": 0.5, "restore": 1.2},
    "large": {"full": 0.6, "restore": 1.0, "verify": 0.8},
}
"""Our time divided by restic's, at most (our own target)."""
MEMORY_MIB_MAX = 500


class Installation:
    """A daemon and an agent of this program, on ports of their own."""

    def __init__(
        self,
        folder: Path,
        environment: Mapping[str, str] | None = None,
        *,
        poll_seconds: float = POLL_SECONDS,
        start_seconds: float = START_SECONDS,
    ) -> None:
        self._poll_seconds = poll_seconds
        self.home = Home(folder / "home")
        self.home.make()
        self._folder = folder
        self._processes: list[subprocess.Popen[bytes]] = []
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("RBMEDIA_", "APP_"))}
        self._environment = {
            **kept,
            "RBMEDIA_HOME": str(self.home.path),
            "RBMEDIA_SUPERUSER_PASSWORD": PASSWORD,
            "RBMEDIA_IMMUTABLE_FILES": "no",
            **(environment or {}),
        }
        ports = ["--port", "0", "--control-port", "0", "--data-port", "0"]
        daemon = self._start("daemon", ["serve", *ports])
        endpoint = _until(lambda: self._endpoint(daemon), "the daemon does not answer", start_seconds)
        self._start("agent", ["agent", "--data", str(self.home.agent)])
        self.rest = RestClient(endpoint.url, self.home.ca_certificate, password_of=lambda: ("rubackup", PASSWORD))
        self.client: str = _until(self._authorised, "the agent is not connected")

    def _start(self, name: str, arguments: list[str]) -> subprocess.Popen[bytes]:
        with open(self._folder / f"{name}.console", "wb") as output:
            process = companion.start(
                [*arguments, "--until-stdin-closes"], output=output, environment=self._environment
            )
        self._processes.append(process)
        return process

    def _endpoint(self, daemon: subprocess.Popen[bytes]) -> Endpoint | None:
        if daemon.poll() is not None:
            sys.exit(f"the daemon ended:\n{(self._folder / 'daemon.console').read_text(errors='replace')}")
        endpoint = read_endpoint(self.home.daemon_file)
        return endpoint if endpoint is not None and endpoint.process == daemon.pid else None

    def _authorised(self) -> str:
        waiting = [row["id"] for row in self.rest.rows("/unauthorised_clients")]
        if waiting:
            self.rest.post("/clients/authorize", {"clients_ids": waiting})
        online = [row["client"] for row in self.rest.rows("/clients") if row["online"]]
        return str(online[0]) if online else ""

    @property
    def processes(self) -> dict[str, int]:
        """Name -> process id."""
        return {name: process.pid for name, process in zip(("daemon", "agent"), self._processes, strict=True)}

    def peak_mib(self) -> int:
        """Peak resident memory of both processes together."""
        return sum(_peak_kib(process.pid) for process in self._processes) // 1024

    def close(self) -> None:
        self.rest.close()
        for process in reversed(self._processes):
            process.terminate()
        for process in self._processes:
            try:
                process.wait(30)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()

    # --- jobs ---------------------------------------------------------------------------------------------------------

    def backup(self, tree: Path, backup_type: str, *, pool: str = "Default", crypto: str = "AES-256-GCM") -> int:
        """Id of the backup."""
        task = self._ended(
            self.rest.post(
                "/task_queue",
                {
                    "task": {
                        "resource_type": "File system",
                        "resource": str(tree),
                        "client": self.client,
                        "backup_type": backup_type,
                        "pool": pool,
                        "crypto": crypto,
                        "priority": 100,
                        "storage_duration": "1 year",
                        "archiving": False,
                    }
                },
            )
        )
        return int(self.rest.get("/repository", filter_data=f'task_id="{task["id"]}"')["items"][0]["id"])

    def restore(self, backup: int, target: Path) -> None:
        order = {
            "target_client": self.client,
            "destination_path": str(target),
            "data_deployment": False,
            "granular_restore_files": [],
        }
        self._ended(self.rest.post(f"/repository/{backup}/restoring", {"restore_task": order}))

    def verify(self, backup: int) -> None:
        self._ended(self.rest.post(f"/repository/{backup}/verification", {}))

    def _ended(self, answer: Any) -> dict[str, Any]:
        number = task_id_of(answer)
        while True:
            status = self.rest.get(f"/task_queue/{number}/progress")["status"]
            if status in ("Done", "Error", "Broken", "Killed"):
                break
            time.sleep(self._poll_seconds)
        row: dict[str, Any] = self.rest.get(f"/task_queue/{number}")
        if row["status"] != "Done":
            sys.exit(f"task {number} ended as {row['status']}: {row['status_reason']}")
        return row


class Restic:
    """A repository of restic's own."""

    def __init__(self, folder: Path) -> None:
        self._repository = folder / "restic"
        self._environment = {
            **os.environ,
            "RESTIC_PASSWORD": PASSWORD,
            "RESTIC_CACHE_DIR": str(folder / "restic-cache"),
            "RESTIC_REPOSITORY": str(self._repository),
        }
        self.run("init")

    def run(self, *arguments: str) -> None:
        subprocess.run(["restic", "--quiet", *arguments], env=self._environment, check=True)


class Times:
    """Seconds of each step, ours and the peers', run by run."""

    def __init__(self) -> None:
        self._seconds: dict[tuple[str, str], list[float]] = {}

    def measure(self, step: str, who: str, work: Callable[[], Any]) -> Any:
        os.sync()
        started = time.perf_counter()
        result = work()
        self._seconds.setdefault((step, who), []).append(time.perf_counter() - started)
        return result

    def report(self, size_bytes: int, limits: Mapping[str, float]) -> bool:
        """Print a line for each step; whether every limit holds."""
        good = True
        for step in dict.fromkeys(step for step, _ in self._seconds):
            ours = self._seconds[step, "rbmedia"]
            line = f"  {step:<8} rbmedia {statistics.median(ours):6.2f} s  {size_bytes / statistics.median(ours) / 1e6:5.0f} MB/s"
            for peer in [who for one, who in self._seconds if one == step and who != "rbmedia"]:
                theirs = self._seconds[step, peer]
                ratio = statistics.median(mine / other for mine, other in zip(ours, theirs, strict=True))
                line += f"   {peer} {statistics.median(theirs):6.2f} s  ratio {ratio:4.2f}"
                if peer == "restic" and step in limits:
                    kept = ratio <= limits[step]
                    good = good and kept
                    line += f" (limit {limits[step]:.1f}: {'kept' if kept else 'BROKEN'})"
            print(line, flush=True)
        return good


def one_run(times: Times, ours: Installation, folder: Path, tree: Path) -> None:
    """Every step once, ours and the peers' in turn. ``folder`` is the run's own.

    Nothing is removed before the last run: for minutes after an inode was freed ext4 does not give it out again, and looking for
    others makes creating a file up to twenty times as expensive. Whoever restores first after a removal would pay for it.
    """
    folder.mkdir()
    restic = Restic(folder)
    outputs = [folder / name for name in ("ours", "theirs", "copy")]
    full = times.measure("full", "rbmedia", lambda: ours.backup(tree, "full"))
    times.measure("full", "restic", lambda: restic.run("backup", str(tree)))
    again = times.measure("again", "rbmedia", lambda: ours.backup(tree, "incremental"))
    times.measure("again", "restic", lambda: restic.run("backup", str(tree)))
    times.measure("restore", "rbmedia", lambda: ours.restore(again, outputs[0]))
    times.measure("restore", "restic", lambda: restic.run("restore", "latest", "--target", str(outputs[1])))
    times.measure("restore", "cp -a", lambda: subprocess.run(["cp", "-a", tree, outputs[2]], check=True))
    times.measure("verify", "rbmedia", lambda: ours.verify(full))
    times.measure("verify", "restic", lambda: restic.run("check", "--read-data"))
    check_same(tree, outputs[0])


def check_same(tree: Path, restored: Path) -> None:
    """A fast restore of something else would be no feat."""
    done = subprocess.run(
        ["diff", "-r", "--no-dereference", tree, restored], capture_output=True, text=True, check=False
    )
    if done.returncode:
        sys.exit(f"the restored tree is not the one that was backed up:\n{done.stdout[:2000]}{done.stderr[:2000]}")


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="bench.backup", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=["small", "large"], help="100,000 files of /usr, or 1,000 files of 4 MiB")
    parser.add_argument("--quick", action="store_true", help="a tenth of the files")
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--folder", type=Path, help="where everything is made (default: the temporary directory)")
    options = parser.parse_args()
    if shutil.which("restic") is None:
        sys.exit("restic is not installed (Debian: apt-get install restic)")
    version = subprocess.run(["restic", "version"], capture_output=True, text=True, check=True).stdout.split(
        " compiled"
    )[0]
    with tempfile.TemporaryDirectory(dir=options.folder, prefix="rbmedia-bench-") as name:
        folder = Path(name)
        tree = folder / "tree"
        tenth = 10 if options.quick else 1
        small = options.what == "small"
        size = small_files(tree, 100_000 // tenth) if small else large_files(tree, 1000 // tenth)
        count = (100_000 if small else 1000) // tenth
        print(f"{count:,} files, {size / 1e6:,.0f} MB; peers: {version}, cp -a; {options.runs} runs", flush=True)
        times = Times()
        with installed(folder) as ours:
            for number in range(options.runs):
                one_run(times, ours, folder / f"run {number}", tree)
            peak_mib = ours.peak_mib()
        good = times.report(size, LIMITS[options.what])
        kept = peak_mib <= MEMORY_MIB_MAX
        print(
            f"  memory   daemon and agent together {peak_mib} MiB at their peaks (limit {MEMORY_MIB_MAX}: {'kept' if kept else 'BROKEN'})"
        )
    return 0 if good and kept else 1


@contextlib.contextmanager
def installed(folder: Path) -> Iterator[Installation]:
    ours = Installation(folder)
    try:
        yield ours
    finally:
        ours.close()


def _until(look: Callable[[], Any], complaint: str, seconds: float = START_SECONDS) -> Any:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        found = look()
        if found:
            return found
        time.sleep(0.05)
    sys.exit(f"after {seconds:.0f} s {complaint}")


def _peak_kib(process: int) -> int:
    for line in Path(f"/proc/{process}/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1])
    return 0


if __name__ == "__main__":
    sys.exit(main())
