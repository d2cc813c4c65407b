"""Agents and daemons that die at any moment, strangers on the data channel, operators who change their mind."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
import trio

from actors import data_channel, storage
from actors.agent import identity
from actors.framing import DataChannel
from actors.network import ClientNetwork
from actors.works import digest_of
from rbcore.commands import ContinueTask, PauseTask
from rbcore.entities import Backup, Client
from rbcore.errors import RbError, StorageFull, Unavailable
from rbcore.messages import Attach, Blocks, EndOfBlocks, FetchTrailer, Refusal
from tests.actors.house import House, house, start_agent
from tests.actors.trees import describe, make_tree


def _check_backups(daemon: House) -> None:
    """What the repository offers is on the disk, and nothing else under a final name."""
    offered = {one.archive for one in daemon.journal.state.all(Backup)}
    there = {path.name for path in daemon.pool.glob("??/*") if len(path.name) == 32}
    assert offered <= there
    assert not there - offered - {one.archive for one in daemon.journal.state.active_tasks()}


@pytest.mark.parametrize("seed", range(4))
async def test_an_agent_that_dies_again_and_again(tmp_path: Path, seed: int) -> None:
    draw = random.Random(seed)
    source = make_tree(tmp_path / "source", seed, files=60, large_bytes=12_000_000)
    async with house(tmp_path) as daemon, trio.open_nursery() as nursery:
        agent = await start_agent(nursery, tmp_path)
        client = await daemon.authorise(agent.hwid)
        task_id = await daemon.queue_backup(client, source, crypto="AES-256-GCM")
        for _ in range(5):
            await trio.sleep(draw.random() * 0.25)
            agent.stop()
            agent = await start_agent(nursery, tmp_path)
        backup = daemon.backup_of(await daemon.done(task_id))
        restore = await daemon.queue_restore(backup, tmp_path / "restored")
        for _ in range(3):
            await trio.sleep(draw.random() * 0.25)
            agent.stop()
            agent = await start_agent(nursery, tmp_path)
        await daemon.done(restore)
        assert describe(tmp_path / "restored") == describe(source)
        assert (await daemon.verify(backup)).verification_status == "Trusted"
        _check_backups(daemon)
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize("seed", range(4))
async def test_a_daemon_that_dies_again_and_again(tmp_path: Path, seed: int) -> None:
    """The daemon is cancelled at random moments and started over the same directories; the agent lives on."""
    draw = random.Random(seed)
    source = make_tree(tmp_path / "source", seed, files=60, large_bytes=12_000_000)
    async with trio.open_nursery() as nursery:
        async with house(tmp_path) as daemon:
            agent = await start_agent(nursery, tmp_path)
            client = await daemon.authorise(agent.hwid)
        task_ids: list[int] = []
        recorded: set[str] = set()
        for _ in range(5):
            async with house(tmp_path) as daemon:
                known = {one.archive for one in daemon.journal.state.all(Backup)}
                assert recorded <= known, "what was acknowledged is there"
                task_ids.append(await daemon.queue_backup(client, source))
                await trio.sleep(draw.random() * 1.5)
                recorded = {one.archive for one in daemon.journal.state.all(Backup)}
        async with house(tmp_path) as daemon:
            await daemon.online(agent.hwid)
            for task_id in task_ids:
                await daemon.done(task_id)
            backups = list(daemon.journal.state.all(Backup))
            assert len(backups) == len(task_ids)
            for backup in backups:
                assert (await daemon.verify(backup)).verification_status == "Trusted"
            await daemon.restore(backups[-1], tmp_path / "restored")
            assert describe(tmp_path / "restored") == describe(source)
            _check_backups(daemon)
        nursery.cancel_scope.cancel()


async def test_a_killed_backup_leaves_nothing(tmp_path: Path) -> None:
    source = make_tree(tmp_path / "source", large_bytes=60_000_000)
    async with house(tmp_path) as daemon, trio.open_nursery() as nursery:
        agent = await start_agent(nursery, tmp_path)
        client = await daemon.authorise(agent.hwid)
        task_id = await daemon.queue_backup(client, source)
        await daemon.until(lambda: daemon.task(task_id).status == "Transmission", "bytes flow")
        task = await daemon.kill(task_id)
        assert task.status == "Killed"
        with trio.fail_after(20):
            while list(daemon.pool.glob("??/*")):  # noqa: ASYNC110  (a directory has no event)
                await trio.sleep(0.05)
        assert not list(daemon.journal.state.all(Backup))
        nursery.cancel_scope.cancel()


async def test_a_paused_backup_goes_on(tmp_path: Path) -> None:
    source = make_tree(tmp_path / "source", large_bytes=60_000_000)
    async with house(tmp_path) as daemon, trio.open_nursery() as nursery:
        agent = await start_agent(nursery, tmp_path)
        client = await daemon.authorise(agent.hwid)
        task_id = await daemon.queue_backup(client, source)
        await daemon.until(lambda: daemon.task(task_id).status == "Transmission", "bytes flow")
        await daemon.execute(PauseTask(task_id=task_id))
        await trio.sleep(0.5)
        if daemon.task(task_id).status == "Paused":
            await daemon.execute(ContinueTask(task_id=task_id))
        backup = daemon.backup_of(await daemon.done(task_id))
        assert (await daemon.verify(backup)).verification_status == "Trusted"
        nursery.cancel_scope.cancel()


async def test_a_stolen_hwid_is_refused(tmp_path: Path) -> None:
    async with house(tmp_path) as daemon, trio.open_nursery() as nursery:
        agent = await start_agent(nursery, tmp_path)
        client = await daemon.authorise(agent.hwid)
        await start_agent(nursery, tmp_path, "thief", hwid=agent.hwid)
        await daemon.until(
            lambda: any(one.type == "client.refused" for one in daemon.journal.log.read()), "the refusal is recorded"
        )
        found = daemon.journal.state.find(Client, client.id)
        assert found is not None
        assert found.online
        assert found.public_key == agent.identity.public_key.hex()
        nursery.cancel_scope.cancel()


async def test_a_full_pool_suspends_and_resumes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = make_tree(tmp_path / "source")
    full = True
    write = storage.CatalogWriter.write

    async def maybe_full(self: storage.CatalogWriter, pieces: object, *, sync: bool) -> int:
        if full:
            raise StorageFull("The pool's volume has no room.")
        return await write(self, pieces, sync=sync)  # type: ignore[arg-type]

    monkeypatch.setattr(storage.CatalogWriter, "write", maybe_full)
    monkeypatch.setattr(data_channel, "STORAGE_RETRY_SECONDS", 0.2)
    async with house(tmp_path) as daemon, trio.open_nursery() as nursery:
        agent = await start_agent(nursery, tmp_path)
        client = await daemon.authorise(agent.hwid)
        task_id = await daemon.queue_backup(client, source)
        await daemon.until(
            lambda: daemon.task(task_id).status == "Suspended" and "no room" in daemon.task(task_id).status_reason,
            "the task waits for room",
        )
        full = False
        await daemon.done(task_id)
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize(
    "rubbish",
    [
        b"",
        b"\0" * 8,
        b"\xff" * 64,
        b"GET / HTTP/1.1\r\n\r\n",
        b"\x04\0\0\0\0\0\0\0\x81\xa1t\xc1",
        b"\x01\0\0\0\0\0\0\x01\xc1",
    ],
)
async def test_strangers_on_the_data_channel_cost_one_connection(tmp_path: Path, rubbish: bytes) -> None:
    source = make_tree(tmp_path / "source")
    async with house(tmp_path) as daemon, trio.open_nursery() as nursery:
        network = ClientNetwork((tmp_path / "pki" / "ca.pem").read_text())
        stream = await network.dial_data("127.0.0.1", daemon.actors.data_port)
        await stream.send_all(rubbish)
        await trio.aclose_forcefully(stream)
        stranger = DataChannel(await network.dial_data("127.0.0.1", daemon.actors.data_port))
        await stranger.send(Attach(protocol=1, transfer_token=b"x" * 32))
        with pytest.raises(Unavailable):
            await stranger.receive()
        plain = await trio.open_tcp_stream("127.0.0.1", daemon.actors.data_port)
        await plain.send_all(rubbish or b"\0")
        await plain.aclose()
        agent = await start_agent(nursery, tmp_path)
        client = await daemon.authorise(agent.hwid)
        await daemon.backup(client, source)
        nursery.cancel_scope.cancel()


async def test_a_client_reads_only_what_its_task_is_about(tmp_path: Path) -> None:
    source = make_tree(tmp_path / "source")
    async with house(tmp_path) as daemon, trio.open_nursery() as nursery:
        agent = await start_agent(nursery, tmp_path)
        client = await daemon.authorise(agent.hwid)
        mine, other = await daemon.backup(client, source), await daemon.backup(client, source)
        works = daemon.actors.works
        _, token = works.begin(
            "listing",
            task_id=0,
            client_id=client.id,
            archive=mine.archive,
            readable={mine.archive: mine},
        )
        network = ClientNetwork((tmp_path / "pki" / "ca.pem").read_text())
        channel = DataChannel(await network.dial_data("127.0.0.1", daemon.actors.data_port))
        await channel.send(Attach(protocol=1, transfer_token=token))
        await channel.receive()
        await channel.send(FetchTrailer(archive=mine.archive))
        blocks, payload = await channel.receive()
        assert isinstance(blocks, Blocks)
        assert payload
        assert isinstance((await channel.receive())[0], EndOfBlocks)
        await channel.send(FetchTrailer(archive=other.archive))
        refused, _ = await channel.receive()
        assert isinstance(refused, Refusal)
        assert refused.failure.code == "not_found"
        assert works.claim(token) is None, "a token is good for one attachment"
        assert digest_of(token) != token
        nursery.cancel_scope.cancel()


def test_an_identity_is_made_once_and_never_replaced(tmp_path: Path) -> None:
    from drivers.world import KernelRandomness

    first = identity.open_identity(tmp_path / "a", KernelRandomness())
    assert identity.open_identity(tmp_path / "a", KernelRandomness()) == first
    assert identity.open_identity(tmp_path / "b", KernelRandomness()).hwid != first.hwid
    for name in ("identity.key", "master-key"):
        assert (tmp_path / "a" / name).stat().st_mode & 0o777 == 0o600
        assert len((tmp_path / "a" / name).read_bytes()) == 32
    (tmp_path / "a" / "master-key").write_bytes(b"short")
    with pytest.raises(RbError, match="put the copy back"):
        identity.open_identity(tmp_path / "a", KernelRandomness())
    assert "master" not in repr(first)
