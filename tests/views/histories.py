"""Random but possible histories: what ``decide`` could have recorded, as envelopes, and a log that serves them."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from typing import Any, cast

import msgspec
import trio

from eventlog.port import EventLog
from rbcore.entities import Backup, Client, DynamicPoolGroup, LocalCatalog, Pool, Task, UnauthorisedClient
from rbcore.events import (
    BackupDeleted,
    BackupRecorded,
    BackupStoreUntilChanged,
    BackupVerified,
    ClientAppeared,
    ClientAuthorised,
    ClientConnected,
    ClientDisconnected,
    ClientRevoked,
    Envelope,
    Event,
    RecordChanged,
    RecordCreated,
    RecordDeleted,
    TaskAssigned,
    TaskNoted,
    TaskQueued,
    TaskRemoved,
    TaskStatusChanged,
)
from rbcore.evolve import apply
from rbcore.state import State
from rbcore.vocabulary import CRYPTO, RUNNING_STATUSES, TASK_TYPES, TERMINAL_STATUSES, TaskStatus

START_NS = 1_723_559_611_359_954_321
WORDS = (
    "Default",
    "default",
    "Straße",
    "СЕРВЕР",
    "сервер",
    "ſtore",
    "İzmir",
    'a"b',
    "a\\b",
    "50%",
    "a_b",
    "",
    "nul\0l",
    "日本",
)
NEXT_STATUSES = (*RUNNING_STATUSES, TaskStatus.SUSPENDED, TaskStatus.PAUSED, *sorted(TERMINAL_STATUSES))


class History:
    """Grows a log one possible event at a time, from a seed."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.state = State()
        self.envelopes: list[Envelope] = []
        self.time_ns = START_NS
        self.record("media_server/1", RecordCreated({"hostname": "server", "hwid": "00ff"}))
        self.record("client_group/1", RecordCreated({"name": "No group"}))
        self.record("pool/1", RecordCreated({"pool_name": "Default", "pool_type": "File system", "media_server": 1}))
        self.record("local_catalog/1", RecordCreated({"path": "/default", "pool": 1}))
        self._makers: tuple[Callable[[], None], ...] = (
            self._pool, self._pool_changed, self._pool_deleted, self._catalog, self._group, self._group_changed,
            self._client_appeared, self._client_authorised, self._client_revoked, self._client_session,
            self._task, self._task, self._task_assigned, self._task_status, self._task_status, self._task_noted,
            self._task_removed, self._backup, self._backup_verified, self._backup_kept, self._backup_deleted,
        )  # fmt: skip

    def grow(self, events: int) -> History:
        until = len(self.envelopes) + events
        while len(self.envelopes) < until:
            self.random.choice(self._makers)()
        return self

    def record(self, stream: str, event: Event) -> None:
        position = len(self.envelopes) + 1
        self.time_ns += self.random.choice((0, 0, 137, 1_000, 3_000_000, 60_000_000_000))
        version = self.state.versions.get(stream, 0) + 1
        body = msgspec.Raw(msgspec.msgpack.encode(event))
        envelope = Envelope(
            position, self.time_ns, stream, version, event.TYPE, event.SCHEMA, "user:a", str(position), 0, "", body
        )
        apply(self.state, stream, version, self.time_ns, position, event)
        self.envelopes.append(envelope)

    # --- makers: each records one event, or none when nothing fits -------------------------------------------------

    def _one(self, kind: type[Any], fits: Callable[[Any], bool] = lambda entity: True) -> Any:
        found = [entity for entity in self.state.all(kind) if fits(entity)]
        return self.random.choice(found) if found else None

    def _word(self) -> str:
        return self.random.choice(WORDS)

    def _pool(self) -> None:
        number = self.state.next_id(Pool)
        fields = {
            "pool_name": f"{self._word()}{number}",
            "pool_type": self.random.choice(("File system", "Block device", "Tape library")),
            "media_server": 1,
            "description": self._word(),
            "retention_period": self.random.choice((None, "1 year", "30 days")),
            "ignore_free_space_check": self.random.random() < 0.5,
            "block_size": self.random.choice((None, 16384, 131072)),
        }
        self.record(f"pool/{number}", RecordCreated(fields))

    def _pool_changed(self) -> None:
        pool = self._one(Pool)
        if pool:
            changes = {"pool_name": f"{self._word()}-{len(self.envelopes)}", "description": self._word()}
            self.record(f"pool/{pool.id}", RecordChanged(changes))

    def _pool_deleted(self) -> None:
        pool = self._one(Pool, lambda one: one.id > 1 and self.random.random() < 0.3)
        if pool:
            self.record(f"pool/{pool.id}", RecordDeleted())

    def _group(self) -> None:
        number = self.state.next_id(DynamicPoolGroup)
        self.record(f"dynamic_pool_group/{number}", RecordCreated({"name": f"{self._word()}-group{number}"}))

    def _group_changed(self) -> None:
        group = self._one(DynamicPoolGroup, lambda one: self.random.random() < 0.5)
        if group and self.random.random() < 0.3:
            self.record(f"dynamic_pool_group/{group.id}", RecordDeleted())
        elif group:
            self.record(f"dynamic_pool_group/{group.id}", RecordChanged({"name": f"{self._word()}-{group.id}"}))

    def _catalog(self) -> None:
        number = self.state.next_id(LocalCatalog)
        fields = {"path": f"/catalog/{number}", "pool": self._one(Pool).id, "description": self._word()}
        self.record(f"local_catalog/{number}", RecordCreated(fields))

    def _facts(self, hostname: str, hwid: str) -> dict[str, Any]:
        return {
            "hwid": hwid,
            "hostname": hostname,
            "public_key": hwid * 4,
            "address": "10.0.0.1",
            "os_type": "Linux",
            "os_version": "12",
            "agent_version": "1",
            "resource_types": self.random.sample(("File system", "Block device", "СУБД"), self.random.randrange(4)),
        }

    def _client_appeared(self) -> None:
        number = self.state.next_id(UnauthorisedClient)
        facts = self._facts(f"{self._word()}.host", f"{number:016x}")
        self.record(f"unauthorised_client/{number}", ClientAppeared(**facts))

    def _client_authorised(self) -> None:
        new = self._one(UnauthorisedClient)
        if new:
            number = next((one.id for one in self.state.tables["former_client"].values() if one.hwid == new.hwid), None)
            stream = f"client/{number or self.state.next_id(Client)}"
            self.record(stream, ClientAuthorised(unauthorised_id=new.id, **self._facts(new.hostname, new.hwid)))

    def _client_revoked(self) -> None:
        client = self._one(Client, lambda one: self.random.random() < 0.3)
        if client:
            self.record(f"client/{client.id}", ClientRevoked(self.state.next_id(UnauthorisedClient)))

    def _client_session(self) -> None:
        client = self._one(Client)
        if client:
            event = ClientDisconnected("gone") if client.online else ClientConnected()
            self.record(f"client/{client.id}", event)

    def _task(self) -> None:
        client, pool = self._one(Client), self._one(Pool)
        group = self._one(DynamicPoolGroup, lambda one: self.random.random() < 0.2)
        event = TaskQueued(
            task_type=self.random.choice(TASK_TYPES),
            resource_type="File system",
            resource=f"/{self._word()}",
            backup_type="full",
            client_id=client.id if client else 0,
            pool_id=-group.id if group else pool.id if pool else 0,
            crypto=self.random.choice(CRYPTO),
            priority=self.random.choice((1, 100, 2**40)),
            storage_duration="1 year",
            archiving=self.random.random() < 0.5,
            backup_id=0,
            parameters={"common": {"глубина": 1}},
            restarted_from=0,
        )
        self.record(f"task/{self.state.next_id(Task)}", event)

    def _task_assigned(self) -> None:
        task = self._one(Task, lambda one: one.status == TaskStatus.NEW)
        if task:
            event = TaskAssigned(1, abs(task.pool_id), 1, "full", 0, f"{task.id:032x}", "fits", ["tape: no drive"])
            self.record(f"task/{task.id}", event)

    def _task_status(self) -> None:
        task = self._one(Task, lambda one: one.status not in TERMINAL_STATUSES)
        if task:
            status = self.random.choice(NEXT_STATUSES)
            self.record(f"task/{task.id}", TaskStatusChanged(task.status, status, self._word(), self.time_ns + 7))

    def _task_noted(self) -> None:
        task = self._one(Task)
        if task:
            side, severity = self.random.choice(("server", "client")), self.random.choice(("info", "warning", "error"))
            lines = [self._word() for _ in range(self.random.randrange(4))]
            self.record(f"task/{task.id}", TaskNoted(side, severity, lines))

    def _task_removed(self) -> None:
        task = self._one(Task, lambda one: one.status in TERMINAL_STATUSES)
        if task:
            self.record(f"task/{task.id}", TaskRemoved())

    def _backup(self) -> None:
        task = self._one(Task, lambda one: one.client_id and one.status not in TERMINAL_STATUSES)
        if task is None:
            return
        number = self.state.next_id(Backup)
        event = BackupRecorded(
            archive=f"{number:032x}", ref_id=0, client_id=task.client_id, resource_type="File system", resource="/etc",
            backup_type="full", pool_id=abs(task.pool_id), local_catalog_id=1, media_server_id=1, task_id=task.id,
            started_ns=self.time_ns - 5, archive_size=self.random.randrange(10**12), data_size=1, files=1, problems=0,
            blocks=1, root="ab", signature="", crypto="nocrypt", compression="fast", key_id="", store_until_ns=0,
        )  # fmt: skip
        self.record(f"backup/{number}", event)

    def _backup_verified(self) -> None:
        backup = self._one(Backup)
        if backup:
            findings = [self._word() for _ in range(self.random.randrange(3))]
            self.record(f"backup/{backup.id}", BackupVerified(0, "Verified", 1, findings))

    def _backup_kept(self) -> None:
        backup = self._one(Backup)
        if backup:
            self.record(f"backup/{backup.id}", BackupStoreUntilChanged(self.time_ns + 10**15))

    def _backup_deleted(self) -> None:
        backup = self._one(Backup, lambda one: self.random.random() < 0.3)
        if backup:
            self.record(f"backup/{backup.id}", BackupDeleted(0, 0))


class ListedLog:
    """The reading side of ``EventLog`` over a list of envelopes; ``extend`` is a commit."""

    def __init__(self, envelopes: Sequence[Envelope] = ()) -> None:
        self.envelopes = list(envelopes)
        self._grown = trio.lowlevel.ParkingLot()

    def as_log(self) -> EventLog:
        return cast(EventLog, self)

    @property
    def head(self) -> int:
        return len(self.envelopes)

    def extend(self, envelopes: Sequence[Envelope]) -> None:
        self.envelopes.extend(envelopes)
        self._grown.unpark_all()

    def read(self, after: int = 0, until: int | None = None) -> Iterator[Envelope]:
        return iter(self.envelopes[after:until])

    def position_at(self, time_ns: int) -> int:
        return sum(1 for one in self.envelopes if one.time_ns <= time_ns)

    def time_at(self, position: int) -> int:
        return self.envelopes[position - 1].time_ns if position else 0

    async def subscribe(self, after: int, chunk: int = 1000) -> AsyncIterator[Sequence[Envelope]]:
        while True:
            while after < self.head:
                batch = self.envelopes[after : after + chunk]
                after += len(batch)
                yield batch
            await self._grown.park()
