"""A history: what operators, hosts and bad luck do to a simulated site, drawn from the seed, and what must come of it.

The oracle is simple on purpose. While a host's tree is being backed up it does not change, so when a backup of it appears its
content is known, and whatever is restored from that backup, ever, must be exactly that.
"""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

import trio

from drivers.simulated.file_tree import SimulatedTrees
from rbcore.archive.model import EntryType
from rbcore.commands import (
    AuthoriseClients,
    ContinueTask,
    DeleteBackups,
    KillTask,
    PauseTask,
    QueueBackup,
    QueueCopy,
    QueueRestore,
    QueueVerification,
    Reply,
    RestartTasks,
)
from rbcore.entities import Backup, Client, Task, UnauthorisedClient
from rbcore.errors import RbError
from rbcore.vocabulary import BACKUP_TASKS, TERMINAL_STATUSES, TaskStatus, VerificationStatus
from rbmedia.simulation.faults import CALM, STORMY, Scenario
from rbmedia.simulation.invariants import Broken, Watch
from rbmedia.simulation.site import SECOND_POOL, Host, ProcessGone, Site
from rbmedia.simulation.tape import TAPE_POOL
from rbmedia.simulation.trace import Trace

SOURCE = "/data"
STEP_SECONDS = 20.0
SETTLE_SECONDS = 4 * 3600.0
POLL_SECONDS = 0.5
SWEEP_SECONDS = 60.0
"""A daemon sweeps when it starts; after that long it has."""
ROOMY_BYTES = 1 << 40
DAY_NS = 24 * 3600 * 10**9
NAMES = ("a", "b", "c", "d.txt", "\udcff\udcfe", "with space", "x" * 60)
"""Names of files in the trees; one is not UTF-8."""
DIRECTORIES = ("one", "two", "\udce4")


@dataclass(slots=True, eq=False)
class History:
    """One simulated history. ``run`` returns when everything has been checked; ``Broken`` when something does not hold."""

    site: Site
    scenario: Scenario
    draw: random.Random
    trace: Trace
    watch: Watch = field(default_factory=Watch)
    contents: dict[str, dict[str, Any]] = field(default_factory=dict)
    """Archive -> what its host's tree held."""
    archives_ever: dict[int, str] = field(default_factory=dict)
    """Backup -> archive, also of backups that are deleted by now."""
    commands: int = 0
    restores: dict[int, tuple[Host, str, int]] = field(default_factory=dict)
    """Restore task -> host, destination, backup."""
    restored: int = 0
    finished: bool = False
    crash_countdown: int = -1
    """Disk operations until the daemon crashes in the middle of one; -1: not planned."""

    async def run(self) -> None:
        for host in self.site.hosts:
            for _ in range(6):
                self._change_tree(host)
        for volume in self.site.volumes.values():
            volume.before_each = self._before_disk_operation
        async with trio.open_nursery() as nursery:
            await self.site.run(nursery)
            nursery.start_soon(self._observe)
            if self.site.tape is not None:
                await self.site.tape.install(self.site)
            await self._authorise_all()
            for _ in range(self.scenario.steps):
                await self._step()
                await trio.sleep(self.draw.uniform(0.0, STEP_SECONDS))
            await self._mend()
            await self._settle()
            await self._restore_everything()
            await self._rest()
            self._look()
            self.watch.check_end(self.site)
            self.finished = True
            nursery.cancel_scope.cancel()

    # --- looking ----------------------------------------------------------------------------------------------------------

    async def _observe(self) -> None:
        while True:
            await trio.sleep(POLL_SECONDS)
            self._look()

    def _look(self) -> None:
        before = self.watch.state.position
        for line in self.watch.fold(self.site):
            self.trace.note("log", line)
        self._note_contents()
        if self.watch.state.position != before:
            if self.site.daemon is not None:
                self.watch.check_journal(self.site.daemon)
            self.watch.check(self.site)
            self._check_verifications()
            self._check_restores()

    def _check_verifications(self) -> None:
        for backup in self.watch.state.all(Backup):
            if backup.verification_status not in (VerificationStatus.NOT_VERIFIED, VerificationStatus.TRUSTED):
                raise Broken(f"backup {backup.id} was found {backup.verification_status}: {backup.findings}")

    # --- steps ------------------------------------------------------------------------------------------------------------

    async def _step(self) -> None:
        scenario = self.scenario
        weights = {
            "work": scenario.work,
            "orders": scenario.orders,
            "cartridge_orders": scenario.cartridge_orders,
            "library_fault": scenario.library_fault,
            "daemon_crash": scenario.daemon_crash,
            "agent_crash": scenario.agent_crash,
            "network": scenario.network,
            "cut": scenario.cut,
            "pool_full": scenario.pool_full,
            "log_full": scenario.log_full,
            "clock_jump": scenario.clock_jump,
        }
        name = self.draw.choices(list(weights), list(weights.values()))[0]
        step: Callable[[], Awaitable[None]] = getattr(self, f"_{name}")
        await step()
        self._look()

    async def _work(self) -> None:
        kinds = {"backup": 5, "restore": 2, "verify": 2, "delete": 1, "tree": 3, "copy": 2, "move": 2}
        kind = self.draw.choices(list(kinds), list(kinds.values()))[0]
        backups = list(self.watch.state.all(Backup))
        if kind == "tree":
            host = self.draw.choice(self.site.hosts)
            if not self._is_read(host):
                self._change_tree(host)
        elif kind == "backup" or not backups:
            await self._queue_backup(self.draw.choice(self.site.hosts))
        elif kind == "restore":
            await self._queue_restore(self.draw.choice(backups))
        elif kind in ("copy", "move"):
            backup, pool = self.draw.choice(backups), self.draw.choice(self._pools())
            await self._try(QueueCopy(backup_id=backup.id, pool_name=pool, move=kind == "move"))
        elif kind == "verify":
            await self._try(QueueVerification(backup_id=self.draw.choice(backups).id))
        else:
            await self._try(DeleteBackups(ids=[self.draw.choice(backups).id]))

    async def _orders(self) -> None:
        tasks = [task for task in self.watch.state.all(Task) if task.status != TaskStatus.DONE]
        if not tasks:
            return
        task = self.draw.choice(tasks[-6:])
        order = self.draw.choice(["pause", "continue", "kill", "restart"])
        commands: dict[str, Any] = {
            "pause": PauseTask(task_id=task.id),
            "continue": ContinueTask(task_id=task.id),
            "kill": KillTask(task_id=task.id),
            "restart": RestartTasks(ids=[task.id]),
        }
        await self._try(commands[order])

    def _pools(self) -> list[str]:
        return ["Default", SECOND_POOL, *([TAPE_POOL, TAPE_POOL] if self.site.tape is not None else [])]

    async def _cartridge_orders(self) -> None:
        tape = self.site.tape
        assert tape is not None, "the scenario has tape"
        if self.draw.random() < 0.6:
            await self._try(tape.order(self.watch.state))
        else:
            assert self.site.nursery is not None, "the site runs"
            self.site.nursery.start_soon(tape.look_after, self.site)

    async def _library_fault(self) -> None:
        assert self.site.tape is not None, "the scenario has tape"
        self.site.tape.fault(self.site)

    async def _daemon_crash(self) -> None:
        if self.draw.random() < 0.5:
            self.crash_countdown = self.draw.randrange(1, 60)
            self.trace.note("fault", f"daemon will crash at its {self.crash_countdown}. disk operation from now")
        else:
            self.site.crash_daemon(why="at a scheduling point")

    async def _agent_crash(self) -> None:
        self.site.crash_agent(self.draw.choice(self.site.hosts))

    async def _network(self) -> None:
        self.site.weather(STORMY if self.site.network.faults.plan == CALM else CALM)

    async def _cut(self) -> None:
        self.site.cut_connections()

    async def _pool_full(self) -> None:
        number = self.draw.choice(list(self.site.volumes))
        volume = self.site.volumes[number]
        if volume.capacity_bytes == ROOMY_BYTES:
            hook, volume.before_each = volume.before_each, None
            used_bytes = volume.capacity_bytes - volume.free_bytes()
            volume.before_each = hook
            volume.capacity_bytes = used_bytes + self.draw.randrange(1, 5000)
        else:
            volume.capacity_bytes = ROOMY_BYTES
        self.trace.note("fault", f"catalog {number} has {volume.capacity_bytes} bytes")

    async def _log_full(self) -> None:
        daemon = self.site.daemon
        if daemon is None:
            return
        if self.site.store.full:
            daemon.log.make_room()
        else:
            daemon.log.fill()
            self.site.after(self.draw.uniform(1.0, 60.0), self._log_room)
        self.trace.note("fault", f"log volume full: {bool(self.site.store.full)}")

    def _log_room(self) -> None:
        if self.site.daemon is not None:
            self.site.daemon.log.make_room()
        self.site.store.full = ""
        self.trace.note("fault", "log volume has room")

    async def _clock_jump(self) -> None:
        by_ns = self.draw.randrange(-DAY_NS, DAY_NS)
        self.site.world.clock.jump(by_ns)
        self.trace.note("fault", f"clock jumps by {by_ns} ns")

    def _before_disk_operation(self, operation: str, path: str) -> None:
        if self.crash_countdown < 0:
            return
        self.crash_countdown -= 1
        if self.crash_countdown < 0:
            self.site.crash_daemon(why=f"in {operation} of {path}")
            raise ProcessGone

    # --- what operators do --------------------------------------------------------------------------------------------------

    async def _authorise_all(self) -> None:
        """An administrator waits until every host has reported itself, then authorises it."""
        while True:
            self._look()
            waiting = [one.id for one in self.watch.state.all(UnauthorisedClient)]
            if waiting:
                await self._try(AuthoriseClients(ids=waiting))
            elif len(list(self.watch.state.all(Client))) == len(self.site.hosts):
                return
            await trio.sleep(1.0)

    async def _queue_backup(self, host: Host) -> None:
        client = self._client_of(host)
        task = {
            "resource_type": "File system",
            "resource": SOURCE,
            "client": f"{client.hostname} ({client.hwid})",
            "backup_type": self.draw.choice(["full", "incremental", "incremental", "differential"]),
            "pool": self.draw.choice(["Default", *self._pools()]),
            "crypto": self.draw.choice(["nocrypt", "AES-256-GCM", "AES-256-GCM", "ChaCha20-Poly1305"]),
            "priority": self.draw.randrange(0, 200),
            "storage_duration": "1 year",
            "archiving": False,
        }
        await self._try(QueueBackup(task=task))

    async def _queue_restore(self, backup: Backup) -> None:
        client = self.watch.state.find(Client, backup.client_id)
        if client is None:
            return
        host = next(one for one in self.site.hosts if one.name == client.hostname)
        destination = f"/restored/{self.commands}"
        wanted = {
            "target_client": f"{client.hostname} ({client.hwid})",
            "destination_path": destination,
            "data_deployment": False,
            "granular_restore_files": [],
        }
        reply = await self._try(QueueRestore(backup_id=backup.id, restore_task=wanted))
        if reply is not None:
            self.restores[reply.ids[0]] = (host, destination, backup.id)

    async def _try(self, command: Any) -> Reply | None:
        """Give the command; a refusal with a sentence is an answer as good as any."""
        self.commands += 1
        name = f"{type(command).__name__} {self.commands}"
        try:
            reply = await self.site.execute(command, name)
        except RbError as error:
            if not error.message:
                raise Broken(f"{name} was refused without a sentence") from error
            self.trace.note("consumer", f"{name} refused: {error.code}")
            return None
        self.watch.acknowledge(reply.position)
        self.trace.note("consumer", f"{name}: {reply.ids} at {reply.position}")
        return reply

    def _client_of(self, host: Host) -> Client:
        return next(one for one in self.watch.state.all(Client) if one.hostname == host.name)

    # --- trees --------------------------------------------------------------------------------------------------------------

    def _is_read(self, host: Host) -> bool:
        """Whether a backup of the host's tree may be under way: then the tree stays as it is."""
        clients = {one.id for one in self.watch.state.all(Client) if one.hostname == host.name}
        return any(
            task.client_id in clients and task.task_type in BACKUP_TASKS and task.status not in TERMINAL_STATUSES
            for task in self.watch.state.all(Task)
        )

    def _change_tree(self, host: Host) -> None:
        change = change_tree(host.trees, self.draw)
        self.trace.note(host.name, change)

    def _note_contents(self) -> None:
        """A backup has appeared: what it must hold is what its host holds now."""
        for backup in self.watch.state.all(Backup):
            self.archives_ever[backup.id] = backup.archive
            if backup.archive not in self.contents:
                client = self.watch.state.find(Client, backup.client_id)
                assert client is not None, "clients with backups stay"
                host = next(one for one in self.site.hosts if one.name == client.hostname)
                self.contents[backup.archive] = host.trees.snapshot(SOURCE)
                if backup.problems:
                    raise Broken(f"backup {backup.id} has {backup.problems} problems, the tree had none")

    def _check_restores(self) -> None:
        for task_id, (host, destination, backup_id) in list(self.restores.items()):
            task = self.watch.state.find(Task, task_id)
            if task is None or task.status not in TERMINAL_STATUSES:
                continue
            del self.restores[task_id]
            if task.status == TaskStatus.DONE:
                self._compare(host, destination, self.archives_ever[backup_id], f"task {task_id}")
                self.restored += 1

    def _compare(self, host: Host, destination: str, archive: str, who: str) -> None:
        wanted, found = self.contents[archive], host.trees.snapshot(destination)
        if wanted != found:
            names = sorted(name for name in wanted.keys() | found.keys() if wanted.get(name) != found.get(name))
            raise Broken(f"{who} restored something else than was backed up: {names[:5]} differ")

    # --- the end --------------------------------------------------------------------------------------------------------------

    async def _mend(self) -> None:
        self.crash_countdown = -1
        self.site.weather(CALM)
        for volume in self.site.volumes.values():
            volume.capacity_bytes = ROOMY_BYTES
        self._log_room()
        if self.site.tape is not None:
            await self.site.tape.mend(self.site, lambda: self.watch.state)
        self._look()
        for task in list(self.watch.state.all(Task)):
            if task.status == TaskStatus.PAUSED:
                await self._try(ContinueTask(task_id=task.id))

    async def _settle(self) -> None:
        """Every task ends, and the sweep that follows leaves nothing."""
        self._look()  # what was queued a moment ago counts
        with trio.move_on_after(SETTLE_SECONDS):
            while self._active():
                await trio.sleep(5.0)
                self._look()
        self._look()
        self.site.crash_daemon(why="for a last sweep")
        await trio.sleep(SWEEP_SECONDS)
        self._look()

    async def _rest(self) -> None:
        """Cartridges that nobody needs go back to their slots."""
        tape = self.site.tape
        with trio.move_on_after(SETTLE_SECONDS):
            while tape is not None and tape.why_not_quiet(self.watch.state):
                await trio.sleep(POLL_SECONDS)
                self._look()

    def _active(self) -> list[Task]:
        return [task for task in self.watch.state.all(Task) if task.status not in TERMINAL_STATUSES]

    async def _restore_everything(self) -> None:
        """The worst day: every backup that is offered is restored and compared."""
        before = self.restored
        backups = list(self.watch.state.all(Backup))
        for backup in backups:
            await self._queue_restore(backup)
        queued = dict(self.restores)
        await self._settle()
        for task_id in queued:
            task = self.watch.state.find(Task, task_id)
            if task is None or task.status != TaskStatus.DONE:
                raise Broken(f"backup {queued[task_id][2]} could not be restored: {task and task.status_reason}")
        assert self.restored - before == len(queued) == len(backups), "each was compared"


def change_tree(trees: SimulatedTrees, draw: random.Random) -> str:
    """Change one thing in the tree and say what."""
    directory = SOURCE
    trees.make_directory(directory)
    for _ in range(draw.randrange(3)):
        directory = f"{directory}/{draw.choice(DIRECTORIES)}"
    what = draw.choice(["write", "write", "write", "remove", "symlink", "large", "link", "mode"])
    path = f"{directory}/{draw.choice(NAMES)}"
    if what == "write":
        trees.make_directory(directory)
        trees.write(path, _content(draw, draw.choice([0, 10, 5000])))
    elif what == "large":
        trees.make_directory(directory)
        trees.write(path, _content(draw, draw.randrange(1 << 20, 3 << 20)), holes=True)
    elif what == "symlink":
        trees.make_directory(directory)
        trees.remove(path)
        trees.make_special(path, EntryType.SYMLINK, link_target=draw.choice([b"/etc/passwd", b"../..", b"a"]))
    elif what == "remove":
        path = draw.choice([path, directory]) if directory != SOURCE else path
        trees.remove(path)
    else:
        contents = trees.snapshot(SOURCE)
        files = [f"{SOURCE}/{name}" for name, node in contents.items() if node[0] == EntryType.FILE.name]
        if not files:
            return "nothing"
        source = draw.choice(files)
        if what == "mode":
            trees.change(source, mode=draw.choice([0o600, 0o755, 0o4755]))
            path = source
        elif source != path:
            trees.make_directory(directory)
            trees.remove(path)
            trees.link(source, path)
    return f"{what} {path!r}"


def _content(draw: random.Random, size: int) -> bytes:
    piece = draw.randbytes(1024) + bytes(draw.choice([0, 7168]))
    return (piece * (size // len(piece) + 1))[:size]
