"""A real installation with a tape library: the daemon, its agent, and a library behind iSCSI as processes of their own.

Two libraries take the same tests: Debian's ``tgtd`` (another program, that can be killed) and the simulated one, served by
``rbmedia simulate tape-library`` (which takes every fault). Everything goes through the public API, as an operator would do it.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

from drivers.simulated.tape.control import request
from rbcore.vocabulary import PoolType
from rbmedia.cli.work import task_id_of
from rbmedia.client import ApiError, RestClient
from rbmedia.companion import COMMAND
from rbmedia.compare import Description, describe, differences
from rbmedia.loopback_library import SLOTS, TARGET, LoopbackLibrary
from rbmedia.waiting import ENDED
from tests.end_to_end.installation import Installation, backup_body, restore_body, until
from tests.tape.libraries import need_libiscsi, need_target

TARGETED, SIMULATED = "target", "simulated"
TASK_SECONDS = 90.0
OWNERS = os.geteuid() == 0


class Library(Protocol):
    """A library that runs as a process. Cartridges are VT0001L9.. in the first slots and CLN001L9 in the last one."""

    @property
    def target(self) -> str: ...

    @property
    def changer_url(self) -> str: ...

    def drive_url(self, number: int) -> str:
        """Of the drives from 0."""

    def start(self) -> None:
        """Also again, on the same port and with its media."""

    def kill(self) -> None:
        """Power loss."""

    def stop(self) -> None: ...

    def fault(self, line: str) -> str:
        """Only the simulated one takes faults."""


class TargetLibrary:
    """tgtd. After a kill its robot knows only what it is told at the start: every cartridge lies in its first slot again."""

    def __init__(self, directory: Path, *, cartridges: int, mebibytes: int, drives: int) -> None:
        need_target()
        self._library = LoopbackLibrary(
            directory, slots=cartridges + 4, drives=drives, media=cartridges, cartridge_mebibytes=mebibytes
        )

    @property
    def target(self) -> str:
        return f"iscsi://127.0.0.1:{self._library.port}/{TARGET}"

    @property
    def changer_url(self) -> str:
        return self._library.changer_url

    def drive_url(self, number: int) -> str:
        return self._library.drive_url(number)

    @property
    def process_id(self) -> int:
        assert self._library.process is not None, "it was started"
        return self._library.process.pid

    def start(self) -> None:
        self._library.start()

    def kill(self) -> None:
        self._library.kill()

    def stop(self) -> None:
        self._library.stop()

    def fault(self, line: str) -> str:
        raise AssertionError(f"tgtd takes no faults: {line}")


class SimulatedProcess:
    """``rbmedia simulate tape-library``; a kill is a power failure: what its drives had in their buffers is gone."""

    def __init__(self, directory: Path, *, cartridges: int, mebibytes: int, drives: int) -> None:
        need_libiscsi()
        directory.mkdir(parents=True, exist_ok=True)
        self._directory = directory / "library"
        self._console = directory / "console"
        self._options = [
            *("--slots", str(cartridges + 4), "--cartridges", str(cartridges), "--drives", str(drives)),
            *("--capacity-factor", f"{mebibytes * 2**20 / 18e12:.3e}"),
        ]
        self._process: subprocess.Popen[bytes] | None = None
        self.target = ""

    @property
    def changer_url(self) -> str:
        return f"{self.target}/0"

    def drive_url(self, number: int) -> str:
        return f"{self.target}/{number + 1}"

    @property
    def process_id(self) -> int:
        assert self._process is not None, "it was started"
        return self._process.pid

    def records_of(self, tag: str) -> list[int]:
        """Object numbers of the records on its first partition, ascending."""
        return sorted(
            int(path.stem) for path in (self._directory / "cartridges" / tag / "partition-0").rglob("*.record")
        )

    def start(self) -> None:
        with self._console.open("wb") as output:
            self._process = process = subprocess.Popen(
                [
                    *(*COMMAND, "simulate", "tape-library", str(self._directory)),
                    *("--json", "--until-stdin-closes", *self._options),
                ],
                stdin=subprocess.PIPE,
                stdout=output,
                stderr=subprocess.STDOUT,
            )

        def announced() -> str:
            assert process.poll() is None, self._console.read_text()
            with contextlib.suppress(json.JSONDecodeError):
                return str(json.loads(self._console.read_text())["changer"]).rpartition("/")[0]
            return ""

        self.target = until(announced, "the simulated library does not answer")

    def kill(self) -> None:
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.wait()
            assert process.stdin is not None
            process.stdin.close()

    def stop(self) -> None:
        self.kill()

    def fault(self, line: str) -> str:
        return request(self._directory, line)


LIBRARIES: dict[str, type[TargetLibrary | SimulatedProcess]] = {TARGETED: TargetLibrary, SIMULATED: SimulatedProcess}


class TapeInstallation(Installation):
    """Daemon, agent and library; the library is added, its cartridges get registered with the pools that tests make."""

    def __init__(self, folder: Path, library: Library, *, fixed_ports: bool = False) -> None:
        super().__init__(folder, fixed_ports=fixed_ports)
        self.library = library
        self.agent_of = ""
        """Display name of the client that is backed up."""
        self._unused: list[str] = []
        self.reasons: list[str] = []
        """Of suspended tasks that ``pushed`` has met."""
        self.refusals: list[str] = []
        """Why synchronising did not work (yet)."""
        self._restores = 0
        self._rest: RestClient | None = None

    @property
    def environment(self) -> dict[str, str]:
        return {**super().environment, "RBMEDIA_ISCSI_TARGETS": self.library.target}

    @property
    def rest(self) -> RestClient:
        """Not from several threads."""
        if self._rest is None:
            self._rest = self.client()
        return self._rest

    def set_up(self) -> None:
        """From nothing: the library answers, the daemon knows it, the agent is connected."""
        self.library.start()
        self.start()
        self.start_agent()
        (self.agent_of,) = self.authorised_client(self.rest)
        self.rest.post("/pool_list", {"pool_name": "Unused", "pool_type": PoolType.TAPE_NATIVE})
        (server,) = self.rest.rows("/media_servers")
        found = self.rest.get("/tape_libraries/candidates", media_server=server["hostname"])
        answer = self.rest.post(
            "/tape_libraries",
            {
                "pool": "Unused",
                "media_server": server["hostname"],
                "medium_changer_candidate_id": found["medium_changers"][0]["id"],
                "tape_drives_candidates_ids": [one["id"] for one in found["tape_drives"]],
            },
        )
        self._unused = sorted(one for one in answer.data["unknown_cartridges"] if not one.startswith("CLN"))
        self.register("Unused", "CLN001L9")

    # --- pools and cartridges -----------------------------------------------------------------------------------------

    def register(self, pool: str, tag: str) -> None:
        kind = "CLN" if tag.startswith("CLN") else "LTO-9"
        self.rest.post("/tape_cartridges", {"type": kind, "pool": pool, "volume_tag": tag, "description": ""})

    def make_pool(self, name: str, cartridges: int, pool_type: str = PoolType.TAPE_NATIVE) -> list[str]:
        """A tape pool with so many cartridges that no other test has; their tags."""
        self.rest.post("/pool_list", {"pool_name": name, "pool_type": pool_type})
        assert len(self._unused) >= cartridges, "give the library more cartridges"
        tags, self._unused = self._unused[:cartridges], self._unused[cartridges:]
        for tag in tags:
            self.register(name, tag)
        return tags

    def cartridge(self, tag: str) -> dict[str, Any]:
        (row,) = self.rest.rows("/tape_cartridges", filter_data=f'volume_tag="{tag}"')
        return row

    def element_of(self, tag: str) -> dict[str, Any]:
        """The row of the element in which it lies."""
        (row,) = self.rest.rows("/library_slots", filter_data=f'volume_tag="{tag}"')
        return row

    def drives(self) -> list[dict[str, Any]]:
        return list(self.rest.rows("/library_tape_drives"))

    def tags_of(self, backup_id: int) -> list[str]:
        """Cartridges of a backup in order, each once."""
        parts = self.rest.get(f"/repository/{backup_id}")["parts"]
        return list(dict.fromkeys(str(one["volume_tag"]) for one in parts))

    # --- orders -------------------------------------------------------------------------------------------------------

    def order(self, verb: str, tag: str, *, as_list: bool = False, **more: Any) -> dict[str, Any]:
        """``PATCH /library_slots/<verb>`` for one cartridge, and the row of the tape task that came of it."""
        data = {"library_id": 1, "volume_tag": tag, **more}
        answer = self.rest.call("PATCH", f"/library_slots/{verb}", body={"data": [data] if as_list else data})
        return self.tape_task(answer.data["tasks_ids"][0])

    def tape_task(self, number: int) -> dict[str, Any]:
        """Its row when it has ended."""

        def ended() -> dict[str, Any] | None:
            row: dict[str, Any] = self.rest.get(f"/tl_task_queue/{number}")
            return row if row["status"] in ENDED else None

        found: dict[str, Any] = until(ended, f"tape task {number} does not end: {self.story()}", TASK_SECONDS)
        return found

    def unload(self, *tags: str) -> None:
        """Out of their drives by an operator's move: what is read afterwards comes from a cartridge that is mounted anew."""
        for tag in tags:
            if self.element_of(tag)["type"] != "drive":
                continue
            free = self.rest.get("/library_slots", filter_data='type="storage",is_full="false"', limit=1)["items"][0]
            task = self.order("move_cartridge", tag, slot_id=free["id"])
            assert task["status"] == "Done", task
            assert self.element_of(tag)["type"] == "storage"

    def delete(self, backup_id: int) -> None:
        self.rest.call("DELETE", "/repository", body={"ids": [backup_id]})

    def empty_drives(self) -> None:
        """Nothing is mounted: the next mount goes to the first drive."""
        self.unload(*[str(one["volume_tag"]) for one in self.drives() if one["volume_tag"]])

    def synchronise(self) -> None:
        """What an operator does after having mended something."""

        def done() -> bool:
            try:
                self.rest.call("POST", "/tape_libraries/1/sync")
            except ApiError as error:
                self.refusals.append(error.message)
                return error.status == 422  # done, and cartridges that nobody registered are named
            return True

        until(done, f"the library cannot be synchronised: {self.refusals[-1:]}", TASK_SECONDS)

    # --- tasks --------------------------------------------------------------------------------------------------------

    def queue_backup(self, tree: Path, pool: str, backup_type: str = "full", crypto: str = "nocrypt") -> int:
        body = backup_body(self.agent_of, tree, backup_type, crypto)
        body["task"]["pool"] = pool
        return task_id_of(self.rest.post("/task_queue", body))

    def queue_restore(self, backup_id: int) -> tuple[int, Path]:
        """The task and where it restores to."""
        self._restores += 1
        target = self.folder / "restored" / str(self._restores)
        target.mkdir(parents=True)
        return task_id_of(
            self.rest.post(f"/repository/{backup_id}/restoring", restore_body(self.agent_of, target))
        ), target

    def queue_copy(self, backup_id: int, pool: str, *, move: bool = False) -> int:
        verb = "moving" if move else "copying"
        return task_id_of(self.rest.call("POST", f"/repository/{backup_id}/{verb}", query={"pool": pool}))

    def queue_verification(self, backup_id: int) -> int:
        return task_id_of(self.rest.call("POST", f"/repository/{backup_id}/verification"))

    def go_on(self, task_id: int) -> None:
        """Now, and not at the end of the minute after which a suspended task is tried again."""
        self.rest.post("/continue_task_working", {"task_id": task_id})

    def task(self, number: int) -> dict[str, Any]:
        found: dict[str, Any] = self.rest.get(f"/task_queue/{number}")
        return found

    def becomes(self, number: int, status: str, seconds: float = TASK_SECONDS) -> dict[str, Any]:
        """The task's row when it has this status; it fails at once when the task ends otherwise."""

        def look() -> dict[str, Any] | None:
            row = self.task(number)
            if row["status"] in ENDED and row["status"] != status:
                raise AssertionError(f"task {number} ended as {row['status']}: {row['status_reason']}\n{self.story()}")
            return row if row["status"] == status else None

        try:
            found: dict[str, Any] = until(look, f"task {number} never became {status}", seconds)
        except AssertionError as failure:
            raise AssertionError(f"{failure}\n{self.task(number)}\n{self.story()}") from None
        return found

    def ended(self, number: int, seconds: float = TASK_SECONDS) -> dict[str, Any]:
        """The task's row when it has ended, however."""

        def look() -> dict[str, Any] | None:
            row = self.task(number)
            return row if row["status"] in ENDED else None

        try:
            found: dict[str, Any] = until(look, f"task {number} does not end", seconds)
        except AssertionError as failure:
            raise AssertionError(f"{failure}\n{self.task(number)}\n{self.story()}") from None
        return found

    def pushed(self, number: int, seconds: float = TASK_SECONDS) -> dict[str, Any]:
        """The task's row when it has ended; whenever it is suspended an operator lets it go on."""

        def look() -> dict[str, Any] | None:
            row = self.task(number)
            if row["status"] == "Suspended":
                self.reasons.append(row["status_reason"])
                with contextlib.suppress(ApiError):  # it has gone on by itself meanwhile
                    self.go_on(number)
            return row if row["status"] in ENDED else None

        try:
            found: dict[str, Any] = until(look, f"task {number} does not end", seconds)
        except AssertionError as failure:
            raise AssertionError(f"{failure}\n{self.task(number)}\n{self.story()}") from None
        return found

    def backup_of(self, task_id: int) -> int:
        """The backup that this backup or copy task made; it has to end Done."""
        self.becomes(task_id, "Done")
        (row,) = self.rest.rows("/repository", filter_data=f'task_id="{task_id}"')
        return int(row["id"])

    def back_up(self, tree: Path, pool: str, backup_type: str = "full", crypto: str = "nocrypt") -> int:
        return self.backup_of(self.queue_backup(tree, pool, backup_type, crypto))

    def restores_identical(self, backup_id: int, wanted: Description) -> None:
        task_id, target = self.queue_restore(backup_id)
        self.becomes(task_id, "Done")
        assert_same(wanted, target)

    def story(self) -> str:
        """What an operator would look at: drives, tape tasks, and the end of the console."""
        lines = [
            *(f"drive {one['id']} {one['status']} {one['volume_tag']} {one['status_reason']}" for one in self.drives()),
            *(
                f"tape task {one['id']} of {one['parent_task_id']}: {one['task_type']} {one['volume_tag']} {one['status']} {one['status_reason']}"
                for one in self.rest.rows("/tl_task_queue")
            ),
            *(
                f"task {one['id']} {one['task_type']} {one['status']} {one['status_reason']}"
                for one in self.rest.rows("/task_queue")
            ),
        ]
        return "\n".join([*lines, self.console("daemon")])


def assert_same(wanted: Description, found: Path) -> None:
    assert [str(one) for one in differences(wanted, describe(found), owners=OWNERS)] == []


def noise(folder: Path, mebibytes: Sequence[float], seed: int = 1) -> Path:
    """A tree of files that cannot be compressed, one per size."""
    import random

    draw = random.Random(seed)
    folder.mkdir(parents=True)
    for number, size in enumerate(mebibytes):
        (folder / f"file {number}").write_bytes(draw.randbytes(round(size * 2**20)))
    return folder


@contextlib.contextmanager
def tape_installation(
    folder: Path,
    kind: str,
    *,
    cartridges: int,
    mebibytes: int = 24,
    drives: int = 2,
    fixed_ports: bool = False,
) -> Iterator[TapeInstallation]:
    """Set up, and all of it stopped in the end."""
    library: Library = LIBRARIES[kind](
        folder / "tape-library", cartridges=cartridges, mebibytes=mebibytes, drives=drives
    )
    installation = TapeInstallation(folder, library, fixed_ports=fixed_ports)
    try:
        installation.set_up()
        yield installation
    finally:
        installation.close()
        library.stop()


__all__ = [
    "LIBRARIES",
    "SIMULATED",
    "SLOTS",
    "TARGETED",
    "TapeInstallation",
    "assert_same",
    "noise",
    "tape_installation",
]
