"""The tape library of the demonstration: started on loopback, added over REST, unloaded, and read without the server in the end.

The library is Debian's ``tgtd`` where it is installed, else this program's simulated one; both are spoken to in SCSI over iSCSI, as real ones
behind a bridge are.
"""

from __future__ import annotations

import contextlib
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from rbmedia import companion
from rbmedia.cli.shell import byte_text
from rbmedia.client import ApiError, RestClient
from rbmedia.exits import CommandFailed
from rbmedia.loopback_library import SLOTS, TARGET, LoopbackLibrary, is_installed
from rbmedia.telling import say
from rbmedia.waiting import ends_of_tape_tasks

POOL = "Tapes"
CARTRIDGES, SLOTS_OF_LIBRARY, DRIVES = 6, 8, 2
CARTRIDGE_MEBIBYTES = 512
STOP_SECONDS = 20.0
SCAN_SECONDS = 300.0


@dataclass(frozen=True, slots=True)
class DemonstrationLibrary:
    """A running library: its target, and the addresses of its changer and first drive."""

    target: str
    changer: str
    drive: str

    def add(self, client: RestClient) -> None:
        """The pool, the library, and its cartridges, where an earlier run has not."""
        if not client.get("/pool_list", filter_data=f'pool_name="{POOL}"')["items"]:
            client.post("/pool_list", {"pool_name": POOL, "pool_type": "Tape library"})
        if client.get("/tape_libraries")["items"]:
            return
        server = client.get("/media_servers")["items"][0]["hostname"]
        found = client.get("/tape_libraries/candidates", media_server=server, adding_method="automatic")
        if not found["medium_changers"]:
            raise CommandFailed(f"The daemon sees no medium changer at {self.target}.")
        changer = found["medium_changers"][0]
        drives = [one for one in found["tape_drives"] if one["medium_changer_candidate_id"] == changer["id"]]
        answer = client.call(
            "POST",
            "/tape_libraries",
            body={
                "data": {
                    "pool": POOL,
                    "media_server": server,
                    "description": "on loopback",
                    "medium_changer_candidate_id": changer["id"],
                    "tape_drives_candidates_ids": [one["id"] for one in drives],
                }
            },
        )
        say(f"library: changer {changer['vendor']} {changer['model']} with {len(drives)} drives. {answer.message}")
        tags = answer.data["unknown_cartridges"]
        for tag in tags:
            kind = "CLN" if tag.startswith("CLN") else f"LTO-{tag[-1]}"
            client.post("/tape_cartridges", {"type": kind, "pool": POOL, "volume_tag": tag, "description": ""})
        say(f"cartridges registered: {', '.join(tags)}")

    def unload(self, client: RestClient) -> None:
        """Every cartridge goes from its drive to a slot: what is restored comes from a cartridge that is mounted anew."""
        for drive in client.get("/library_tape_drives")["items"]:
            tag = drive["volume_tag"]
            if not tag:
                continue
            free = client.get("/library_slots", filter_data='type="storage",is_full="false"', limit=1)["items"]
            order = {"library_id": drive["library_id"], "volume_tag": tag, "slot_id": free[0]["id"]}
            answer = client.call("PATCH", "/library_slots/move_cartridge", body={"data": order})
            for task in ends_of_tape_tasks(client, answer.data["tasks_ids"]):
                if task["status"] != "Done":
                    raise CommandFailed(f"Cartridge {tag} was not unloaded: {task['status_reason']}")
            say(f"unloaded {tag} from drive {drive['id']} into slot {free[0]['number']}")

    def report(self, client: RestClient) -> None:
        """Mounts with their reasons, and what the cartridges hold."""
        for drive in client.get("/library_tape_drives")["items"]:
            say(f"drive {drive['id']}: {drive['mounts']} mounts; holds {drive['volume_tag'] or 'nothing'}")
            for row in _why(client, drive["id"]):
                say(f"  {row}")
        for cartridge in client.get("/tape_cartridges", sort_by="volume_tag")["items"]:
            if cartridge["used"]:
                say(
                    f"cartridge {cartridge['volume_tag']}: {cartridge['status']}, {cartridge['format']}, "
                    f"{byte_text(cartridge['used'])}, {cartridge['archives']} archives"
                )

    def read_without_the_server(self) -> None:
        """The daemon is gone; the cartridges say what is on them."""
        say("without the server (rbmedia tape scan):")
        done = subprocess.run(  # noqa: S603 - this very command
            [*companion.COMMAND, "tape", "scan", "--drive", self.drive, "--changer", self.changer],
            capture_output=True,
            text=True,
            timeout=SCAN_SECONDS,
            check=False,
        )
        for line in done.stdout.splitlines():
            say(f"  {line}")
        if done.returncode:
            raise CommandFailed(f"The cartridges could not be scanned: {done.stderr.strip()}")


def _why(client: RestClient, drive_id: int) -> list[str]:
    """Why the newest mount was made; nothing when there was none."""
    try:
        rows = client.get(f"/library_tape_drives/{drive_id}/why")["items"]
        return [str(row["text"]) for row in rows if row["event"] == "drive.mount_begun"]
    except ApiError as error:
        if error.status == 404:
            return []
        raise


@contextlib.contextmanager
def loopback_library(directory: Path) -> Iterator[DemonstrationLibrary]:
    """Started, and stopped in the end; what lies in ``directory`` from an earlier run is that library again."""
    with _target(directory / "tgt") if is_installed() else _simulator(directory / "simulated") as library:
        yield library


@contextlib.contextmanager
def _target(directory: Path) -> Iterator[DemonstrationLibrary]:
    remembered = directory / "port"
    library = LoopbackLibrary(
        directory,
        slots=SLOTS_OF_LIBRARY,
        drives=DRIVES,
        media=CARTRIDGES,
        cartridge_mebibytes=CARTRIDGE_MEBIBYTES,
    )
    if remembered.exists():
        # The address stands in the log: the same port, or it is another library.
        library.port = int(remembered.read_text())
        library.inventory = {SLOTS + number: f"VT{number + 1:04d}L9" for number in range(CARTRIDGES)}
        library.inventory[SLOTS + SLOTS_OF_LIBRARY - 1] = "CLN001L9"
    try:
        library.start()
        remembered.write_text(f"{library.port}\n")
        say(f"tape library (tgtd) at 127.0.0.1:{library.port}, {CARTRIDGES} cartridges of {CARTRIDGE_MEBIBYTES} MiB")
        target = f"iscsi://127.0.0.1:{library.port}/{TARGET}"
        yield DemonstrationLibrary(target, library.changer_url, library.drive_url(0))
    finally:
        library.stop()


@contextlib.contextmanager
def _simulator(directory: Path) -> Iterator[DemonstrationLibrary]:
    """``rbmedia simulate tape-library`` as a child."""
    directory.mkdir(parents=True, exist_ok=True)
    command = ["simulate", "tape-library", str(directory), "--no-delay"]
    child = subprocess.Popen(  # noqa: S603 - this very command
        [*companion.COMMAND, *command], stdout=subprocess.PIPE, text=True
    )
    try:
        assert child.stdout is not None, "a pipe was asked for"
        addresses: dict[str, str] = {}
        for line in child.stdout:
            name, _, address = line.strip().partition(" ")
            if address.startswith("iscsi://"):
                addresses[name] = address
            if "changer" in addresses and "drive1" in addresses:
                break
        if "drive1" not in addresses:
            raise CommandFailed("The simulated tape library did not start.")
        say(f"tape library (simulated) at {addresses['changer']}")
        target = addresses["changer"].rpartition("/")[0]
        yield DemonstrationLibrary(target, addresses["changer"], addresses["drive1"])
    finally:
        child.terminate()
        try:
            child.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()
