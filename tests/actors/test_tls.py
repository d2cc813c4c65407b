"""The private authority: made once, its server certificate renewed when due, nobody else trusted."""

from __future__ import annotations

import contextlib
import ssl
from pathlib import Path

import pytest
import trio

from actors.link import LinkClosed
from actors.network import ClientNetwork, ServerNetwork
from drivers.tls import SERVER_NAME, client_context, fetch_authority, open_authority
from drivers.world import WallClock
from rbcore.errors import AuthenticationFailed, Unavailable

DAY_NS = 86_400 * 10**9


def test_everything_is_made_once_and_private(tmp_path: Path) -> None:
    now_ns = WallClock().now_ns()
    first = open_authority(tmp_path / "pki", now_ns)
    before = {path.name: path.read_bytes() for path in (tmp_path / "pki").iterdir()}
    second = open_authority(tmp_path / "pki", now_ns)
    assert {path.name: path.read_bytes() for path in (tmp_path / "pki").iterdir()} == before
    assert first.fingerprint == second.fingerprint
    assert all(path.stat().st_mode & 0o077 == 0 for path in (tmp_path / "pki").iterdir())


def test_the_server_certificate_is_renewed_when_it_is_due_and_the_authority_stays(tmp_path: Path) -> None:
    now_ns = WallClock().now_ns()
    authority = open_authority(tmp_path, now_ns)
    fingerprint, certificate = authority.fingerprint, authority.server_certificate_path.read_bytes()
    open_authority(tmp_path, now_ns + 700 * DAY_NS)
    assert authority.server_certificate_path.read_bytes() == certificate
    open_authority(tmp_path, now_ns + 800 * DAY_NS)
    assert authority.server_certificate_path.read_bytes() != certificate
    assert authority.fingerprint == fingerprint


@pytest.mark.parametrize("lost", ["server.key", "server.pem"])
def test_a_crash_between_certificate_and_key_is_mended(tmp_path: Path, lost: str) -> None:
    now_ns = WallClock().now_ns()
    other = open_authority(tmp_path / "other", now_ns)
    authority = open_authority(tmp_path / "pki", now_ns)
    fingerprint = authority.fingerprint
    (tmp_path / "pki" / lost).write_bytes((tmp_path / "other" / lost).read_bytes())
    authority = open_authority(tmp_path / "pki", now_ns)
    authority.server_context()
    assert authority.fingerprint == fingerprint != other.fingerprint


def test_further_names_make_a_new_certificate(tmp_path: Path) -> None:
    now_ns = WallClock().now_ns()
    authority = open_authority(tmp_path, now_ns)
    certificate = authority.server_certificate_path.read_bytes()
    open_authority(tmp_path, now_ns, ["backup.example", "192.0.2.7"])
    assert authority.server_certificate_path.read_bytes() != certificate


async def test_only_this_authority_is_trusted(tmp_path: Path) -> None:
    now_ns = WallClock().now_ns()
    authority, other = open_authority(tmp_path / "a", now_ns), open_authority(tmp_path / "b", now_ns)

    async def handler(stream: trio.abc.Stream, address: str) -> None:
        with contextlib.suppress(trio.BrokenResourceError):
            await stream.send_all(b"hello")
            await stream.receive_some(1)

    async with trio.open_nursery() as nursery:
        port: int = await nursery.start(ServerNetwork(authority).serve_data, "127.0.0.1", 0, handler)
        stream = await ClientNetwork(authority.certificate_pem).dial_data("127.0.0.1", port)
        assert await stream.receive_some(5) == b"hello"
        await trio.aclose_forcefully(stream)
        with pytest.raises(LinkClosed):
            await ClientNetwork(other.certificate_pem).dial_data("127.0.0.1", port)

        fetched = await trio.to_thread.run_sync(fetch_authority, "127.0.0.1", port, authority.fingerprint.upper())
        assert fetched == authority.certificate_pem
        with pytest.raises(AuthenticationFailed, match="wrong daemon"):
            await trio.to_thread.run_sync(fetch_authority, "127.0.0.1", port, other.fingerprint)
        nursery.cancel_scope.cancel()
    with pytest.raises(Unavailable):
        fetch_authority("127.0.0.1", port, authority.fingerprint)


def test_old_tls_is_refused(tmp_path: Path) -> None:
    authority = open_authority(tmp_path, WallClock().now_ns())
    assert authority.server_context().minimum_version == ssl.TLSVersion.TLSv1_3
    assert client_context(authority.certificate_pem).verify_mode == ssl.CERT_REQUIRED
    assert client_context(authority.certificate_pem).check_hostname
    assert SERVER_NAME == "rbmedia.daemon"
