"""Methods of a declared resource: list, detail, create, change, delete one, delete many.

Nothing is written by hand per resource. Which of the six exist is what the document of the API says (``documented``), limited to what the
declaration allows; how they check, filter, sort and look in OpenAPI follows from the declaration's fields.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from httpapi import schema
from httpapi.call import Call
from httpapi.envelope import Answer
from httpapi.json_body import refuse
from httpapi.listing import PARAMETERS, payload_of_page, query_of
from httpapi.method import AT, Handler, Method, Schema
from httpapi.reading import Overlay, Reading
from rbcore.commands import ChangeRecord, CreateRecord, DeleteRecords
from rbcore.errors import NotFound
from rbcore.resource import Resource

IDS_MAX = 10_000
"""Ids in one bulk request."""


class IdsBody:
    """``{"ids": [1, 2]}``: the documented body of bulk methods, without the ``data`` wrapper."""

    required = True

    def parse(self, document: dict[str, Any]) -> list[int]:
        for name in document:
            if name != "ids":
                raise refuse("This field is not known here.", name)
        if "ids" not in document:
            raise refuse("This field is required.", "ids")
        return read_ids(document["ids"], "ids")

    def schema(self, components: dict[str, Schema]) -> Schema:
        components["Ids"] = {
            "type": "object",
            "properties": {"ids": {"type": "array", "items": schema.ID, "minItems": 1, "maxItems": IDS_MAX}},
            "required": ["ids"],
            "additionalProperties": False,
        }
        return {"$ref": "#/components/schemas/Ids"}


def read_ids(value: Any, field: str) -> list[int]:
    """Ids of a bulk request, each once, in the order they came."""
    good = isinstance(value, list) and all(type(one) is int and 0 < one < 2**63 for one in value)
    if not good:
        raise refuse("Must be a list of ids (whole numbers from 1).", field)
    if not 0 < len(value) <= IDS_MAX:
        raise refuse(f"Must name between 1 and {IDS_MAX} ids.", field)
    return list(dict.fromkeys(value))


@dataclass(frozen=True, slots=True)
class FieldsBody:
    """``{"data": {...}}`` with fields of a resource. Names and values are judged by the core, from the same declaration: it refuses
    unknown fields and ignores known ones that cannot be set here (reference 2.6)."""

    resource: Resource
    names: tuple[str, ...]
    creating: bool

    @property
    def required(self) -> bool:
        return True

    def parse(self, document: dict[str, Any]) -> dict[str, Any]:
        for name in document:
            if name != "data":
                raise refuse('This field is not known here; fields stand inside "data".', name)
        fields = document.get("data")
        if not isinstance(fields, dict):
            raise refuse('The body must be an object {"data": {...}}.', "data")
        return fields

    def schema(self, components: dict[str, Schema]) -> Schema:
        name = f"{self.resource.name}_{'create' if self.creating else 'change'}"
        fields = [self.resource.field(one) for one in self.names]
        ignored = [one.name for one in self.resource.fields if one.name not in self.names]
        if not self.creating:
            ignored.insert(0, "id")
        components[name] = schema.given(fields, creating=self.creating, ignored=ignored)
        return schema.wrapped({"$ref": f"#/components/schemas/{name}"})


def row_schema(resource: Resource, *, in_list: bool, added: Mapping[str, Schema] | None = None) -> tuple[str, Schema]:
    """Name and schema of the component. ``added``: keys beyond the declared ones, see ``methods_of``."""
    row = schema.record(resource, in_list=in_list)
    if added:
        row["properties"] |= added
        row["required"] = [*row["required"], *added]
    return (f"{resource.name}_row" if in_list else resource.name), row


Adjust = Callable[[Call, dict[str, Any]], None]
Live = Callable[[Call, int | None], Overlay | None]
"""What rows of a list (None), or of one record, show in place of what the view has."""


def methods_of(
    resource: Resource,
    documented: Callable[[str, str], bool],
    *,
    overrides: Mapping[str, Handler] | None = None,
    adjust: Adjust | None = None,
    added: Mapping[str, Schema] | None = None,
    live: Live | None = None,
) -> list[Method]:
    """The methods of ``resource`` that are ``documented(verb, path)``.

    ``overrides`` replaces handlers by ``"DELETE /path/{id}"``; ``adjust(call, row)`` adds to a row what no view knows, under declared
    names or under ``added`` ones. By those nobody can filter or sort: they are refused, not found empty. ``live`` is the same for values that can be told
    before the rows are known: such reads are carried out by any process that has the views, adjusted ones by the daemon alone.
    """
    collection, one = f"/{resource.name}", f"/{resource.name}/{{id}}"
    made = [
        _list(resource, collection, adjust, added, live),
        _detail(resource, one, adjust, added, live),
        _create(resource, collection),
        _change(resource, one),
        _delete_one(resource, one),
        _delete_many(resource, collection),
    ]
    replacing = dict(overrides or {})
    found: list[Method] = []
    for method in made:
        handler = replacing.pop(method.name, None)
        allowed = handler is not None or _allowed(resource, method)
        if allowed and documented(method.verb, method.path):
            found.append(method if handler is None else replace(method, handle=handler, read=None))
    assert not replacing, f"{resource.name} has no methods {sorted(replacing)}"
    return found


def _allowed(resource: Resource, method: Method) -> bool:
    return {
        "GET": True,
        "POST": bool(resource.create),
        "PATCH": bool(resource.change),
        "DELETE": resource.deletable,
    }[method.verb]


def _list(
    resource: Resource, path: str, adjust: Adjust | None, added: Mapping[str, Schema] | None, live: Live | None
) -> Method:
    def read(call: Call, at: int | None) -> Reading:
        query = query_of(resource.name, call.query, at)
        return call.reading_of_page(query, live(call, None) if live is not None else None)

    async def handle(call: Call) -> Answer:
        return await call.carry_out(read(call, await call.position_asked()))

    async def handle_adjusted(call: Call) -> Answer:
        assert adjust is not None, "only then this is the handler"
        page = await call.page(query_of(resource.name, call.query, await call.position_asked()))
        for row in page.rows:
            adjust(call, row)
        return Answer(payload_of_page(page, call.query), position=page.position)

    name, row = row_schema(resource, in_list=True, added=added)
    return Method(
        verb="GET",
        path=path,
        group=resource.title,
        summary=f"List: {resource.title}",
        handle=handle if adjust is None else handle_adjusted,
        read=read if adjust is None else None,
        roles=resource.read,
        query=PARAMETERS,
        data=schema.listing({"$ref": f"#/components/schemas/{name}"}),
        components={name: row},
    )


def _detail(
    resource: Resource, path: str, adjust: Adjust | None, added: Mapping[str, Schema] | None, live: Live | None
) -> Method:
    def read(call: Call, at: int | None) -> Reading:
        record_id = call.id(resource.noun)
        overlay = live(call, record_id) if live is not None else None
        return call.reading_of_row(resource.name, record_id, resource.noun, at, overlay)

    async def handle(call: Call) -> Answer:
        answer = await call.carry_out(read(call, await call.position_asked()))
        if adjust is not None:
            adjust(call, answer.data)
        return answer

    name, whole = row_schema(resource, in_list=False, added=added)
    return Method(
        verb="GET",
        path=path,
        group=resource.title,
        summary=f"Show one: {resource.noun}",
        handle=handle,
        read=read if adjust is None else None,
        roles=resource.read,
        query=(AT,),
        data={"$ref": f"#/components/schemas/{name}"},
        components={name: whole},
    )


def _create(resource: Resource, path: str) -> Method:
    async def handle(call: Call) -> Answer:
        reply = await call.submit(CreateRecord(resource=resource.name, fields=call.body))
        return Answer({"id": reply.ids[0]}, reply.message, position=reply.position)

    return Method(
        verb="POST",
        path=path,
        group=resource.title,
        summary=f"Create: {resource.noun}",
        handle=handle,
        status=201,
        roles=resource.manage,
        body=FieldsBody(resource, resource.create, creating=True),
        data={"type": "object", "properties": {"id": schema.ID}, "required": ["id"]},
    )


def _change(resource: Resource, path: str) -> Method:
    async def handle(call: Call) -> Answer:
        command = ChangeRecord(resource=resource.name, id=call.id(resource.noun), changes=call.body)
        reply = await call.submit(command)
        return Answer({"id": command.id}, call.message, position=reply.position)

    return Method(
        verb="PATCH",
        path=path,
        group=resource.title,
        summary=f"Change: {resource.noun}",
        handle=handle,
        roles=resource.manage,
        body=FieldsBody(resource, resource.change, creating=False),
        data={"type": "object", "properties": {"id": schema.ID}, "required": ["id"]},
    )


def _delete_one(resource: Resource, path: str) -> Method:
    async def handle(call: Call) -> Answer:
        record_id = call.id(resource.noun)
        reply = await call.submit(DeleteRecords(resource=resource.name, ids=[record_id]))
        return Answer({"ids": reply.ids}, call.message, position=reply.position)

    return Method(
        verb="DELETE",
        path=path,
        group=resource.title,
        summary=f"Delete one: {resource.noun}",
        handle=handle,
        roles=resource.manage,
        data=DELETED,
    )


def _delete_many(resource: Resource, path: str) -> Method:
    async def handle(call: Call) -> Answer:
        reply = await call.submit(DeleteRecords(resource=resource.name, ids=call.body))
        return Answer({"ids": reply.ids}, call.message, position=reply.position)

    return Method(
        verb="DELETE",
        path=path,
        group=resource.title,
        summary=f"Delete several: {resource.noun}",
        handle=handle,
        roles=resource.manage,
        body=IdsBody(),
        data=DELETED,
    )


CHANGED: Schema = {"type": "object", "properties": {"id": schema.ID}, "required": ["id"]}
DELETED: Schema = {
    "type": "object",
    "properties": {"ids": {"type": "array", "items": schema.ID}},
    "required": ["ids"],
}


def not_found(resource: Resource, id: int) -> NotFound:
    return NotFound(f"{resource.noun} not found", errors={"id": [f"There is no {resource.noun} with id {id}."]})
