"""The main job, from end to end on real data, as a user would do it: what ``scripts/run`` starts.

It starts daemon and agent, logs in over REST, backs up two trees, changes one, makes incrementals, restores every link of both
chains and compares every byte and attribute with what was there. What it prints last is what happened, and the exit code agrees.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import secrets
import shutil
import signal
import subprocess
import sys
import sysconfig
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from actors.agent.identity import open_identity
from drivers.world import KernelRandomness
from rbmedia import __version__, companion
from rbmedia.cli.shell import byte_text
from rbmedia.cli.work import find_client, task_id_of
from rbmedia.client import ApiError, RestClient
from rbmedia.compare import Description, Difference, describe, differences
from rbmedia.demo_tape import POOL, DemonstrationLibrary, loopback_library
from rbmedia.endpoint import Endpoint, read_endpoint
from rbmedia.exits import CommandFailed, Exit
from rbmedia.scratch import Scratch
from rbmedia.settings import BadSetting, Home, load_settings
from rbmedia.telling import say
from rbmedia.waiting import end_of_task

START_SECONDS = 60.0
STOP_SECONDS = 30.0
SHOWN_DIFFERENCES = 20


@dataclass(frozen=True, slots=True)
class Made:
    """One backup, and the tree it must give back."""

    backup: dict[str, Any]
    source: Path
    wanted: Description


class MainJob:
    """``home`` may have been used before: everything a run makes lies in a folder of its own below ``home/runs``."""

    def __init__(self, home: Home, directory: Path, pool: str = "Default") -> None:
        self._home = home
        self._directory = directory
        self._pool = pool
        self._run = _next_folder(home.path / "runs")
        self._owners = os.geteuid() == 0
        self._wrong = 0

    def carry_out(self, client: RestClient, *, before_restores: Callable[[], None] = lambda: None) -> bool:
        """The whole job on a client that is logged in; whether everything was identical."""
        agent = self._agent(client)
        say(f"protected host {agent}")
        scratch = Scratch(self._run / "scratch")
        scratch.make()
        if scratch.left_out:
            say(f"the scratch tree goes without: {', '.join(scratch.left_out)}")
        if not self._owners:
            say("owners are not compared: only root may set them")
        made = [self._back_up(client, agent, tree, "full") for tree in (self._directory, scratch.root)]
        scratch.change()
        # Nobody changes the directory; should somebody else do so meanwhile, the names in question are looked at again.
        made.append(self._back_up(client, agent, self._directory, "incremental", made[0].wanted))
        made.append(self._back_up(client, agent, scratch.root, "incremental"))
        before_restores()
        for one in made:
            self._restore(client, agent, one)
        shutil.rmtree(self._run, ignore_errors=True) if not self._wrong else None
        return not self._wrong

    def _agent(self, client: RestClient) -> str:
        """Authorise the agent of this home when nobody has yet, and wait until it is connected."""
        for _ in _until(START_SECONDS, "the agent did not appear"):
            hwid = _hwid_of(self._home)
            if not hwid:
                continue
            waiting = client.get("/unauthorised_clients", filter_data=f'hwid="{hwid}"')["items"]
            if waiting:
                client.post("/clients/authorize", {"clients_ids": [waiting[0]["id"]]})
            known = client.get("/clients", filter_data=f'hwid="{hwid}"')["items"]
            if known and known[0]["online"]:
                return str(find_client(client, hwid)["client"])
        raise AssertionError("unreachable")

    def _back_up(
        self, client: RestClient, agent: str, tree: Path, backup_type: str, wanted: Description | None = None
    ) -> Made:
        wanted = wanted or describe(tree)
        if wanted.unreadable:
            say(
                f"{len(wanted.unreadable)} files and directories of {tree} may not be read by this user and are not compared"
            )
        answer = client.post(
            "/task_queue",
            {
                "task": {
                    "resource_type": "File system",
                    "resource": str(tree),
                    "client": agent,
                    "backup_type": backup_type,
                    "pool": self._pool,
                    "crypto": "AES-256-GCM",
                    "priority": 100,
                    "storage_duration": "1 year",
                    "archiving": False,
                }
            },
        )
        task_id = task_id_of(answer)
        task = _ended_well(client, task_id)
        backup: dict[str, Any] = client.get("/repository", filter_data=f'task_id="{task_id}"')["items"][0]
        content, stored, seconds = wanted.content_bytes, backup["archive_size"], _seconds(task)
        holes = backup["data_size"] - content
        say(
            f"backup {backup['id']}: {backup['backup_type']:<11} {tree}  {len(wanted.entries):,} names, {byte_text(content)}"
            + (f" and {byte_text(holes)} of holes" if holes > content else "")
            + f" in {byte_text(stored)} (ratio {content / max(stored, 1):.2f}), {seconds:.1f} s, {content / seconds / 1e6:,.0f} MB/s"
        )
        if backup["problems"]:
            say(f"  {backup['problems']} files could not be read whole; the task's journal names them")
        return Made(backup, tree, wanted)

    def _restore(self, client: RestClient, agent: str, made: Made) -> None:
        number = made.backup["id"]
        target = self._run / "restored" / str(number)
        target.mkdir(parents=True)
        answer = client.post(
            f"/repository/{number}/restoring",
            {
                "restore_task": {
                    "target_client": agent,
                    "destination_path": str(target),
                    "data_deployment": False,
                    "granular_restore_files": [],
                }
            },
        )
        task = end_of_task(client, task_id_of(answer))
        if task["status"] != "Done" and self._owners:
            raise CommandFailed(f"Task {task['id']} (Restore) ended as {task['status']}: {task['status_reason']}")
        seconds = _seconds(task)
        found, meanwhile = [], 0
        for one in differences(made.wanted, describe(target), owners=self._owners):
            if made.source == self._directory and _changed_meanwhile(made, one):
                meanwhile += 1
            else:
                found.append(one)
        rate = made.wanted.content_bytes / seconds / 1e6
        verdict = "identical" if not found else f"{len(found)} differences"
        say(
            f"restore of backup {number}: {seconds:.1f} s, {rate:,.0f} MB/s, {len(made.wanted.entries):,} names: {verdict}"
        )
        if task["status"] != "Done":
            say(f"  the task ended as {task['status']}, because owners cannot be set here: {task['status_reason']}")
        for one in found[:SHOWN_DIFFERENCES]:
            say(f"  {one}")
        if len(found) > SHOWN_DIFFERENCES:
            say(f"  and {len(found) - SHOWN_DIFFERENCES} more")
        if meanwhile:
            say(f"  {meanwhile} names changed in {made.source} while this ran and were not compared")
        self._wrong += len(found)
        if not found:
            shutil.rmtree(target, ignore_errors=True)


def main(arguments: list[str]) -> int:
    """Parse, start, do the job, serve until Ctrl-C unless ``--once``. Returns the exit code."""
    parser = argparse.ArgumentParser(prog="scripts/run", description=(__doc__ or "").split("\n\n", maxsplit=1)[0])
    parser.add_argument(
        "--tape", action="store_true", help="to cartridges of a library on loopback, and back from them"
    )
    parser.add_argument("--once", action="store_true", help="end after the job instead of serving until Ctrl-C")
    parser.add_argument("directory", nargs="?", type=Path, default=Path(sysconfig.get_path("stdlib")), metavar="DIR")
    parsed = parser.parse_args(arguments)
    signal.signal(signal.SIGTERM, _interrupt)
    try:
        return _run(parsed.directory, once=parsed.once, tape=parsed.tape)
    except (CommandFailed, BadSetting) as error:
        say(f"failed: {error}")
        return error.code if isinstance(error, CommandFailed) else Exit.USAGE
    except KeyboardInterrupt:
        say("interrupted")
        return Exit.INTERRUPTED


def _run(directory: Path, *, once: bool, tape: bool) -> int:
    directory = directory.expanduser().resolve()
    settings = load_settings()
    home = Home(settings.home)
    if not directory.is_dir():
        raise CommandFailed(f"{directory} is not a directory.", Exit.USAGE)
    if home.path.resolve().is_relative_to(directory):
        raise CommandFailed(
            f"{home.path} lies inside {directory}: the backup would back up itself. Name another folder with RBMEDIA_HOME.",
            Exit.USAGE,
        )
    home.make()
    say(f"rbmedia {__version__}, data under {home.path}")
    password = _password(home, settings.superuser_password)
    with contextlib.ExitStack() as stack:
        library = stack.enter_context(loopback_library(home.path / "tape-library")) if tape else None
        with _daemon(home, password, library.target if library is not None else "") as endpoint:
            say(f"daemon and agent are running: {endpoint.url} (process {endpoint.process})")
            good = _do_the_job(home, directory, endpoint, password, library)
            if not good:
                say("NOT identical: see the differences above; the restored trees were kept")
                return Exit.FAILED
            if library is None or not once:
                say("identical")
            if not once:
                _serve(endpoint, home)
        if library is not None and once:
            library.read_without_the_server()
            say("identical")
    return Exit.OK


def _do_the_job(
    home: Home, directory: Path, endpoint: Endpoint, password: str, library: DemonstrationLibrary | None
) -> bool:
    with RestClient(endpoint.url, Path(endpoint.ca_certificate), password_of=lambda: ("rubackup", password)) as client:
        try:
            client.login("rubackup", password)
        except ApiError as error:
            raise CommandFailed(
                f"The daemon in {home.path} refused the login of rubackup: {error.message}. Its password was chosen at the "
                "first start; give that one in RBMEDIA_SUPERUSER_PASSWORD.",
                Exit.NO_ACCESS,
            ) from None
        if library is None:
            return MainJob(home, directory).carry_out(client)
        library.add(client)
        good = MainJob(home, directory, POOL).carry_out(client, before_restores=lambda: library.unload(client))
        library.report(client)
        return good


def _serve(endpoint: Endpoint, home: Home) -> None:
    say(f"serving at {endpoint.url} (try {endpoint.url}/api/v1/); Ctrl-C stops it")
    say(
        f"  curl --cacert {home.ca_certificate} {endpoint.url}/api/v1/auth/login -H 'Content-Type: application/json' \\"
    )
    say("""    -d '{"rubackup_database":"rubackup","rubackup_user":"rubackup","password":"..."}'""")
    with contextlib.suppress(KeyboardInterrupt):
        while True:
            time.sleep(3600)
    say("stopping")


@contextlib.contextmanager
def _daemon(home: Home, password: str, iscsi_targets: str = "") -> Iterator[Endpoint]:
    """A daemon with its agent on ``home``, stopped in order at the end."""
    console = home.messages / "console.log"
    environment = {**os.environ, "RBMEDIA_HOME": str(home.path), "RBMEDIA_SUPERUSER_PASSWORD": password}
    environment.setdefault("RBMEDIA_IMMUTABLE_FILES", "no")
    if iscsi_targets:
        environment["RBMEDIA_ISCSI_TARGETS"] = iscsi_targets
    with open(console, "wb") as output:
        command = ["serve", "--with-agent", "--until-stdin-closes", "--control-port", "0", "--data-port", "0"]
        child = companion.start(command, output=output, environment=environment)
    try:
        yield _answering(child, home, console)
    finally:
        child.terminate()
        try:
            code = child.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            child.kill()
            code = child.wait()
        if code not in (0, None) and sys.exc_info()[0] is None:
            raise CommandFailed(f"The daemon ended with code {code}; its last words stand in {console}.")


def _answering(child: subprocess.Popen[bytes], home: Home, console: Path) -> Endpoint:
    for _ in _until(START_SECONDS, f"the daemon did not answer; what it said stands in {console}"):
        if child.poll() is not None:
            words = console.read_text(errors="replace").strip().splitlines()[-8:]
            raise CommandFailed("The daemon did not start: " + "\n  ".join(words or ["it said nothing."]))
        endpoint = read_endpoint(home.daemon_file)
        if endpoint is not None and endpoint.process == child.pid:
            return endpoint
    raise AssertionError("unreachable")


def _password(home: Home, given: str) -> str:
    """The superuser's password: given, or the one an earlier run chose, or a new one that the next run finds again."""
    kept = home.path / "superuser-password"
    if given:
        return given
    if not kept.exists():
        descriptor = os.open(kept, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        with os.fdopen(descriptor, "w") as file:
            file.write(secrets.token_urlsafe(15) + "\n")
        say(f"the password of superuser rubackup stands in {kept}")
    return kept.read_text().strip()


def _ended_well(client: RestClient, task_id: int) -> dict[str, Any]:
    task = end_of_task(client, task_id)
    if task["status"] != "Done":
        raise CommandFailed(f"Task {task_id} ({task['task_type']}) ended as {task['status']}: {task['status_reason']}")
    return task


def _seconds(task: dict[str, Any]) -> float:
    began, ended = (datetime.fromisoformat(task[name]) for name in ("created", "ended"))
    return max((ended - began).total_seconds(), 0.001)


def _changed_meanwhile(made: Made, one: Difference) -> bool:
    """Whether the source itself is no longer what was described: then the difference says nothing about the backup."""
    path = os.path.join(os.fsencode(made.source), one.path) if one.path else os.fsencode(made.source)
    known = made.wanted.entries.get(one.path)
    try:
        now = os.lstat(path).st_ctime_ns
    except FileNotFoundError:
        return True
    return known is None or now != known.ctime_ns


def _hwid_of(home: Home) -> str:
    """Hardware id of the agent of this home; empty until it has made its identity (only the agent itself makes one)."""
    if not (home.agent / "identity.key").exists() or not (home.agent / "master-key").exists():
        return ""
    return open_identity(home.agent, KernelRandomness()).hwid


def _next_folder(parent: Path) -> Path:
    parent.mkdir(parents=True, exist_ok=True)
    taken = [int(one.name) for one in parent.iterdir() if one.name.isdigit()]
    folder = parent / str(max(taken, default=0) + 1)
    folder.mkdir()
    return folder


def _until(seconds: float, complaint: str) -> Iterator[None]:
    """Try again and again for ``seconds``, then fail with ``complaint``."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        yield
        time.sleep(0.1)
    raise CommandFailed(f"After {seconds:.0f} s {complaint}.")


def _interrupt(_number: int, _frame: object) -> None:
    raise KeyboardInterrupt


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
