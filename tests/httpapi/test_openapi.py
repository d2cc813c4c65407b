"""The OpenAPI document is valid, complete, and served; Swagger UI comes from local files only."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import msgspec
import pytest
from jsonschema import Draft202012Validator
from openapi_spec_validator import OpenAPIV31SpecValidator, validate
from referencing import Registry, Resource
from referencing.jsonschema import DRAFT202012

from httpapi.openapi import document
from httpapi.rubackup import methods
from httpapi.rubackup.catalogue import CORRECTIONS, corrected, facts
from httpapi.services import Settings
from httpapi.swagger import FILES
from tests.httpapi.house import API, House

DOCUMENT = document(methods(), Settings(version="1.2.3"))


def test_document_is_valid_openapi_31() -> None:
    validate(DOCUMENT, cls=OpenAPIV31SpecValidator)


async def test_every_route_is_described_and_every_description_is_routed(house: House) -> None:
    routed: set[tuple[str, str]] = set()
    for rule in house.app.url_map.iter_rules():
        if rule.endpoint.startswith("refused "):
            continue
        path = re.sub(r"<(?:\w+:)?(\w+)>", r"{\1}", rule.rule).removeprefix(API)
        routed |= {(verb, path) for verb in rule.methods - {"HEAD", "OPTIONS"}}
    routed -= {("GET", "/"), ("GET", "/openapi.json"), ("GET", "/swagger-ui/{name}")}
    described = {(verb.upper(), path) for path, item in DOCUMENT["paths"].items() for verb in item}
    assert routed == described


@pytest.mark.parametrize("method", methods(), ids=lambda one: one.name)
def test_descriptions_carry_the_manuals_codes_and_examples(method: object) -> None:
    one = next(m for m in methods() if m is method or m.name == getattr(method, "name", ""))
    operation = DOCUMENT["paths"][one.path][one.verb.lower()]
    if one.addition:
        assert one.name not in facts()
        return
    fact = facts()[one.name]
    assert set(fact.responses) <= set(operation["responses"])
    if fact.request_example is not None:
        content = operation["requestBody"]["content"]["application/json"]
        assert content["examples"]["manual"]["value"] == corrected(one.name, fact.request_example)
    if one.roles is None:
        assert operation["security"] == []
    else:
        assert operation["x-required-roles"] == sorted(one.roles)


def schemas_and_examples() -> Iterator[tuple[str, str, Any]]:
    """Name, pointer of the schema, example."""
    for path, item in DOCUMENT["paths"].items():
        escaped = path.replace("/", "~1").replace("{", "%7B").replace("}", "%7D")
        for verb, operation in item.items():
            content = {"requestBody": operation.get("requestBody", {}).get("content", {})}
            content |= {f"responses/{code}": one.get("content", {}) for code, one in operation["responses"].items()}
            for place, media in content.items():
                for example in media.get("application/json", {}).get("examples", {}).values():
                    pointer = f"urn:api#/paths/{escaped}/{verb}/{place}/content/application~1json/schema"
                    yield f"{verb} {path} {place}", pointer, example["value"]


def test_examples_are_what_their_schemas_say() -> None:
    contents = Resource.from_contents(DOCUMENT, default_specification=DRAFT202012)
    registry: Registry[Any] = Registry().with_resource("urn:api", contents)
    wrong, seen = [], 0
    for name, pointer, example in schemas_and_examples():
        seen += 1
        validator = Draft202012Validator({"$ref": pointer}, registry=registry)
        wrong += [f"{name}: {one.json_path}: {one.message}" for one in validator.iter_errors(example)]
    assert not wrong
    assert seen > 90


def test_a_correction_is_of_a_value_that_the_manual_has_and_we_refuse() -> None:
    for name, changes in CORRECTIONS.items():
        example = facts()[name].request_example
        assert corrected(name, example) != example
        for key, value in changes.get("data", changes).items():
            assert key in example.get("data", example), (name, key)
            assert value != example.get("data", example)[key]


def test_two_schemas_of_one_name_are_noticed() -> None:
    one, other, *_ = (method for method in methods() if method.verb == "GET")
    clash = [replace(one, components={"Thing": {"type": "string"}}), replace(other, components={"Thing": {}})]
    with pytest.raises(AssertionError, match="another schema has this name already: Thing"):
        document(clash, Settings())


def test_what_is_made_can_be_followed() -> None:
    """Links lead from an answer to every method that takes the id in it."""
    made = DOCUMENT["paths"]["/pool_list"]["post"]["responses"]["201"]["links"]
    assert set(made) == {"get_pool_list_by_id", "patch_pool_list_by_id", "delete_pool_list_by_id"}
    listed = DOCUMENT["paths"]["/repository"]["get"]["responses"]["200"]["links"]
    assert listed["post_repository_by_id_restoring"]["parameters"] == {"id": "$response.body#/data/items/0/id"}
    queued = DOCUMENT["paths"]["/repository/{id}/copying"]["post"]["responses"]["201"]["links"]
    assert queued["get_task_queue_by_id"]["parameters"] == {"id": "$response.body#/data/task_id"}


async def test_document_is_served_without_signing_in(house: House) -> None:
    answer = await house.raw("GET", "openapi.json")
    assert answer.status == 200
    assert msgspec.json.decode(answer.raw)["openapi"] == "3.1.0"


@pytest.mark.parametrize("path", ["/api/v1/", "/api/v1"])
async def test_swagger_ui_is_served_from_local_files(house: House, path: str) -> None:
    page = await house.raw("GET", path)
    assert page.status == 200
    policy = page.headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy
    assert not re.search(r"https?:|\*", policy)
    text = page.raw.decode()
    assert not re.search(r"(?:src|href)=\"https?:", text)
    assert "<script>" not in text, "the policy forbids inline scripts"
    names = re.findall(r"(?:src|href)=\"/api/v1/swagger-ui/([\w.-]+)\"", text)
    assert len(names) == len(re.findall(r"(?:src|href)=", text)) > 4
    for name in names:
        part = await house.raw("GET", f"swagger-ui/{name}")
        assert part.status == 200
        assert part.headers["Content-Type"] == FILES[name]


async def test_parts_of_the_page_are_not_sent_again_when_they_did_not_change(house: House) -> None:
    first = await house.raw("GET", "swagger-ui/swagger-ui.css")
    again = await house.raw("GET", "swagger-ui/swagger-ui.css", headers={"If-None-Match": first.headers["ETag"]})
    assert (again.status, again.raw) == (304, b"")


@pytest.mark.parametrize("name", ["LICENSE", "..%2f..%2fapplication.py", "nothing.js"])
async def test_nothing_else_is_served(house: House, name: str) -> None:
    answer = await house.raw("GET", f"swagger-ui/{name}")
    assert answer.status == 404
    assert answer.envelope["is_error"]
