"""A state with a log: carries commands out and checks, at every single one, what must hold for all of them.

- ``decide`` changes nothing.
- What was applied can be taken back, to the same digest, versions and indexes.
- Indexes are what the tables say.
- Events survive their encoding.
"""

from __future__ import annotations

from typing import Any

import msgspec

from rbcore.commands import (
    AdvanceTask,
    AgentHello,
    AssignTask,
    AuthoriseClients,
    CatalogFacts,
    Command,
    Context,
    Initialise,
    QueueBackup,
    RecordBackup,
    Reply,
)
from rbcore.decide import decide
from rbcore.entities import LocalCatalog, Task
from rbcore.events import Event, all_events
from rbcore.evolve import apply
from rbcore.indexes import Indexes
from rbcore.state import State
from rbcore.vocabulary import RUNNING_STATUSES

SECOND_NS = 10**9
START_NS = 1_800_000_000 * SECOND_NS
PLENTY_BYTES = 10**13

ENCODE = msgspec.msgpack.Encoder().encode
DECODERS = {name: msgspec.msgpack.Decoder(kind).decode for name, kind in all_events().items()}

Stored = tuple[str, int, int, int, str, bytes]
"""Stream, version, time, position, type, body: what the log keeps of an event."""


def apply_stored(state: State, stored: Stored) -> None:
    stream, version, time_ns, position, type_, body = stored
    apply(state, stream, version, time_ns, position, DECODERS[type_](body))


def replay(log: list[Stored]) -> State:
    state = State()
    for stored in log:
        apply_stored(state, stored)
    return state


def indexes_of(state: State) -> dict[str, Any]:
    return {name: getattr(state.indexes, name) for name in Indexes.__slots__}


def whole(state: State) -> tuple[Any, ...]:
    """Everything a state is, for comparing."""
    tables = {kind: dict(table) for kind, table in state.tables.items()}
    indexes = msgspec.msgpack.encode({name: repr(_ordered(value)) for name, value in indexes_of(state).items()})
    return state.digest(), tables, dict(state.versions), dict(state.next_ids), state.position, indexes


def _ordered(value: Any) -> Any:
    if isinstance(value, dict):
        return sorted(((repr(key), _ordered(one)) for key, one in value.items()), key=lambda pair: pair[0])
    return sorted(value) if isinstance(value, set) else value


def check_indexes(state: State) -> None:
    fresh = Indexes()
    for kind, table in state.tables.items():
        for entity in table.values():
            fresh.update(kind, None, entity)
    for name in Indexes.__slots__:
        assert getattr(state.indexes, name) == getattr(fresh, name), name


class World:
    """``run`` carries a command out; ``log`` is what a daemon would have on disk."""

    def __init__(self) -> None:
        self.state = State()
        self.log: list[Stored] = []
        self.now_ns = START_NS
        self._draws = 0

    def run(self, command: Command, actor: str = "user:rubackup") -> Reply:
        """Decide, apply, check. Raises what the decision raises, or its refusal after its events were applied."""
        self.now_ns += SECOND_NS
        self._draws += 1
        context = Context(now_ns=self.now_ns, actor=actor, random=self._draws.to_bytes(16, "big"))
        before = whole(self.state)
        try:
            decision = decide(self.state, command, context)
        finally:
            assert whole(self.state) == before, "decide changed the state"
        self._apply([(one.stream, one.event) for one in decision.events], before)
        assert decision.reply.position == self.state.position
        if decision.refusal is not None:
            raise decision.refusal
        return decision.reply

    def _apply(self, events: list[tuple[str, Event]], before: tuple[Any, ...]) -> None:
        def forward() -> list[tuple[str, int, int, Any]]:
            done = []
            for stream, event in events:
                version = self.state.versions.get(stream, 0) + 1
                position = self.state.position + 1
                undos = apply(self.state, stream, version, self.now_ns, position, event)
                done.append((stream, version, position, undos))
            return done

        done = forward()
        after = whole(self.state)
        check_indexes(self.state)
        for stream, version, position, undos in reversed(done):
            self.state.take_back_all(undos, stream, version, position)
        assert whole(self.state) == before, "taking back restores everything"
        forward()
        assert whole(self.state) == after, "the same events lead to the same state"
        for (stream, version, position, _), (_, event) in zip(done, events, strict=True):
            self.log.append((stream, version, self.now_ns, position, event.TYPE, ENCODE(event)))

    def task(self, id: int) -> Task:
        found = self.state.find(Task, id)
        assert found is not None
        return found

    # --- stories ---------------------------------------------------------------------------------------------------

    def installed(self) -> World:
        self.run(
            Initialise(
                hostname="main",
                hwid="ab" * 8,
                superuser="rubackup",
                credential_id="first",
                default_catalog_path="/srv/default",
            )
        )
        return self

    def client(self, hwid: str = "525a99154f3505a2", hostname: str = "alpha", key: str = "ab" * 32) -> int:
        """An authorised, connected client; its id."""
        hello = hello_of(hwid=hwid, hostname=hostname, public_key=key)
        row = self.run(hello).ids[0]
        client_id = self.run(AuthoriseClients(ids=[row])).ids[0]
        self.run(hello)
        return client_id

    def facts(self, free_bytes: int = PLENTY_BYTES) -> list[CatalogFacts]:
        return [
            CatalogFacts(local_catalog_id=one.id, online=True, free_bytes=free_bytes)
            for one in self.state.all(LocalCatalog)
        ]

    def queued(self, **fields: Any) -> int:
        return self.run(QueueBackup(task=task_body(**fields))).ids[0]

    def assigned(self, task_id: int, **given: Any) -> Task:
        self.run(AssignTask(task_id=task_id, catalogs=given.get("catalogs", self.facts()), client_online=True))
        return self.task(task_id)

    def transmitting(self, task_id: int) -> Task:
        self.assigned(task_id)
        for status in RUNNING_STATUSES:
            self.run(AdvanceTask(task_id=task_id, status=status))
        return self.task(task_id)

    def backed_up(self, **fields: Any) -> int:
        """A finished backup; its id."""
        task = self.transmitting(self.queued(**fields))
        return self.run(archive_of(task)).ids[0]


def hello_of(**given: Any) -> AgentHello:
    facts: dict[str, Any] = {
        "hwid": "525a99154f3505a2",
        "hostname": "alpha",
        "public_key": "ab" * 32,
        "address": "192.0.2.7",
        "os_type": "Linux",
        "os_version": "12",
        "agent_version": "0.1",
        "resource_types": ["File system"],
    }
    return AgentHello(**{**facts, **given})


def task_body(**given: Any) -> dict[str, Any]:
    """The manual's sample body of POST task_queue."""
    body: dict[str, Any] = {
        "resource_type": "File system",
        "resource": "/home/",
        "client": "alpha (525a99154f3505a2)",
        "backup_type": "full",
        "pool": "Default",
        "crypto": "nocrypt",
        "priority": 100,
        "storage_duration": "1 Years",
        "archiving": False,
    }
    return {**body, **given}


def archive_of(task: Task, **given: Any) -> RecordBackup:
    facts: dict[str, Any] = {
        "task_id": task.id,
        "archive": task.archive,
        "archive_size": 1_000,
        "data_size": 2_000,
        "files": 3,
        "problems": 0,
        "blocks": 4,
        "root": "0f" * 32,
        "signature": "",
        "signature_valid": False,
        "key_id": "",
    }
    return RecordBackup(**{**facts, **given})
