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
        request_example=fact.request_example,
        response_example=fact.response_example,
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
