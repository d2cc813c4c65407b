"""Agent and daemon over real sockets, real TLS, a real log and real directories."""

from __future__ import annotations

from pathlib import Path

import pytest
import trio

from rbcore.messages import ListFilesystem
from tests.actors.house import house, start_agent
from tests.actors.trees import describe, make_tree


@pytest.mark.parametrize("crypto", ["nocrypt", "AES-256-GCM"])
async def test_what_is_restored_is_what_was_backed_up(tmp_path: Path, crypto: str) -> None:
    source = make_tree(tmp_path / "source")
    async with house(tmp_path) as daemon, trio.open_nursery() as nursery:
        agent = await start_agent(nursery, tmp_path)
        client = await daemon.authorise(agent.hwid)
        full = await daemon.backup(client, source, crypto=crypto)
        assert full.backup_type == "full"
        assert full.signature_valid
        await daemon.restore(full, tmp_path / "restored")
        assert describe(tmp_path / "restored") == describe(source)
        (source / "d0/e0/f0").write_bytes(b"changed")
        (source / "new").write_bytes(b"new")
        (source / "d2/e2/f2").unlink()
        incremental = await daemon.backup(client, source, crypto=crypto, backup_type="incremental")
        assert (incremental.backup_type, incremental.ref_id) == ("incremental", full.id)
        assert incremental.archive_size < full.archive_size / 2
        await daemon.restore(incremental, tmp_path / "again")
        assert describe(tmp_path / "again") == describe(source)
        assert (await daemon.verify(full)).verification_status == "Trusted"
        assert (await daemon.verify(incremental)).verification_status == "Trusted"
        names = await daemon.actors.contents.list_names(full.id, "d0", 1000)
        assert names[0]["path"] == "d0"
        assert {"d0/e0", "d0/e0/f0"} <= {row["path"] for row in names}
        assert all(row["path"].startswith("d0") for row in names)
        await daemon.delete(full)
        assert daemon.archives_on_disk() == set()
        nursery.cancel_scope.cancel()


async def test_single_files_are_restored(tmp_path: Path) -> None:
    source = make_tree(tmp_path / "source")
    async with house(tmp_path) as daemon, trio.open_nursery() as nursery:
        agent = await start_agent(nursery, tmp_path)
        client = await daemon.authorise(agent.hwid)
        backup = await daemon.backup(client, source)
        await daemon.restore(backup, tmp_path / "restored", ["d1"])
        wanted = {path: facts for path, facts in describe(source).items() if path.split(b"/")[0] == b"d1"}
        assert describe(tmp_path / "restored") == wanted
        nursery.cancel_scope.cancel()


async def test_two_agents_on_one_host(tmp_path: Path) -> None:
    first, second = make_tree(tmp_path / "s1", 1), make_tree(tmp_path / "s2", 2)
    async with house(tmp_path) as daemon, trio.open_nursery() as nursery:
        one, two = await start_agent(nursery, tmp_path, "one"), await start_agent(nursery, tmp_path, "two")
        assert one.hwid != two.hwid
        clients = [await daemon.authorise(one.hwid), await daemon.authorise(two.hwid)]
        tasks = [
            await daemon.queue_backup(client, source) for client, source in zip(clients, (first, second), strict=True)
        ]
        backups = [daemon.backup_of(await daemon.done(task)) for task in tasks]
        for backup, source, client in zip(backups, (first, second), clients, strict=True):
            assert backup.client_id == client.id
            await daemon.restore(backup, tmp_path / f"r{client.id}")
            assert describe(tmp_path / f"r{client.id}") == describe(source)
        listing = await daemon.actors.sessions.ask(clients[0].id, ListFilesystem(path=str(first)), 10)
        assert {"d0", "large"} <= {row["name"] for row in listing.rows}
        nursery.cancel_scope.cancel()


async def test_the_authority_is_fetched_by_its_fingerprint(tmp_path: Path) -> None:
    async with house(tmp_path) as daemon, trio.open_nursery() as nursery:
        from drivers.tls import fingerprint_of

        fingerprint = fingerprint_of((tmp_path / "pki" / "ca.pem").read_text())
        agent = await start_agent(nursery, tmp_path, ca_certificate=None, ca_fingerprint=fingerprint)
        await daemon.authorise(agent.hwid)
        assert (tmp_path / "agent" / "ca.pem").read_text() == (tmp_path / "pki" / "ca.pem").read_text()
        nursery.cancel_scope.cancel()


async def test_module_parameters_reach_the_agent(tmp_path: Path) -> None:
    """As they stand in the manual's body: the script before the backup runs, on the client, and its output is in the journal."""
    source = make_tree(tmp_path / "source")
    script = tmp_path / "before.sh"
    script.write_text(f"#!/bin/sh\necho frozen; date > {source}/from-the-script\n")
    script.chmod(0o700)
    async with house(tmp_path) as daemon, trio.open_nursery() as nursery:
        agent = await start_agent(nursery, tmp_path)
        client = await daemon.authorise(agent.hwid)
        task_id = await daemon.queue_backup(
            client, source, extensions={"script_before_snapshot": str(script), "worker_parallelism": 1}
        )
        backup = daemon.backup_of(await daemon.done(task_id))
        assert any("frozen" in line for line in daemon.notes(task_id))
        await daemon.restore(backup, tmp_path / "restored")
        assert (tmp_path / "restored" / "from-the-script").exists()
        nursery.cancel_scope.cancel()
