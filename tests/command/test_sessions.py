"""The file of logins: private, one login per daemon, and unharmed by whatever stands in it."""

from __future__ import annotations

import stat
from pathlib import Path

from rbmedia.endpoint import Endpoint, read_endpoint
from rbmedia.sessions import Session, SessionFile


def session(url: str, user: str = "rubackup") -> Session:
    return Session(url=url, user=user, access_token="a", refresh_token="r", csrf_token="c", ca_certificate="/ca.pem")


def test_logins_are_kept_per_daemon_and_only_for_their_owner(tmp_path: Path) -> None:
    file = SessionFile(tmp_path / "state" / "session.json")
    file.save(session("https://one:1"))
    file.save(session("https://two:2"))
    file.save(session("https://one:1", user="other"))
    assert file.find("https://one:1") == session("https://one:1", user="other")
    assert file.last() == session("https://one:1", user="other")
    file.forget("https://one:1")
    assert file.find("https://one:1") is None
    assert file.last() == session("https://two:2")
    assert stat.S_IMODE(file.path.stat().st_mode) == 0o600
    assert stat.S_IMODE(file.path.parent.stat().st_mode) == 0o700


def test_a_damaged_file_means_that_nobody_is_logged_in(tmp_path: Path) -> None:
    file = SessionFile(tmp_path / "session.json")
    file.path.write_bytes(b'{"https://one:1": {"url"')
    assert file.last() is None
    file.save(session("https://one:1"))
    assert file.find("https://one:1") == session("https://one:1")


def test_the_endpoint_file_is_read_back_or_not_at_all(tmp_path: Path) -> None:
    endpoint = Endpoint(
        url="https://localhost:1",
        server_host="localhost",
        control_port=2,
        data_port=3,
        process=4,
        ca_certificate="/ca.pem",
        ca_fingerprint="ab",
    )
    path = tmp_path / "daemon.json"
    assert read_endpoint(path) is None
    endpoint.write(path)
    assert read_endpoint(path) == endpoint
    path.write_text("{}")
    assert read_endpoint(path) is None
