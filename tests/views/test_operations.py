"""The journals of operations: what they say of a record can be said of every kind of record they are about."""

from __future__ import annotations

import msgspec
import pytest

from eventlog.views.operations import MEDIA_SERVERS_LOG
from rbcore.entities import Entity, MediaServer, Pool, TapeLibrary
from rbcore.events import Envelope, RecordDeleted
from rbcore.resource import Resource
from rbcore.resources import by_name
from rbcore.state import State

ABOUT = (
    "media_servers",
    "unauthorised_media_servers",
    "pool_list",
    "storage_local_catalogs",
    "storage_block_devices",
    "client_defined_storages",
    "tape_libraries",
    "library_tape_drives",
    "medium_changers",
)


def made(resource: Resource) -> Entity:
    """A record with something in every required field; all references are to 1."""
    values: dict[str, object] = {"id": 1}
    for field in msgspec.structs.fields(resource.entity):
        if field.required and field.name != "id":
            values[field.name] = 1 if field.type is int else f"the {field.name}"
    if "media_server" in resource.entity.__struct_fields__:
        values["media_server"] = 1
    return msgspec.convert(values, resource.entity)


@pytest.mark.parametrize("name", ABOUT)
def test_every_record_of_a_media_server_has_a_name_and_its_server(name: str) -> None:
    resource = by_name[name]
    record, state = made(resource), State()
    state.replace("media_server", 1, MediaServer(id=1, hostname="main", hwid="00"))
    state.replace("pool", 1, Pool(id=1, pool_name="Default", pool_type="File system", media_server=1))
    state.replace("tape_library", 1, TapeLibrary(id=1, pool=1, media_server=1))
    envelope = Envelope(
        position=1,
        time_ns=5,
        stream=f"{resource.kind}/1",
        version=2,
        type=RecordDeleted.TYPE,
        schema=1,
        actor="user:rubackup",
        command_id="c",
        causation=0,
        correlation="c",
        body=msgspec.Raw(b"\x80"),
    )
    (line,) = MEDIA_SERVERS_LOG.lines[RecordDeleted](envelope, RecordDeleted(), state, record)
    shown = dict(zip((one.name for one in MEDIA_SERVERS_LOG.fields), line, strict=True))
    assert shown["media_server"] == (0 if name == "unauthorised_media_servers" else 1)
    assert str(shown["object"]).startswith(resource.noun)
    assert shown["text"] == "Deleted"
