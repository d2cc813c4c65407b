"""What the published manual says of each of its 256 methods: the facts that declarations are completed with.

``catalogue.json`` holds, per method: id, group, section, description, rules, documented status codes with their texts, and the example
bodies. A declaration names verb and path and gets the rest from here, so that no fact of the manual is typed twice.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import cache
from importlib.resources import files
from typing import Any

import msgspec

from httpapi.method import EVERYBODY, Body, Handler, Method, Parameter, Schema


class Fact(msgspec.Struct, frozen=True, kw_only=True):
    """One method as the manual has it."""

    id: str
    group: str
    section: str
    method: str
    path: str
    description: str
    rules: list[str]
    responses: dict[str, str]
    request_example: Any = None
    response_example: Any = None
    required_keys: list[str] = []
    query: list[dict[str, Any]] = []

    @property
    def success(self) -> int:
        """The first documented 2xx; the one row of the manual without any (rb-060) is a list."""
        return next((int(code) for code in self.responses if code.startswith("2")), 200)


CORRECTIONS: Mapping[str, Mapping[str, Any]] = {
    "PATCH /dynamic_pool_groups/{id}": {"data": {"name": "fast pools"}},
    "PATCH /tape_cartridges/{id}": {"data": {"volume_tag": "RB10002L9"}},
    "PATCH /users/change_password": {"new_password": "correct horse"},
    "PATCH /users/{id}": {"data": {"new_password": "correct horse"}},
    "POST /disaster_recovery_plan": {"data": {"resource_type": "File system", "resource": "/home/"}},
    "PATCH /disaster_recovery_plan/{id}": {"data": {"resource_type": "File system", "resource": "/home/"}},
    "POST /dynamic_pool_groups": {"data": {"name": "fast pools"}},
    "POST /storage_block_devices": {"data": {"device": "/dev/disk/by-id/wwn-0x5000c500a1b2c3d4"}},
    "POST /storage_local_catalogs": {"data": {"path": "/rubackup2"}},
    "POST /users": {"data": {"username": "operator", "user_password": "correct horse"}},
}
"""Values of the manual's request bodies that no installation can accept, mostly empty names, and what the description of the API shows in
their place."""


ADDED_TO_ANSWERS: Mapping[str, Callable[[Any], Any]] = {
    "POST /task_queue": lambda example: example | {"data": {"task_id": 17}},
}
"""What our answer has beside what the manual's sample shows."""


def corrected(name: str, example: Any) -> Any:
    """The manual's body of a method, with values in it that can be accepted."""
    return _merged(example, CORRECTIONS.get(name, {}))


def _merged(value: Any, changes: Any) -> Any:
    if not isinstance(value, dict):
        return changes
    return value | {name: _merged(value.get(name), one) for name, one in changes.items()}


@cache
def facts() -> dict[str, Fact]:
    """``"POST /task_queue"`` -> what the manual says."""
    raw = files("httpapi.rubackup").joinpath("catalogue.json").read_bytes()
    return {f"{one.method} {one.path}": one for one in msgspec.json.decode(raw, type=list[Fact])}


def documented(verb: str, path: str) -> bool:
    return f"{verb} {path}" in facts()


def complete(method: Method) -> Method:
    """``method`` with the manual's group, texts, codes and examples. Additions of ours stay as they are."""
    if method.addition:
        return method
    fact = facts()[method.name]
    refusals = {int(code): text for code, text in fact.responses.items() if int(code) != fact.success}
    return replace(
        method,
        group=fact.group,
        summary=fact.description.rstrip("."),
        description=" ".join(fact.rules),
        status=fact.success,
        refusals=refusals,
        message=fact.responses.get(str(fact.success), ""),
        request_example=corrected(method.name, fact.request_example) if fact.request_example else None,
        response_example=ADDED_TO_ANSWERS.get(method.name, lambda example: example)(fact.response_example),
    )


def action(
    verb: str,
    path: str,
    *,
    roles: frozenset[str] | None = EVERYBODY,
    body: Body | None = None,
    query: tuple[Parameter, ...] = (),
    data: Schema | None = None,
    components: Mapping[str, Schema] | None = None,
    path_schemas: Mapping[str, Schema] | None = None,
    addition: str = "",
    asks_devices: bool = False,
    group: str = "",
) -> Callable[[Handler], Method]:
    """Declare a handler as the method ``verb path``; ``addition`` is the summary of one that the manual does not have."""

    def declare(handle: Handler) -> Method:
        method = Method(
            verb=verb,
            path=path,
            group=group,
            summary=addition,
            handle=handle,
            roles=roles,
            body=body,
            query=query,
            data=data or {"type": "object"},
            components=components or {},
            path_schemas=path_schemas or {},
            addition=bool(addition),
            asks_devices=asks_devices,
        )
        return complete(method)

    return declare
