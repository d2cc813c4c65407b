"""The catalogue carried out: in every group each documented method does what its example says and gives every documented status code.

One house per group, in which the group's methods are called in the order of a record's life. At the end the codes that were really
answered are compared with the documented ones. pytest prints the sum of it (``contract``).
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from httpapi.method import ANY_USER, Body, Method, PartsBody
from httpapi.records import FieldsBody
from httpapi.rubackup import methods
from httpapi.rubackup.catalogue import Fact, facts
from httpapi.services import Settings
from rbcore.resource import Reference
from tests.httpapi.contract import OTHERWISE, REPORT, SAME_ROUTE
from tests.httpapi.house import USER, ApiAnswer, House
from tests.httpapi.manual import Asked, Manual, missing, prepare

OVERSIZE = b" " * (Settings().body_bytes_max + 1)
GROUPS = sorted({fact.group for fact in facts().values()})
METHODS: dict[str, Method] = {method.name: method for method in methods()}


def method_of(fact: Fact) -> Method:
    name = f"{fact.method} {fact.path}"
    return METHODS[SAME_ROUTE.get(name, name)]


def life(group: list[Fact]) -> list[Fact]:
    """Made, read, changed, used, deleted."""

    def rank(fact: Fact) -> tuple[int, str]:
        deep = fact.path.count("/") > 1
        return {"POST": 3 if deep else 0, "GET": 1, "PATCH": 2, "DELETE": 5 if deep else 4}[fact.method], fact.path

    return sorted(group, key=rank)


async def send(house: House, asked: Asked, **options: Any) -> ApiAnswer:
    if asked.headers is None:
        return await house.call(asked.verb, asked.path, asked.body, **options)
    if asked.body is not None:
        options["json"] = asked.body
    return await house.raw(asked.verb, asked.path, headers=asked.headers, **options)


@pytest.mark.parametrize("group", GROUPS)
async def test_each_method_does_what_is_documented(house: House, tmp_path: Path, group: str) -> None:
    manual = await prepare(house, tmp_path)
    own = life([fact for fact in facts().values() if fact.group == group])
    for fact in own:
        method = method_of(fact)
        request = await manual.asked(f"{fact.method} {fact.path}")
        answer = await first_and_again(house, request)
        assert answer.status == fact.success, (request, answer.raw)
        if answer.status != 204:
            assert answer.envelope["errors"] == {}
            manual.note(method.name, answer.data)
        assert answer.position <= house.log.head
        if request.verb == "GET" and set(answer.data) == {"items", "total", "page", "limit"}:
            assert (answer.data["page"], len(answer.data["items"])) == (
                1,
                min(answer.data["total"], answer.data["limit"]),
            )
        await refusals(house, manual, fact, method)
    await OTHERWISE.carry_out(group, manual)
    answered = house.description.answered
    REPORT.note(answered)
    for fact in own:
        verb, _, path = method_of(fact).name.partition(" ")
        given = {code for one, template, code in answered if (one, template) == (verb, path)}
        documented = {int(code) for code in fact.responses}
        assert documented <= given, f"{fact.method} {fact.path} never answered {documented - given}"


async def first_and_again(house: House, request: Asked) -> ApiAnswer:
    """The answer; of a POST that is sent twice with one key, which does the same as once."""
    if request.verb != "POST" or request.headers is not None or request.path == "auth/login":
        return await send(house, request)
    key = f"contract {request.path}"
    answer = await house.call(request.verb, request.path, request.body, Idempotency_Key=key)
    await house.until(lambda: True)
    head = house.log.head
    again = await house.call(request.verb, request.path, request.body, Idempotency_Key=key)
    assert (again.status, again.envelope) == (answer.status, answer.envelope), request
    assert not [one.type for one in house.log.read(head) if one.actor == f"user:{USER}"], request
    return answer


async def refusals(house: House, manual: Manual, fact: Fact, method: Method) -> None:
    """What every method answers to the same faults."""
    request = await manual.asked(f"{fact.method} {fact.path}")
    head = house.log.head
    absent = missing(request, fact)
    if absent is not None and f"{fact.method} {fact.path}" != "DELETE /task_queue/{status}":
        answer = await send(house, absent)
        assert answer.status == 404, (absent, answer.raw)
        assert answer.errors, "404 names what is not there"
    if method.roles is not None:
        nobody = await house.raw(request.verb, request.path, json=request.body)
        assert (nobody.status, nobody.message) == (401, "Verification failed")
        if method.roles != ANY_USER and request.headers is None:
            visitor = await house.raw(request.verb, request.path, json=request.body, headers=manual.visitor)
            assert (visitor.status, visitor.envelope["is_error"]) == (403, True), (request, visitor.raw)
    unknown = await send(house, _with_query(request, "no_such_parameter=1"))
    assert (unknown.status, list(unknown.errors)) == (400, ["no_such_parameter"]), (request, unknown.raw)
    if method.body is not None:
        for field, body in faults(request.body):
            if isinstance(method.body, FieldsBody) and field not in (
                None,
                "unheard_of",
                *method.body.names,
                *PASSWORDS,
            ):
                continue  # a known field that cannot be set here is ignored, whatever it says
            answer = await send(house, Asked(request.verb, request.path, body, request.headers))
            assert answer.status == 400, (request, body, answer.raw)
            assert field is None or any(field in name for name in answer.errors), (field, answer.errors)
        headers = (request.headers or house.headers) | {"Content-Type": "application/json"}
        large = await house.raw(request.verb, request.path, data=OVERSIZE, headers=headers)
        assert (large.status, list(large.errors)) == (400, ["_schema"]), request
        for field, body in declared_faults(method.body, request.body):
            answer = await send(house, Asked(request.verb, request.path, body, request.headers))
            assert (answer.status, list(answer.errors)) == (400, [field]), (request, body, answer.raw)
    done = [one.type for one in house.log.read(head) if one.actor == f"user:{USER}"]
    assert not done, "what is refused changes nothing"


def _with_query(request: Asked, query: str) -> Asked:
    joint = "&" if "?" in request.path else "?"
    return Asked(request.verb, f"{request.path}{joint}{query}", request.body, request.headers)


PASSWORDS = ("user_password", "new_password")
"""Stand beside the fields of a user."""
FREE_FORM = ("parameters", "module_extensions", "common_modules_extensions")
"""Below these anything may stand: the module of the resource type knows what."""


def faults(body: Any) -> Iterator[tuple[str | None, Any]]:
    """Documented bodies with one fault each, and the name that the answer must blame."""
    yield None, []
    yield "unheard_of", {**body, "unheard_of": 1}
    for path in _objects(body, ()):
        spoilt = copy.deepcopy(body)
        _at(spoilt, path)["unheard_of"] = 1
        yield "unheard_of", spoilt
    for path in _leaves(body, ()):
        wrong: Any
        for wrong in ({"nested": []}, [["nested"]]):
            spoilt = copy.deepcopy(body)
            _at(spoilt, path[:-1])[path[-1]] = wrong
            named = [part for part in path if isinstance(part, str)]
            yield named[-1], spoilt


def declared_faults(declared: Body, body: Any) -> Iterator[tuple[str, Any]]:
    """Bodies without a required field, and with a name that nothing has."""
    if isinstance(declared, FieldsBody):
        fields = [declared.resource.field(name) for name in declared.names]
        required = [one.name for one in fields if one.required and declared.creating]
        named = [one.name for one in fields if isinstance(one, Reference) and one.name in body["data"]]
        for name in named:
            yield name, {"data": body["data"] | {name: "no such thing (0123456789abcdef)"}}
        for name in required:
            yield name, {"data": {key: value for key, value in body["data"].items() if key != name}}
    if isinstance(declared, PartsBody):
        for part, schema in declared.parts.items():
            given = body["data"][part]
            for name in schema.get("required", ()):
                without = {key: value for key, value in given.items() if key != name}
                yield name, {"data": body["data"] | {part: without}}


def _at(body: Any, path: tuple[Any, ...]) -> Any:
    for part in path:
        body = body[part]
    return body


def _objects(value: Any, path: tuple[Any, ...]) -> Iterator[tuple[Any, ...]]:
    if isinstance(value, dict):
        if path:
            yield path
        for name, one in value.items():
            if name not in FREE_FORM:
                yield from _objects(one, (*path, name))
    elif isinstance(value, list):
        for number, one in enumerate(value):
            yield from _objects(one, (*path, number))


def _leaves(value: Any, path: tuple[Any, ...]) -> Iterator[tuple[Any, ...]]:
    if isinstance(value, dict):
        for name, one in value.items():
            if name not in FREE_FORM:
                yield from _leaves(one, (*path, name))
    elif path:
        yield path
