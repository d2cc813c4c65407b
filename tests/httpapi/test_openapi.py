"""The OpenAPI document is valid, complete, and served; Swagger UI comes from local files only."""

from __future__ import annotations

import re

import msgspec
import pytest
from openapi_spec_validator import OpenAPIV31SpecValidator, validate

from httpapi.openapi import document
from httpapi.rubackup import methods
from httpapi.rubackup.catalogue import facts
from httpapi.services import Settings
from httpapi.swagger import FILES
from tests.httpapi.house import API, House

DOCUMENT = document(methods(), Settings(version="1.2.3"))


def test_document_is_valid_openapi_31() -> None:
    validate(DOCUMENT, cls=OpenAPIV31SpecValidator)


async def test_every_route_is_described_and_every_description_is_routed(house: House) -> None:
    routed: set[tuple[str, str]] = set()
    for rule in house.app.url_map.iter_rules():
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
        assert content["examples"]["manual"]["value"] == fact.request_example
    if one.roles is None:
        assert operation["security"] == []
    else:
        assert operation["x-required-roles"] == sorted(one.roles)


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
    for name in re.findall(r"(?:src|href)=\"([\w.-]+)\"", text):
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
