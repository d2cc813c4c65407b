"""The offline tools on a real home: beside the running daemon, after it, and on a home that somebody has tampered with."""

from __future__ import annotations

import shutil
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from rbmedia.client import RestClient
from rbmedia.exits import Exit
from tests.end_to_end.installation import Installation, installed
from tests.end_to_end.test_main_job import back_up


def test_everything_can_be_checked_beside_a_running_daemon(
    running: Installation, rest: RestClient, protected: str, tree: Path, tmp_path: Path
) -> None:
    back_up(rest, protected, tree)
    report = running.json("audit", "verify")
    assert report["findings"] == []
    assert running.json("views", "verify")["equal"] is True
    until = report["events"]
    folded = running.json("replay", "--until", str(until))
    assert (folded["position"], folded["events"]) == (until, until)
    export = tmp_path / "log.export"
    assert running.json("audit", "export", str(export), "--until", str(until))["root"] == report["root"]
    other = str(tmp_path / "other")
    assert running.json("audit", "import", str(export), "--home", other)["root"] == report["root"]
    assert running.json("replay", "--home", other)["digest"] == folded["digest"]
    assert running.command("audit", "export", str(export)).returncode == Exit.USAGE


def test_a_rebuild_of_the_views_is_taken_up_by_the_running_daemon(
    running: Installation, rest: RestClient, protected: str, tree: Path
) -> None:
    before = list(rest.rows("/repository"))
    assert running.command("views", "rebuild").returncode == 0
    assert list(rest.rows("/repository")) == before
    back_up(rest, protected, tree)
    assert len(list(rest.rows("/repository"))) == len(before) + 1


def test_a_proof_is_checked_by_one_file_and_a_bare_interpreter(tmp_path: Path) -> None:
    with installed(tmp_path) as installation:
        installation.start()
        assert installation.stop() == 0
        proof, verifier = tmp_path / "proof.json", tmp_path / "verifier.py"
        assert installation.command("audit", "prove", "1", "--output", str(proof)).returncode == 0
        verifier.write_text(installation.command("audit", "verifier").stdout)
        check = [sys.executable, "-I", "-S", str(verifier), str(proof)]
        assert subprocess.run(check, check=False, capture_output=True).returncode == 0
        text = proof.read_text()
        number = text.index('"payload"') + 30
        proof.write_text(text[:number] + ("0" if text[number] != "0" else "1") + text[number + 1 :])
        assert subprocess.run(check, check=False, capture_output=True).returncode != 0


@pytest.fixture(scope="module")
def stopped(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home with a short history whose daemon has ended."""
    folder = tmp_path_factory.mktemp("stopped")
    with installed(folder) as installation:
        installation.start()
        assert installation.stop() == 0
    return folder / "home"


def copied(stopped: Path, tmp_path: Path) -> Installation:
    shutil.copytree(stopped, tmp_path / "home", symlinks=True)
    return Installation(tmp_path)


def test_a_changed_byte_in_the_log_is_found(stopped: Path, tmp_path: Path) -> None:
    installation = copied(stopped, tmp_path)
    data = installation.home.log / "data.mdb"
    raw = data.read_bytes()
    word = b"media_server/1"
    assert raw.count(word) >= 1
    data.write_bytes(raw.replace(word, b"media_server/2"))
    done = installation.command("audit", "verify")
    assert done.returncode == Exit.DAMAGE
    assert "DAMAGE" in done.stdout
    assert "Traceback" not in done.stderr
    start = installation.command("serve", "--port", "0", "--control-port", "0", "--data-port", "0")
    assert start.returncode in (Exit.FAILED, Exit.DAMAGE)
    assert "Traceback" not in start.stderr


def test_a_changed_row_in_the_views_is_found_and_mended(stopped: Path, tmp_path: Path) -> None:
    installation = copied(stopped, tmp_path)
    file = installation.home.views / "views.sqlite"
    with sqlite3.connect(file.resolve()) as connection:
        assert connection.execute("UPDATE pool_list SET description = 'tampered'").rowcount
    connection.close()
    assert installation.command("views", "verify").returncode == Exit.DAMAGE
    assert installation.command("views", "rebuild").returncode == 0
    assert installation.command("views", "verify").returncode == 0


def test_a_home_without_a_log_is_a_usage_error(tmp_path: Path) -> None:
    installation = Installation(tmp_path)
    for command in (["replay"], ["views", "verify"]):
        assert installation.command(*command).returncode == Exit.USAGE
    assert installation.command("audit", "verify").returncode == Exit.FAILED
