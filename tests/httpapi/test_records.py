"""Methods that follow from declared resources alone: pools, local catalogs, clients, and whatever is declared next."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlencode

import msgspec
import pytest

from httpapi.rubackup.catalogue import facts
from httpapi.rubackup.dictionaries import DICTIONARIES
from rbcore.entities import User
from rbcore.resources import RESOURCES
from tests.httpapi.house import CLIENT, HWID, House


def filtered(condition: str) -> str:
    return urlencode({"filter_data": condition})


POOL = {"pool_name": "my_pool_name", "pool_type": "File system", "media_server": "rubackup-server"}


async def make_pool(house: House, **fields: Any) -> int:
    answer = await house.call("POST", "pool_list", {"data": POOL | fields})
    assert answer.status == 201, answer.raw
    return int(answer.data["id"])


async def test_the_life_of_a_pool(house: House) -> None:
    made = await house.call("POST", "pool_list", {"data": POOL | {"retention_period": "1 Years"}})
    assert (made.status, made.message) == (201, "Resource with name 'Pool List' was created successfully!")
    pool = made.data["id"]
    shown = await house.call("GET", f"pool_list/{pool}")
    assert shown.data["pool_name"] == "my_pool_name"
    assert shown.data["retention_period"] == "1 year"
    assert shown.position == made.position, "a client reads its own writes"
    changed = await house.call("PATCH", f"pool_list/{pool}", {"data": {"description": "new"}})
    assert (changed.status, changed.message) == (200, "pool parameters changed")
    after = (await house.call("GET", f"pool_list/{pool}")).data
    assert after == shown.data | {"description": "new"}
    gone = await house.call("DELETE", f"pool_list/{pool}")
    assert (gone.status, gone.message, gone.data) == (200, "pool deleted", {"ids": [pool]})
    for verb, body in (("GET", None), ("DELETE", None), ("PATCH", {"data": {"description": ""}})):
        answer = await house.call(verb, f"pool_list/{pool}", body)
        assert (answer.status, answer.message) == (404, "pool not found")
    before = await house.call("GET", f"pool_list/{pool}?at={changed.position}")
    assert before.data["description"] == "new"


async def test_the_manuals_block_device_pool(house: House) -> None:
    example = facts()["POST /pool_list"].request_example
    made = await house.call("POST", "pool_list", example)
    assert made.status == 201, made.raw
    pool = (await house.call("GET", f"pool_list/{made.data['id']}")).data
    assert (pool["algorithm"], pool["block_size"], pool["hash_length"]) == ("streebog", 131072, 256)
    assert pool["meta_data_pool"] == "Default"


async def test_parameters_that_do_not_fit_the_type_are_ignored(house: House) -> None:
    pool = await make_pool(house, algorithm="streebog", block_size=131072, hash_length=256)
    row = (await house.call("GET", f"pool_list/{pool}")).data
    assert (row["algorithm"], row["block_size"], row["hash_length"]) == (None, None, None)


async def test_type_and_server_of_a_pool_never_change(house: House) -> None:
    pool = await make_pool(house)
    await house.call("PATCH", f"pool_list/{pool}", {"data": {"pool_type": "Block device"}})
    assert (await house.call("GET", f"pool_list/{pool}")).data["pool_type"] == "File system"


async def test_bulk_deletion_is_all_or_nothing(house: House) -> None:
    pools = [await make_pool(house, pool_name=f"p{number}") for number in range(3)]
    missing = await house.call("DELETE", "pool_list", {"ids": [*pools, 999999]})
    assert (missing.status, missing.message) == (404, "pool not found")
    assert (await house.call("GET", "pool_list")).data["total"] == 4
    refused = await house.call("DELETE", "pool_list", {"ids": [*pools, 1]})
    assert refused.status == 400
    assert (await house.call("GET", "pool_list")).data["total"] == 4
    gone = await house.call("DELETE", "pool_list", {"ids": [*pools, pools[0]]})
    assert (gone.status, gone.message, gone.data["ids"]) == (200, "list of pools deleted", pools)
    assert (await house.call("GET", "pool_list")).data["total"] == 1


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"ids": []},
        {"ids": 1},
        {"ids": ["1"]},
        {"ids": [0]},
        {"ids": [True]},
        {"ids": [1], "x": 1},
        {"data": {"ids": [1]}},
        {"ids": [2**63]},
        {"ids": [1.0]},
    ],
)
async def test_bulk_bodies_are_checked(house: House, body: Any) -> None:
    answer = await house.call("DELETE", "pool_list", body)
    assert answer.status == 400
    assert answer.errors


async def test_lists_page_sort_and_filter(house: House) -> None:
    for number in range(25):
        await make_pool(house, pool_name=f"test{number:02}", description="even" if number % 2 == 0 else 'odd, "quoted"')
    first = (await house.call("GET", "pool_list")).data
    assert (len(first["items"]), first["total"], first["page"], first["limit"]) == (20, 26, 1, 20)
    second = (await house.call("GET", "pool_list?page=2&limit=20")).data
    assert len(second["items"]) == 6
    beyond = (await house.call("GET", "pool_list?page=1000000000")).data
    assert (beyond["items"], beyond["total"]) == ([], 26)
    for names in ("sort_by=pool_name&sort_order=desc", "sort=pool_name&order=desc"):
        rows = (await house.call("GET", f"pool_list?{names}&limit=2")).data["items"]
        assert [row["pool_name"] for row in rows] == ["test24", "test23"]
    for text, total in (
        ('pool_name="test01"', 1),
        ('pool_name~"TE"', 25),
        ('pool_name~"te",description="even"', 13),
        ('pool_name~"te"&&description~"quoted"', 12),
        ('description="odd, \\"quoted\\""', 12),
        ('media_server="rubackup-server",pool_name!="Default"', 25),
        ('id>"24"', 2),
        ('pool_name="\' OR 1=1 --"', 0),
    ):
        answer = await house.call("GET", f"pool_list?{filtered(text)}")
        assert answer.status == 200, answer.raw
        assert answer.data["total"] == total, text
    both = await house.call("GET", "pool_list?" + filtered('pool_name~"te"') + "&" + filtered('id>"20"'))
    assert both.data["total"] == 6


async def test_local_catalogs(house: House) -> None:
    example = {"data": {"path": "/srv/backups", "pool": "Default", "description": ""}}
    made = await house.call("POST", "storage_local_catalogs", example)
    assert (made.status, made.message) == (
        201,
        "Resource with name 'Storage Local Catalogs' was created successfully!",
    )
    path = f"storage_local_catalogs/{made.data['id']}"
    assert (await house.call("PATCH", path, {"data": {"description": "fast"}})).status == 200
    assert (await house.call("GET", path)).data["description"] == "fast"
    assert (await house.call("GET", "storage_local_catalogs")).data["total"] == 2
    nested = await house.call("POST", "storage_local_catalogs", {"data": {"path": "/srv/backups/x", "pool": "Default"}})
    assert nested.status == 400
    assert (await house.call("DELETE", path)).status == 200
    assert (await house.call("DELETE", "storage_local_catalogs", {"ids": [99]})).status == 404
    assert (await house.call("GET", path)).message == "local file storage not found"


async def test_a_client_appears_is_authorised_and_goes_back(house: House) -> None:
    row = await house.add_client(authorise=False)
    waiting = (await house.call("GET", "unauthorised_clients")).data
    assert [one["hwid"] for one in waiting["items"]] == [HWID]
    assert (await house.call("GET", "server_state")).data["unauthorised_clients"]["total"] == 1
    answer = await house.call("POST", "clients/authorize", {"data": {"clients_ids": [row]}})
    assert (answer.status, answer.message) == (201, "client authorised")
    client = answer.data["ids"][0]
    assert (await house.call("GET", f"unauthorised_clients/{row}")).status == 404
    shown = (await house.call("GET", f"clients/{client}")).data
    assert (shown["client"], shown["group_id"], shown["ls_pool"]) == (CLIENT, "No group", "Default")
    example = facts()["PATCH /clients/{id}"].request_example
    assert (await house.call("PATCH", f"clients/{client}", example)).status == 200
    changed = (await house.call("GET", f"clients/{client}")).data
    assert changed.items() >= example["data"].items()
    types = (await house.call("GET", f"clients/{client}/resourse_type")).data
    assert [one["name"] for one in types["items"]] == ["File system", "Block device"]
    gone = await house.call("DELETE", f"clients/{client}")
    assert gone.status == 200
    assert (await house.call("GET", "unauthorised_clients")).data["total"] == 1
    again = await house.call("GET", f"clients/{client}")
    assert (again.status, again.message) == (404, "authorised client not found")
    assert (await house.call("POST", "clients/authorize", {"data": {"clients_ids": [999]}})).status == 404


async def test_unauthorised_clients_can_be_removed(house: House) -> None:
    rows = [await house.add_client(f"{number:016x}", f"h{number}", authorise=False) for number in range(3)]
    assert (await house.call("DELETE", f"unauthorised_clients/{rows[0]}")).status == 200
    assert (await house.call("DELETE", "unauthorised_clients", {"ids": rows[1:]})).status == 200
    assert (await house.call("GET", "unauthorised_clients")).data["total"] == 0


async def test_the_tree_of_clients_pages_at_both_levels(house: House) -> None:
    for number in range(5):
        await house.add_client(f"{number:016x}", f"host{number}")
    assert (await house.call("POST", "client_groups", {"data": {"name": "web"}})).status == 201
    example = facts()["POST /clients/tree"].request_example
    tree = await house.call("POST", "clients/tree", example)
    assert tree.status == 200, tree.raw
    assert [group["name"] for group in tree.data["items"]] == ["No group", "web"]
    assert [group["clients"]["total"] for group in tree.data["items"]] == [0, 0], "the sample filters by host name"
    part = {"clients": [{"client_group_id": 1, "clients_limit": 2, "clients_page": 2}], "client_groups_limit": 1}
    tree = await house.call("POST", "clients/tree", {"data": part})
    assert (tree.data["total"], len(tree.data["items"])) == (2, 1)
    clients = tree.data["items"][0]["clients"]
    assert [one["hostname"] for one in clients["items"]] == ["host2", "host3"]
    assert clients["total"] == 5
    unknown = await house.call("POST", "clients/tree", {"data": {"clients": [{"client_group_id": 99}]}})
    assert unknown.status == 404
    assert (await house.call("POST", "clients/tree", {"data": {"client_groups_limit": 0}})).status == 400


async def test_agents_are_asked_for_their_file_systems(house: House) -> None:
    client = await house.add_client()
    body = {"data": {"client_hwid": HWID, "path": "/"}}
    for path in ("list_client_filesystem", "list_client_block_devices"):
        offline = await house.call("POST", path, body)
        assert offline.status == 503
        assert "not connected" in offline.message
    house.sessions.connected.add(client)
    house.sessions.rows = [{"name": "etc", "type": "directory"}]
    answer = await house.call("POST", "list_client_filesystem", body)
    assert (answer.status, answer.data["items"], answer.data["total"]) == (200, house.sessions.rows, 1)
    assert house.sessions.asked[-1].path == "/"
    unknown = await house.call("POST", "list_client_filesystem", {"data": {"client_hwid": "beef", "path": "/"}})
    assert unknown.status == 404


async def test_roles_decide_and_refusals_are_recorded(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    await house.login()
    table = house.journal.state.tables[User.KIND]
    (user,) = table.values()
    monkeypatch.setitem(table, user.id, msgspec.structs.replace(user, roles=("administrator",)))
    assert (await house.call("GET", "pool_list")).status == 200
    refused = await house.call("POST", "pool_list", {"data": POOL})
    assert refused.status == 403
    assert "superuser" in refused.message
    last = list(house.log.read())[-1]
    assert last.type == "access.denied"
    monkeypatch.setitem(table, user.id, msgspec.structs.replace(user, roles=()))
    assert (await house.call("GET", "pool_list")).status == 403
    monkeypatch.setitem(table, user.id, msgspec.structs.replace(user, credential_id="another"))
    assert (await house.call("GET", "pool_list")).status == 401, "another password ends the login"


async def test_every_declared_resource_has_its_documented_reads(house: House) -> None:
    for resource in RESOURCES:
        if resource.name == "global_configuration":
            continue  # one record, and no list of it
        listed = await house.call("GET", resource.name)
        assert listed.status == 200
        assert listed.data["total"] == len(listed.data["items"])
        for row in listed.data["items"]:
            assert (await house.call("GET", f"{resource.name}/{row['id']}")).data.items() >= row.items()
        assert (await house.call("GET", f"{resource.name}/999999")).status == 404


@pytest.mark.parametrize("sort", ["id", "name"])
async def test_dictionaries(house: House, sort: str) -> None:
    for path, (_, rows) in DICTIONARIES.items():
        answer = await house.call("GET", f"{path}?sort_by={sort}&limit=1000")
        assert answer.status == 200
        assert sorted(answer.data["items"], key=lambda row: row["id"]) == list(rows)
        condition = filtered('name="{}"'.format(rows[0]["name"]))
        one = await house.call("GET", f"{path}?{condition}")
        assert one.data["items"][0]["name"] == rows[0]["name"]
    assert (await house.call("GET", "task_status?sort_order=desc&limit=1")).data["items"][0]["name"] == "Killed"
    assert (await house.call("GET", "resourse_types/1")).data == {"id": 1, "name": "File system"}
    assert (await house.call("GET", "license_types/2")).status == 404
    assert (await house.call("GET", "crypto?sort_by=nothing")).status == 400
