"""The two programs as processes: what they print and log, how they start and stop, and that no child outlives its parent."""

from __future__ import annotations

import re
import signal
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from rbmedia import companion
from rbmedia.endpoint import read_endpoint
from rbmedia.exits import CommandFailed, Exit
from rbmedia.settings import Home
from tests.end_to_end.installation import PASSWORD, Installation, installed, until

ANY_PORTS = ("--port", "0", "--control-port", "0", "--data-port", "0")


@pytest.fixture
def installation(tmp_path: Path) -> Installation:
    return Installation(tmp_path)


def serve_once(installation: Installation, *options: str, **variables: str) -> str:
    """Start a daemon, wait until it answers, stop it in order; everything it printed."""
    environment = {**installation.environment, **variables}
    child = subprocess.Popen(
        [sys.executable, "-m", "rbmedia", "serve", *ANY_PORTS, *options],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        until(lambda: read_endpoint(installation.home.daemon_file) or child.poll() is not None, "no answer")
        child.terminate()
        printed, _ = child.communicate(timeout=40)
    finally:
        child.kill()
    assert child.returncode == 0, printed
    return printed


def test_a_drawn_password_is_printed_once_and_is_the_right_one(installation: Installation) -> None:
    printed = serve_once(installation, RBMEDIA_SUPERUSER_PASSWORD="")
    (password,) = re.findall(r"password (\S+)", printed)
    assert "password" not in serve_once(installation, RBMEDIA_SUPERUSER_PASSWORD="")
    for path in installation.home.messages.rglob("*"):
        assert path.is_dir() or password not in path.read_text()
    installation.start()
    try:
        installation.client().login("rubackup", password)
        with pytest.raises(CommandFailed):
            installation.client().login("rubackup", PASSWORD)
    finally:
        installation.close()


def test_a_password_can_come_from_a_file_and_is_kept_over_restarts(installation: Installation, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("from a file\n")
    file = {"RBMEDIA_SUPERUSER_PASSWORD": "", "RBMEDIA_SUPERUSER_PASSWORD_FILE": str(secret)}
    assert "from a file" not in serve_once(installation, **file)
    installation.start()
    try:
        installation.client().login("rubackup", "from a file")
    finally:
        installation.close()


def test_nothing_secret_is_logged_and_private_things_are_private(tmp_path: Path) -> None:
    with installed(tmp_path) as installation:
        installation.start("--with-agent")
        rest = installation.client()
        data = rest.login("rubackup", PASSWORD).data
        installation.authorised_client(rest)
        assert installation.stop() == 0
        logged = "".join(path.read_text() for path in installation.home.path.rglob("*.log")) + installation.console(
            "daemon"
        )
        for secret in (PASSWORD, data["access_token"], data["refresh_token"], data["csrf_token"]):
            assert secret not in logged
        for path in (installation.home.secrets, installation.home.pki, installation.home.agent, installation.home.log):
            assert stat.S_IMODE(path.stat().st_mode) == 0o700
        for path in (installation.home.secrets, installation.home.agent):
            for one in path.rglob("*"):
                assert one.is_dir() or "messages" in one.parts or not one.stat().st_mode & 0o077, one


def test_an_orderly_stop_leaves_nothing_running(tmp_path: Path) -> None:
    with installed(tmp_path) as installation:
        installation.start("--with-agent")
        installation.authorised_client(installation.client())
        assert installation.stop() == 0
        assert not installation.home.daemon_file.exists()
        assert not processes_of(installation.home)


def test_no_child_outlives_a_killed_parent(tmp_path: Path) -> None:
    with installed(tmp_path) as installation:
        installation.start("--with-agent")
        installation.authorised_client(installation.client())
        assert installation.daemon is not None
        installation.kill(installation.daemon)
        until(lambda: not processes_of(installation.home), "the agent is still there")


def test_a_second_agent_on_the_same_directory_is_refused(running: Installation, protected: str) -> None:
    done = running.command("agent", "--until-stdin-closes")
    assert done.returncode == Exit.FAILED or "stopping" in done.stderr


def test_a_bad_setting_is_a_sentence(running: Installation) -> None:
    done = running.command("serve", APP_PORT="70000")
    assert done.returncode == Exit.USAGE
    assert "APP_PORT" in done.stderr
    assert "0 to 65535" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_port_that_is_taken_is_a_sentence(running: Installation, tmp_path: Path) -> None:
    endpoint = read_endpoint(running.home.daemon_file)
    assert endpoint is not None
    port = endpoint.url.rpartition(":")[2]
    done = Installation(tmp_path).command("serve", "--port", port, "--control-port", "0", "--data-port", "0")
    assert done.returncode == Exit.FAILED
    assert "in use" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_companion_is_told_when_its_parent_goes(tmp_path: Path) -> None:
    with open(tmp_path / "console", "wb") as output:
        environment = Installation(tmp_path).environment
        child = companion.start(["serve", *ANY_PORTS, "--until-stdin-closes"], output=output, environment=environment)
    until(lambda: read_endpoint(Home(tmp_path / "home").daemon_file), "no answer")
    assert child.stdin is not None
    child.stdin.close()
    assert child.wait(30) == 0
    child.send_signal(signal.SIGTERM)


def processes_of(home: Home) -> list[str]:
    """Processes of this command that have the home in their environment."""
    found = []
    for folder in Path("/proc").iterdir():
        if not folder.name.isdigit():
            continue
        try:
            words = (folder / "cmdline").read_bytes().split(b"\0")
            environment = (folder / "environ").read_bytes().split(b"\0")
        except OSError:
            continue
        if b"rbmedia" in words and f"RBMEDIA_HOME={home.path}".encode() in environment:
            found.append(b" ".join(words).decode())
    return found
