"""The manual's examples as requests: a house in which the names that they use mean something.

``asked`` makes of a documented method the request that carries it out. Most follow from the catalogue alone: the documented body, with
``ids`` of what a POST of the collection's own example made. What needs more (a queued task, a cartridge in a slot, a connected agent)
is prepared here, by hand, under the method's name; there stand also the few values of the manual that no installation can accept.
"""

from __future__ import annotations

import copy
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any

from httpapi.rubackup.catalogue import Fact, facts
from rbcore.entities import TapeTask
from tests.httpapi.house import PASSWORD, House
from tests.httpapi.stories import backed_up, failed, queued, running
from tests.httpapi.tapes import rows

RESTORE_CLIENT = ("55e05458152af100", "rsafin-primary")
"""Target of the manual's restore."""
NOTHING = 999_999
"""An id that no record has."""


@dataclass
class Asked:
    """One request."""

    verb: str
    path: str
    """Below the root, parameters filled in."""
    body: Any = None
    headers: dict[str, str] | None = None
    """Instead of those of whoever signed in."""


@dataclass
class Manual:
    """A house with the manual's clients and pools, and what was made in it by collection."""

    house: House
    directory: Path
    made: dict[str, int] = field(default_factory=dict)
    visitor: dict[str, str] = field(default_factory=dict)
    """Headers of a user who has no role."""
    numbers: count[int] = field(default_factory=lambda: count(1))

    async def record(self, collection: str) -> int:
        """Id of a record of the collection that is there now."""
        known = self.made.get(collection)
        if known is None or (await self.house.call("GET", f"{collection}/{known}")).status != 200:
            make = MAKERS.get(collection)
            if make is not None:
                known = await make(self)
            elif f"POST /{collection}" in facts():
                known = await self.create(collection)
            else:
                known = int((await rows(self.house, collection))[0]["id"])
            self.made[collection] = known
        return known

    async def create(self, collection: str) -> int:
        request = await self.asked(f"POST /{collection}")
        answer = await self.house.call(request.verb, request.path, request.body)
        assert answer.status == 201, (request, answer.raw)
        self.note(f"POST /{collection}", answer.data)
        return self.made[collection]

    def note(self, name: str, data: Any) -> None:
        """What the method answered: a record that others of the group can go on with."""
        verb, _, collection = name.partition(" /")
        if verb == "POST" and "/" not in collection and isinstance(data, dict):
            ids = [data["id"]] if "id" in data else data.get("ids", [])
            if ids:
                self.made[collection] = ids[0]

    async def asked(self, name: str) -> Asked:
        """The request, when robots and drives have done what they were told before."""
        if "site" in self.made:
            await self.house.until(self._tape_is_idle)
        fact = facts()[name]
        prepared = PREPARED.get(name)
        if prepared is not None:
            return await prepared(self, fact)
        return await self.plain(fact)

    def _tape_is_idle(self) -> bool:
        return all(one.status in ("Done", "Error") for one in self.house.journal.state.all(TapeTask))

    async def plain(self, fact: Fact, *, body: Any = None, query: str = "", record: int | None = None) -> Asked:
        """The documented request; ids are those of ``record``, else of a record of the collection."""
        collection = fact.path.split("/")[1]
        body = copy.deepcopy(fact.request_example) if body is None else body
        path = fact.path
        if "{id}" in path or _names_records(body):
            record = await self.record(collection) if record is None else record
            path = path.replace("{id}", str(record))
            body = _with_record(body, record)
        return Asked(fact.method, path.lstrip("/") + query, body)


def missing(request: Asked, fact: Fact) -> Asked | None:
    """The same request for what is not there; None when it names no record."""
    body = _with_record(copy.deepcopy(request.body), NOTHING) if _names_records(request.body) else request.body
    path = request.path
    if "{id}" in fact.path:
        parts = path.partition("?")[0].split("/")
        parts[fact.path.lstrip("/").split("/").index("{id}")] = str(NOTHING)
        path = "/".join(parts) + path[len(path.partition("?")[0]) :]
    if body == request.body and path == request.path:
        return None
    return Asked(request.verb, path, body, request.headers)


_ID_KEYS = ("id", "strategy_id", "task_id", "client_group_id", "library_id", "tape_library_id")
_IDS_KEYS = ("ids", "clients_ids", "tasks_ids")


def _named_objects(body: Any) -> list[dict[str, Any]]:
    """The objects of a documented body in which ids stand."""
    data = body.get("data", body) if isinstance(body, dict) else body
    found = data if isinstance(data, list) else [data]
    if isinstance(data, dict) and isinstance(data.get("clients"), list):
        found = data["clients"]
    return [one for one in found if isinstance(one, dict)]


def _names_records(body: Any) -> bool:
    return any(name in one for one in _named_objects(body) for name in (*_ID_KEYS, *_IDS_KEYS))


def _with_record(body: Any, record: int) -> Any:
    for one in _named_objects(body):
        for name in _ID_KEYS:
            if name in one:
                one[name] = record
        for name in _IDS_KEYS:
            if name in one:
                one[name] = [record]
    return body


async def prepare(house: House, directory: Path) -> Manual:
    """Clients, pools and a media server under the manual's names."""
    await house.login()
    await house.add_client()
    await house.add_client(*RESTORE_CLIENT)
    body = {"data": {"pool_name": "Default2", "pool_type": "File system", "media_server": "rubackup-server"}}
    assert (await house.call("POST", "pool_list", body)).status == 201
    user = {"username": "visitor", "user_password": PASSWORD}
    assert (await house.call("POST", "users", {"data": user})).status == 201
    ours = house.tokens
    await house.login("visitor")
    visitor, house.tokens = house.headers, ours
    return Manual(house, directory, visitor=visitor)


# --- what is made otherwise than by a POST of the documented body ------------------------------------------------------

Maker = Callable[[Manual], Awaitable[int]]
Preparation = Callable[[Manual, Fact], Awaitable[Asked]]
MAKERS: dict[str, Maker] = {}
PREPARED: dict[str, Preparation] = {}


def maker(collection: str) -> Callable[[Maker], Maker]:
    def register(make: Maker) -> Maker:
        MAKERS[collection] = make
        return make

    return register


def prepares(*names: str) -> Callable[[Preparation], Preparation]:
    def register(make: Preparation) -> Preparation:
        for name in names:
            assert name in facts(), name
            PREPARED[name] = make
        return make

    return register


@maker("clients")
async def _client(manual: Manual) -> int:
    return await manual.house.add_client(f"{next(manual.numbers):016x}", "another-host")


@maker("unauthorised_clients")
async def _unauthorised(manual: Manual) -> int:
    return await manual.house.add_client(f"{next(manual.numbers):016x}", "new-host", authorise=False)


@maker("repository")
async def _backup(manual: Manual) -> int:
    return await backed_up(manual.house)


@maker("task_queue")
async def _task(manual: Manual) -> int:
    return await queued(manual.house)


# --- sign-in ------------------------------------------------------------------------------------------------------------


@prepares("POST /auth/login")
async def _login(manual: Manual, fact: Fact) -> Asked:
    """The password is that of this installation."""
    return await manual.plain(fact, body={**fact.request_example, "password": PASSWORD})


@prepares("POST /auth/refresh")
async def _refresh(manual: Manual, fact: Fact) -> Asked:
    signed_in = (await manual.house.login()).data
    headers = {
        "Authorization-Access-Token": f"Bearer {signed_in['access_token']}",
        "Authorization": f"Bearer {signed_in['refresh_token']}",
    }
    return Asked("POST", "auth/refresh", None, headers)


@prepares("DELETE /auth/logout")
async def _logout(manual: Manual, fact: Fact) -> Asked:
    """Of a login of its own; the tests go on with theirs."""
    ours = manual.house.tokens
    other = (await manual.house.login()).data
    manual.house.tokens = ours
    return Asked("DELETE", "auth/logout", None, {"Authorization": f"Bearer {other['access_token']}"})


# --- clients and pools --------------------------------------------------------------------------------------------------


@prepares("POST /clients/authorize")
async def _authorize(manual: Manual, fact: Fact) -> Asked:
    return await manual.plain(fact, record=await manual.record("unauthorised_clients"))


@prepares("POST /clients/tree")
async def _clients_tree(manual: Manual, fact: Fact) -> Asked:
    return await manual.plain(fact, record=1)


@prepares("POST /list_client_filesystem", "POST /list_client_block_devices", "POST /module_resource_list")
async def _ask_agent(manual: Manual, fact: Fact) -> Asked:
    listed = await rows(manual.house, "clients")
    manual.house.sessions.connected.update(one["id"] for one in listed)
    return await manual.plain(fact)


@prepares("POST /storage_local_catalogs")
async def _catalog(manual: Manual, fact: Fact) -> Asked:
    """The manual's path is empty."""
    path = str(manual.directory / f"catalog{next(manual.numbers)}")
    return await manual.plain(fact, body={"data": fact.request_example["data"] | {"path": path}})


# --- tasks and backups --------------------------------------------------------------------------------------------------


def _asks_of_task(status: str) -> Preparation:
    async def prepare(manual: Manual, fact: Fact) -> Asked:
        house = manual.house
        task = await queued(house)
        if status == "Paused":
            assert (await house.call("POST", "put_task_on_pause", {"data": {"task_id": task}})).status == 200
        elif status == "Error":
            await failed(house, task)
        elif status == "running":
            await running(house, task)
        return await manual.plain(fact, record=task)

    return prepare


prepares("POST /put_task_on_pause", "POST /kill_task", "DELETE /task_queue/{id}", "DELETE /task_queue")(
    _asks_of_task("New")
)
prepares("POST /continue_task_working")(_asks_of_task("Paused"))
prepares("POST /restart_task")(_asks_of_task("Error"))


@prepares("DELETE /task_queue/{status}")
async def _by_word(manual: Manual, fact: Fact) -> Asked:
    await failed(manual.house, await queued(manual.house))
    return Asked("DELETE", "task_queue/error")


@prepares("GET /task_queue/extension", "GET /global_schedule/extension")
async def _extension(manual: Manual, fact: Fact) -> Asked:
    return await manual.plain(fact, query="?resourse_type=File%20system")


@prepares("GET /client_task_info", "GET /server_task_info")
async def _journal(manual: Manual, fact: Fact) -> Asked:
    return await manual.plain(fact, query=f"?id={await manual.record('task_queue')}")


@prepares("GET /repository_record_file_list")
async def _names(manual: Manual, fact: Fact) -> Asked:
    return await manual.plain(fact, query=f"?id={await manual.record('repository')}")


@prepares("POST /repository/{id}/copying", "POST /repository/{id}/moving")
async def _copy(manual: Manual, fact: Fact) -> Asked:
    return await manual.plain(fact, query="?pool=Default2", record=await backed_up(manual.house))


@prepares("POST /repository/{id}/restoring")
async def _restore(manual: Manual, fact: Fact) -> Asked:
    """The two clients are of one shared group: otherwise one may not restore what is the other's."""
    house = manual.house
    if "shared" not in manual.made:
        body = {"data": {"name": "shared_group", "shared": True}}
        manual.made["shared"] = int((await house.call("POST", "client_groups", body)).data["id"])
        for one in await rows(house, "clients"):
            change = {"data": {"group_id": "shared_group"}}
            assert (await house.call("PATCH", f"clients/{one['id']}", change)).status == 200
    return await manual.plain(fact, record=await backed_up(house))


@prepares("POST /repository/{id}/verification", "DELETE /repository/{id}")
async def _of_fresh_backup(manual: Manual, fact: Fact) -> Asked:
    return await manual.plain(fact, record=await backed_up(manual.house))


@prepares("PATCH /repository/{id}")
async def _store_until(manual: Manual, fact: Fact) -> Asked:
    """The manual's date is over."""
    return await manual.plain(fact, body={"data": {"store_until": "2034-09-07T22:06:09.801038"}})
