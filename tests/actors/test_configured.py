"""Keys of the configuration with the real actors and an agent: what they promise happens on the disk and in the queue."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import trio

from actors.protector import Protector
from drivers.volume import set_immutable
from rbcore.commands import ChangeConfiguration, SetServiceMode
from rbcore.entities import Backup, Task
from rbcore.errors import NotAllowedNow
from tests.actors.house import house, start_agent


def filled(path: Path) -> Path:
    path.mkdir()
    for number in range(3):
        (path / f"file-{number}").write_bytes(os.urandom(10_000))
    return path


@pytest.mark.parametrize("zeroing", [True, False])
async def test_delete_archives_with_zeroing(tmp_path: Path, zeroing: bool) -> None:
    async with house(tmp_path) as server, trio.open_nursery() as nursery:
        await server.execute(ChangeConfiguration(changes={"delete_archives_with_zeroing": zeroing}))
        agent = await start_agent(nursery, tmp_path)
        client = await server.authorise(agent.hwid)
        backup = await server.backup(client, filled(tmp_path / "source"))
        files = [one for one in server.pool.rglob("*") if one.is_file() and backup.archive in str(one)]
        assert files
        kept = [tmp_path / f"kept-{number}" for number in range(len(files))]
        for file, link in zip(files, kept, strict=True):
            os.link(file, link)
        await server.delete(backup)
        assert not server.archives_on_disk()
        assert [any(one.read_bytes()) for one in kept] == [not zeroing] * len(kept)
        nursery.cancel_scope.cancel()


async def test_verify_archive_after_creation_and_service_mode(tmp_path: Path) -> None:
    async with house(tmp_path) as server, trio.open_nursery() as nursery:
        await server.execute(ChangeConfiguration(changes={"verify_archive_after_creation": "yes"}))
        agent = await start_agent(nursery, tmp_path)
        client = await server.authorise(agent.hwid)
        data = filled(tmp_path / "source")
        backup = await server.backup(client, data)
        await server.until(lambda: _verified(server.journal.state.find(Backup, backup.id)), "the backup is verified")
        await server.execute(ChangeConfiguration(changes={"verify_archive_after_creation": "no"}))
        await server.execute(SetServiceMode(on=True))
        with pytest.raises(NotAllowedNow, match="service mode"):
            await server.queue_backup(client, data)
        await server.execute(SetServiceMode(on=False))
        again = await server.queue_backup(client, data)
        await server.execute(SetServiceMode(on=True))  # it may be given out already: then it goes on to its end
        await server.execute(SetServiceMode(on=False))
        await server.done(again)
        assert {one.status for one in server.journal.state.all(Task)} == {"Done"}
        nursery.cancel_scope.cancel()


def _verified(backup: Backup | None) -> bool:
    return backup is not None and backup.verification_status == "Trusted"


async def test_immutable_archives(tmp_path: Path) -> None:
    """Set when a backup is recorded, lifted when the key says no, set again, and no hindrance for a deletion."""
    probe = tmp_path / "probe"
    probe.write_text("")
    try:
        set_immutable(str(probe), on=True)
    except OSError as error:
        pytest.skip(f"no immutable files here ({error.strerror}): it takes root and a file system that knows them")
    set_immutable(str(probe), on=False)
    async with house(tmp_path) as server, trio.open_nursery() as nursery:
        agent = await start_agent(nursery, tmp_path)
        client = await server.authorise(agent.hwid)
        backup = await server.backup(client, filled(tmp_path / "source"))
        protector = Protector(server.journal, server.actors.storages, server.world)
        try:
            for on in (True, False, True):
                await server.execute(ChangeConfiguration(changes={"immutable_archives": on}))
                await protector.align()
                assert {_is_immutable(one) for one in server.pool.rglob("*.rbc")} == {on}
            restarted = Protector(server.journal, server.actors.storages, server.world)
            await restarted.align()
            assert {_is_immutable(one) for one in server.pool.rglob("*.rbc")} == {True}
            await server.delete(backup)
            assert not server.archives_on_disk()
            await protector.align()
        finally:
            for one in server.pool.rglob("*"):
                if one.is_file():
                    set_immutable(str(one), on=False)
        nursery.cancel_scope.cancel()


def _is_immutable(file: Path) -> bool:
    """As root nothing but the attribute keeps a file from being opened for writing."""
    try:
        file.open("r+b").close()
    except PermissionError:
        return True
    return False
