"""A whole house for API tests: memory log, journal, views and the application, on a clock that the test moves."""

from __future__ import annotations

import re
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn
from urllib.parse import unquote

import msgspec
import trio
import trio.testing
from argon2 import profiles
from jsonschema import Draft202012Validator
from referencing import Registry, Resource
from referencing.jsonschema import DRAFT202012
from werkzeug.datastructures import Headers

from actors.bus import Bus
from actors.journal import JournalActor
from actors.port import Progress
from actors.tape.libraries import TapeSite
from drivers.directory_store import DirectoryStore, initialise_catalog
from drivers.simulated.volume import SimulatedVolume
from drivers.simulated.world import InlineThreads, SeededRandomness
from drivers.volume import DirectoryVolume
from eventlog.memory_log import MemoryLog, open_memory_log
from eventlog.views import LOGS, Projector, SqliteViewReader, ViewSchema
from httpapi import Services, Settings, Tokens, VolumeCredentials, create_app
from httpapi.application import read_methods
from httpapi.channel import Channel, FromDaemon, FromWorker, Hello
from httpapi.front import Front
from httpapi.handover import Handover, Place
from httpapi.judging import Admission
from httpapi.openapi import document
from httpapi.relay import Relay, Times
from httpapi.rubackup import methods
from httpapi.workers import serve_worker
from rbcore.block_device import BlockDeviceFacts
from rbcore.commands import AgentHello, AuthoriseClients, CatalogFacts, Initialise, Order, Reply
from rbcore.errors import InvalidRequest, Unavailable
from rbcore.messages import ListBlockDevices, ListFilesystem, Listing, ListModuleResources
from rbcore.monitoring import MonitoringSample
from rbcore.resources import RESOURCES
from rbcore.scsi import ScsiDevices
from tests.httpapi.shelves import Shelf, SimulatedShelf

USER, PASSWORD = "rubackup", "correct horse battery staple"
HWID = "525a99154f3505a2"
CLIENT = f"rubackup-client ({HWID})"
API = "/api/v1"


class TestClock:
    """Wall time that only the test moves."""

    __test__ = False

    def __init__(self) -> None:
        self.seconds = 1_750_000_000.0

    def now_ns(self) -> int:
        return int(self.seconds * 1e9)


@dataclass
class FakeSessions:
    """Agents by client id; a question is answered from ``rows`` or refused."""

    connected: set[int] = field(default_factory=set)
    rows: list[dict[str, Any]] = field(default_factory=list)
    running: dict[int, Progress] = field(default_factory=dict)
    asked: list[Any] = field(default_factory=list)

    def online(self, client_id: int) -> bool:
        return client_id in self.connected

    async def ask(
        self, client_id: int, question: ListFilesystem | ListBlockDevices | ListModuleResources, deadline_seconds: float
    ) -> Listing:
        await trio.lowlevel.checkpoint()
        self.asked.append(question)
        if client_id not in self.connected:
            raise Unavailable(f"Client {client_id} is not connected.")
        return Listing(rows=self.rows)

    def progress(self, task_id: int) -> Progress | None:
        return self.running.get(task_id)

    def progress_of_all(self) -> Sequence[Progress]:
        return list(self.running.values())


@dataclass
class FakeContents:
    names: list[dict[str, Any]] = field(default_factory=list)

    async def list_names(self, backup_id: int, prefix: str, limit: int) -> list[dict[str, Any]]:
        await trio.lowlevel.checkpoint()
        return [one for one in self.names if one["path"].startswith(prefix)][:limit]


@dataclass
class FakeMonitoring:
    """As if the host had been looked at once a second, three times; older samples have left the ring."""

    kept: list[MonitoringSample] = field(
        default_factory=lambda: [
            MonitoringSample(
                id=number,
                time_ns=(1_750_000_000 + number) * 10**9,
                server="rubackup-server",
                cpu_percent=float(number),
                memory_total=8 << 30,
                memory_used=number << 30,
                swap_total=0,
                swap_used=0,
                load_1=0.25,
                load_5=0.5,
                load_15=0.75,
                network_in=100 * number,
                network_out=10 * number,
                disk_in=4096 * number,
                disk_out=8192 * number,
                disk_in_operations=number,
                disk_out_operations=2 * number,
                tasks=number,
            )
            for number in (5, 6, 7)
        ]
    )

    def samples(self) -> list[MonitoringSample]:
        return self.kept


@dataclass
class FakeDisks:
    """Block devices by path: ``there`` answer with their size and contents, the others are not there."""

    there: dict[str, BlockDeviceFacts] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)

    async def look(self, path: str, known: Sequence[str] = ()) -> BlockDeviceFacts:
        await trio.lowlevel.checkpoint()
        self.asked.append(path)
        if path not in self.there:
            raise InvalidRequest(f"{path}: there is no such device.")
        facts = self.there[path]
        real = {one: self.there[one].real_path for one in known if one in self.there}
        return msgspec.structs.replace(facts, same_as=[one for one in known if real.get(one) == facts.real_path])


@dataclass
class FakeRooms:
    """What catalogs said of their room, by id."""

    facts: dict[int, CatalogFacts] = field(default_factory=dict)

    def fact(self, catalog_id: int) -> CatalogFacts | None:
        return self.facts.get(catalog_id)


@dataclass
class ApiAnswer:
    """An answer out of the test client."""

    status: int
    headers: Any
    raw: bytes

    @property
    def envelope(self) -> dict[str, Any]:
        found: dict[str, Any] = msgspec.json.decode(self.raw)
        assert set(found) == {"is_error", "message", "data", "errors"}, found
        assert found["is_error"] is (self.status >= 400 or self.status == 207), (self.status, found)
        return found

    @property
    def data(self) -> Any:
        return self.envelope["data"]

    @property
    def message(self) -> str:
        return str(self.envelope["message"])

    @property
    def errors(self) -> dict[str, list[str]]:
        found: dict[str, list[str]] = self.envelope["errors"]
        return found

    @property
    def position(self) -> int:
        return int(self.headers["X-Log-Position"])


class Description:
    """The OpenAPI document, held against what the application really answers."""

    def __init__(self, document: dict[str, Any]) -> None:
        self.document = document
        self._registry: Registry[Any] = Registry().with_resource(
            "urn:api", Resource.from_contents(document, default_specification=DRAFT202012)
        )
        templates = sorted(document["paths"], key=lambda path: path.count("{"))
        self._templates = [(re.compile(re.sub(r"\{\w+\}", "[^/]+", one) + "/?"), one) for one in templates]
        self._validators: dict[tuple[str, str, str], Draft202012Validator] = {}
        self.answered: set[tuple[str, str, int]] = set()
        """(verb, path, status) of every answer so far."""

    def check(self, verb: str, url: str, status: int, raw: bytes) -> None:
        path = url.partition("?")[0].removeprefix(API)
        for pattern, template in self._templates:
            if pattern.fullmatch(path):
                if verb.lower() not in self.document["paths"][template]:
                    return
                self.answered.add((verb, template, status))
                if status == 204:
                    assert raw == b""
                    return
                validator = self._validator(verb.lower(), template, str(status))
                errors = [f"{one.json_path}: {one.message}" for one in validator.iter_errors(msgspec.json.decode(raw))]
                assert not errors, (verb, template, status, errors, raw)
                return

    def _validator(self, verb: str, template: str, status: str) -> Draft202012Validator:
        key = (verb, template, status)
        if key not in self._validators:
            responses = self.document["paths"][template][verb]["responses"]
            assert status in responses, f"{verb} {template} answers {status}, which is not described"
            escaped = template.replace("~", "~0").replace("/", "~1").replace("{", "%7B").replace("}", "%7D")
            pointer = f"urn:api#/paths/{escaped}/{verb}/responses/{status}"
            if "$ref" in responses[status]:
                pointer = f"urn:api{responses[status]['$ref']}"
            schema = {"$ref": f"{pointer}/content/application~1json/schema"}
            self._validators[key] = Draft202012Validator(schema, registry=self._registry)
        return self._validators[key]


@dataclass
class House:
    front: Front
    relay: Relay
    """A worker of it: the same process, a real channel."""
    services: Services
    journal: JournalActor
    log: MemoryLog
    clock: TestClock
    sessions: FakeSessions
    contents: FakeContents
    disks: FakeDisks
    rooms: FakeRooms
    secrets: Path
    site: TapeSite
    """It can reach the library on ``shelf``. Its actors run when ``nursery`` is told to."""
    shelf: Shelf
    """With a tape library: empty, and in no log yet."""
    nursery: trio.Nursery
    tokens: dict[str, str] = field(default_factory=dict)
    description: Description = field(default_factory=lambda: Description(document(methods(), Settings())))
    compared: set[tuple[str, int]] = field(default_factory=set)
    """(path, status) of reads that were answered both ways, and the same."""
    _commands: int = 0

    @property
    def served(self) -> Front | Relay:
        """What tests of the server serve."""
        return self.front

    @property
    def app(self) -> Any:
        """Quart's part."""
        return self.front.app

    async def execute(self, command: Any, actor: str = "actor:test") -> Reply:
        """A command from elsewhere in the house; returns when the views show it."""
        self._commands += 1
        reply = await self.journal.execute(Order(command=command, command_id=f"test-{self._commands}", actor=actor))
        await self.services.views.wait_for(reply.position, 5)
        return reply

    async def raw(self, verb: str, path: str, **options: Any) -> ApiAnswer:
        """A request without anybody's tokens. Every answer must be what the OpenAPI document says."""
        client = self.app.test_client(use_cookies=False)
        url = path if path.startswith("/") else f"{API}/{path}"
        response = await client.open(url, method=verb, **options)
        answer = ApiAnswer(response.status_code, response.headers, await response.get_data())
        self.description.check(verb, url, answer.status, answer.raw)
        await self._check_read(verb, url, answer, options)
        return answer

    async def _check_read(self, verb: str, url: str, answer: ApiAnswer, options: dict[str, Any]) -> None:
        """What is a read of the views is answered to the byte as Quart's part answers it, in the daemon and in a worker. (A denial is recorded, so it is not asked for
        again.)"""
        scope = scope_of(verb, url, options)
        if answer.status == 403 or scope is None or self.front.reads.find(scope) is None:
            return
        shown = [(name.lower(), value) for name, value in answer.headers.items()]
        for application in (self.front, self.relay):
            other = await exchange(application, scope)
            if other.headers["x-log-position"] == answer.headers["X-Log-Position"]:
                assert (other.status, list(other.headers.items()), other.raw) == (answer.status, shown, answer.raw), url
                self.compared.add((url.partition("?")[0], answer.status))

    async def login(self, user: str = USER, password: str = PASSWORD, database: str = "rubackup") -> ApiAnswer:
        body = {"rubackup_database": database, "rubackup_user": user, "password": password}
        answer = await self.raw("POST", "auth/login", json=body)
        if answer.status == 200:
            self.tokens = answer.data
        return answer

    async def start_site(self) -> None:
        """Robots and drives of the libraries in the log work from here on."""
        self.nursery.start_soon(self.site.run)
        await trio.testing.wait_all_tasks_blocked()

    async def until(self, holds: Callable[[], bool]) -> None:
        """Return when the actors have brought that about, and the views show it."""
        head = self.log.head
        if not holds():
            with trio.fail_after(20):
                async for _ in self.log.subscribe(head):
                    if holds():
                        break
        await self.journal.settled()  # the state is ahead of the log by what is being committed
        await self.services.views.wait_for(self.log.head, 5)

    @property
    def headers(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.tokens['access_token']}", "X-CSRF-TOKEN": self.tokens["csrf_token"]}

    async def call(self, verb: str, path: str, body: Any = None, **headers: str) -> ApiAnswer:
        """A request of whoever signed in last."""
        if not self.tokens:
            assert (await self.login()).status == 200
        options: dict[str, Any] = {"headers": self.headers | {k.replace("_", "-"): v for k, v in headers.items()}}
        if body is not None:
            options["json"] = body
        return await self.raw(verb, path, **options)

    async def add_client(self, hwid: str = HWID, hostname: str = "rubackup-client", *, authorise: bool = True) -> int:
        """An agent reports itself; id of the client, or of the unauthorised one."""
        hello = AgentHello(
            hwid=hwid,
            hostname=hostname,
            public_key=(hwid * 4)[:64],
            address="192.0.2.7",
            os_type="Linux",
            os_version="Debian 12",
            agent_version="0.1",
            resource_types=["File system", "Block device"],
        )
        await self.execute(hello, f"client:{hwid}")
        unauthorised = next(
            one.id for one in self.journal.state.tables["unauthorised_client"].values() if one.hwid == hwid
        )
        if not authorise:
            return int(unauthorised)
        reply = await self.execute(AuthoriseClients(ids=[unauthorised]))
        return reply.ids[0]


@asynccontextmanager
async def open_house(
    directory: Path, *, settings: Settings | None = None, shelf: Shelf | None = None
) -> AsyncIterator[House]:
    clock, randomness, threads = TestClock(), SeededRandomness(7), InlineThreads()
    secrets = directory / "secrets"
    secrets.mkdir(mode=0o700)
    async with open_memory_log() as log, trio.open_nursery() as nursery:
        journal = JournalActor(log, _World(clock, randomness, threads))
        await journal.recover()
        view_schema = ViewSchema(RESOURCES, LOGS)
        views_path = directory / "views.sqlite"
        projector = Projector(log, views_path, view_schema, threads)
        nursery.start_soon(projector.run)
        await projector.wait_for(0, 5)
        views = SqliteViewReader(
            views_path,
            view_schema,
            threads,
            head=lambda: log.head,
            position_at=log.position_at,
            time_at=log.time_at,
            wait_for=projector.wait_for,
        )
        credentials = VolumeCredentials(DirectoryVolume(secrets, direct=False), threads, randomness, profiles.CHEAPEST)
        sessions, contents, disks, rooms = FakeSessions(), FakeContents(), FakeDisks(), FakeRooms()
        shelf = shelf or SimulatedShelf()
        site = _tape_site(journal, _World(clock, randomness, threads), shelf.devices)
        services = Services(
            journal=journal,
            views=views,
            sessions=sessions,
            contents=contents,
            tape=site,
            block_devices=disks,
            rooms=rooms,
            monitoring=FakeMonitoring(),
            tokens=Tokens(clock, randomness),
            credentials=credentials,
            clock=clock,
            randomness=randomness,
            settings=settings or Settings(version="1.2.3", app_host="api.rubackup.local"),
        )
        front = create_app(services)
        relay, worker_views = _worker(front, services, views_path, view_schema, nursery)
        house = House(
            front,
            relay,
            services,
            journal,
            log,
            clock,
            sessions,
            contents,
            disks,
            rooms,
            secrets,
            site,
            shelf,
            nursery,
        )
        await house.execute(
            Initialise(
                hostname="rubackup-server",
                hwid="55e05458152af100",
                superuser=USER,
                credential_id=await credentials.create(PASSWORD),
                default_catalog_path=str(directory / "default_pool"),
            )
        )
        try:
            yield house
        finally:
            await views.close()
            await worker_views.close()
            nursery.cancel_scope.cancel()


def _worker(
    front: Front, services: Services, path: Path, schema: ViewSchema, nursery: trio.Nursery
) -> tuple[Relay, SqliteViewReader]:
    ours, theirs = socket.socketpair()
    place, _ = socket.socketpair(type=socket.SOCK_SEQPACKET)
    channel: Channel[FromWorker, FromDaemon] = Channel(theirs, FromDaemon)
    times = Times()
    views = SqliteViewReader(path, schema, InlineThreads(), head=_unknown, position_at=_unknown, time_at=times)
    admission = Admission(services.settings.requests_max)
    relay = Relay(channel, views, times, read_methods(), admission, SeededRandomness(8))
    nursery.start_soon(serve_worker, front, ours, HELLO, Place(place), Handover())
    nursery.start_soon(channel.run)
    nursery.start_soon(relay.run)
    return relay, views


def _unknown(*_: int) -> NoReturn:
    raise AssertionError("a worker has no log")


HELLO = Hello(version="", views_fingerprint="", views="", host="", certificate="", key="", requests_max=256)


def _tape_site(journal: JournalActor, world: _World, devices: ScsiDevices) -> TapeSite:
    volume = SimulatedVolume()
    initialise_catalog(volume, "kept")
    return TapeSite(
        journal,
        Bus("rubackup-server", world),
        world,
        devices,
        lambda: DirectoryStore(volume, "kept"),
        server_id="55e05458152af100",
        software="test",
    )


@dataclass(frozen=True)
class _World:
    clock: TestClock
    randomness: SeededRandomness
    threads: InlineThreads


def scope_of(verb: str, url: str, options: dict[str, Any]) -> dict[str, Any] | None:
    """What Hypercorn makes of a request without a body; None for one that has more to it than headers."""
    if options.keys() - {"headers"} or not url.isascii():
        return None
    target, _, query = url.partition("?")
    headers = [(name.lower().encode(), value.encode("latin1")) for name, value in options.get("headers", {}).items()]
    return {
        "type": "http",
        "http_version": "1.1",
        "method": verb,
        "scheme": "https",
        "path": unquote(target),
        "raw_path": target.encode(),
        "query_string": query.encode(),
        "root_path": "",
        "headers": [(b"host", b"localhost"), *headers],
        "client": ("127.0.0.1", 40000),
        "server": ("127.0.0.1", 5656),
    }


async def exchange(
    application: Callable[[Any, Any, Any], Awaitable[None]], scope: dict[str, Any], *pieces: bytes
) -> ApiAnswer:
    """One request to an ASGI application, with its body in pieces."""
    told: list[dict[str, Any]] = []
    asked = iter(
        [{"type": "http.request", "body": one, "more_body": True} for one in pieces]
        + [{"type": "http.request", "body": b"", "more_body": False}]
    )

    async def receive() -> dict[str, Any]:
        await trio.lowlevel.checkpoint()
        for one in asked:
            return one
        await trio.sleep_forever()
        raise AssertionError("never")

    async def send(message: dict[str, Any]) -> None:
        await trio.lowlevel.checkpoint()
        told.append(message)

    await application(scope, receive, send)
    start, *bodies = told
    assert start["type"] == "http.response.start"
    assert [one.get("more_body", False) for one in bodies] == [True] * (len(bodies) - 1) + [False]
    headers = Headers([(name.decode(), value.decode("latin1")) for name, value in start["headers"]])
    return ApiAnswer(start["status"], headers, b"".join(one.get("body", b"") for one in bodies))


def parse_queue_number(message: str) -> int:
    """As existing clients of the API do it."""
    match = re.search(r"TASK WAS ADDED TO QUEUE:(\d+)$", message)
    assert match is not None, message
    return int(match[1])


BACKUP_TASK: dict[str, Any] = {
    "resource_type": "File system",
    "resource": "/home/",
    "client": CLIENT,
    "backup_type": "full",
    "pool": "Default",
    "crypto": "nocrypt",
    "priority": 100,
    "storage_duration": "1 Years",
    "archiving": False,
}
