"""``rbmedia simulate tape-library`` as a process: it serves, keeps its cartridges, takes faults, and stops when it is told."""

from __future__ import annotations

import contextlib
import json
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from drivers.scsi.changer import Changer
from drivers.scsi.drive import Drive, Found
from drivers.scsi.iscsi import IscsiTransport
from rbmedia.companion import COMMAND
from rbmedia.exits import Exit
from tests.end_to_end.installation import free_ports, until
from tests.tape.libraries import need_libiscsi

DRIVE, SLOT = 256, 1024


@pytest.fixture(autouse=True)
def has_libiscsi() -> None:
    need_libiscsi()


@contextlib.contextmanager
def served(directory: Path, *options: str) -> Iterator[tuple[subprocess.Popen[bytes], dict[str, Any]]]:
    """The process and what it announced; it ends with this one, whatever happens."""
    console, complaints = directory.parent / "console", directory.parent / "complaints"
    with console.open("wb") as output, complaints.open("ab") as errors:
        process = subprocess.Popen(
            [*COMMAND, "simulate", "tape-library", str(directory), "--json", "--until-stdin-closes", *options],
            stdin=subprocess.PIPE,
            stdout=output,
            stderr=errors,
        )

    def announced() -> dict[str, Any] | None:
        assert process.poll() is None, complaints.read_text()
        text = console.read_text()
        with contextlib.suppress(json.JSONDecodeError):
            found: dict[str, Any] = json.loads(text)
            return found
        return None

    try:
        yield process, until(announced, "the tape library does not answer")
    finally:
        process.kill()
        process.wait()
        if process.stdin is not None:
            process.stdin.close()


def stopped(process: subprocess.Popen[bytes], number: signal.Signals) -> int:
    process.send_signal(number)
    return process.wait(40)


def command(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*COMMAND, "simulate", *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


async def write(where: dict[str, Any], records: list[bytes]) -> None:
    changer, drive = Changer(IscsiTransport(where["changer"])), Drive(IscsiTransport(where["drives"][0]))
    await changer.move(SLOT, DRIVE)
    await drive.load()
    for record in records:
        await drive.write(record)
    await drive.write_filemarks(1)
    await drive.aclose()
    await changer.aclose()


async def read(where: dict[str, Any]) -> list[bytes]:
    """Of the cartridge in the first drive, up to the filemark."""
    drive = Drive(IscsiTransport(where["drives"][0]))
    await drive.load()
    await drive.rewind()
    found = []
    while (result := await drive.read(1 << 21)).found is Found.BLOCK:
        found.append(result.data)
    await drive.aclose()
    return found


@pytest.mark.parametrize("end", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL])
async def test_cartridges_are_there_again_after_a_restart(tmp_path: Path, end: signal.Signals) -> None:
    records = [bytes([number]) * 300_000 for number in range(10)]
    directory = tmp_path / "library"
    with served(directory, "--slots", "5", "--drives", "1", "--prefix", "AB") as (process, first):
        changer = Changer(IscsiTransport(first["changer"]))
        full = {one.address: one.volume_tag for one in await changer.elements() if one.full}
        assert full == {SLOT: "AB0001L9", SLOT + 1: "AB0002L9", SLOT + 2: "AB0003L9", SLOT + 4: "CLN001L9"}
        await changer.aclose()
        assert len(first["drives"]) == 1
        await write(first, records)
        code = stopped(process, end)
        assert code == (-signal.SIGKILL if end is signal.SIGKILL else 0)
    with served(directory) as (process, again):
        assert again == first
        assert await read(again) == records
        assert stopped(process, signal.SIGTERM) == 0


async def test_faults_while_it_runs(tmp_path: Path) -> None:
    directory = tmp_path / "library"
    with served(directory) as (_, where):
        changer = Changer(IscsiTransport(where["changer"]))
        assert len([one for one in await changer.elements() if one.full]) == 7
        taken = command("tape-library-fault", str(directory), "take_out", str(SLOT))
        assert (taken.returncode, taken.stdout) == (0, "VT0001L9\n")
        assert len([one for one in await changer.elements() if one.full]) == 6
        await changer.aclose()
        refused = command("tape-library-fault", str(directory), "take_out", str(SLOT))
        assert refused.returncode == Exit.FAILED
        assert "nothing at element" in refused.stderr
        status = command("tape-library-fault", str(directory), "--json")
        assert "outside VT0001L9" in json.loads(status.stdout)["answer"]
        second = command("tape-library", str(directory))
        assert second.returncode == Exit.FAILED
        assert "another process" in second.stderr
    gone = command("tape-library-fault", str(directory))
    assert gone.returncode == Exit.FAILED
    assert "no simulated tape library is served" in gone.stderr
    assert "put_in BARCODE ADDRESS [noticed=yes|no]" in command("tape-library-fault", str(directory), "help").stdout


def test_the_words_of_the_addresses_and_a_port_of_choice(tmp_path: Path) -> None:
    (port,) = free_ports(1)
    process = subprocess.Popen(
        [*COMMAND, "simulate", "tape-library", str(tmp_path / "one"), "--port", str(port)],
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        lines = [process.stdout.readline() for _ in range(3)]
        address = f"iscsi://127.0.0.1:{port}/iqn.2026-01.io.rbmedia:simulated"
        assert lines == [f"{name} {address}/{lun}\n" for lun, name in enumerate(("changer", "drive1", "drive2"))]
        taken = command("tape-library", str(tmp_path / "two"), "--port", str(port))
        assert taken.returncode == Exit.FAILED
        assert "--port" in taken.stderr
        assert "Traceback" not in taken.stderr
        process.terminate()
        assert process.wait(40) == 0
    finally:
        process.kill()
        process.communicate()


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (("--slots", "3", "--cartridges", "3"), "do not fit"),
        (("--prefix", "CLN"), "prefix"),
        (("--prefix", "ab"), "prefix"),
        (("--generation", "12"), "LTO-12"),
        (("--slots", "5000"), "at most"),
        (("--capacity-factor", "1e-12"), "1 KiB"),
    ],
)
def test_what_cannot_be_made_is_a_sentence(tmp_path: Path, options: tuple[str, ...], says: str) -> None:
    done = command("tape-library", str(tmp_path / "library"), *options)
    assert done.returncode == Exit.FAILED
    assert says in done.stderr
    assert "Traceback" not in done.stderr


def test_a_directory_is_one_library_and_nothing_else(tmp_path: Path) -> None:
    directory = tmp_path / "library"
    with served(directory, "--slots", "5") as (process, _):
        assert stopped(process, signal.SIGTERM) == 0
    other = command("tape-library", str(directory), "--slots", "6")
    assert other.returncode == Exit.FAILED
    assert "was made with slots 5, not 6" in other.stderr
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "diary").write_text("dear diary")
    foreign = command("tape-library", str(tmp_path / "notes"))
    assert foreign.returncode == Exit.FAILED
    assert "diary" in foreign.stderr
