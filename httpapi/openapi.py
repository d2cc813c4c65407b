"""The OpenAPI 3.1 document: generated from the declared methods, nothing is written by hand per path."""

from __future__ import annotations

import re
from collections.abc import Sequence
from http import HTTPStatus
from typing import Any

from httpapi import schema
from httpapi.envelope import PARTIAL
from httpapi.idempotency import KEY_LENGTH_MAX
from httpapi.method import Method, Schema
from httpapi.services import Settings

ROOT = "/api/v1"

_CSRF = "csrf"
_SECURITY: list[dict[str, list[str]]] = [{"bearer": [], _CSRF: []}, {"cookie": [], _CSRF: []}]

_ERRORS: dict[int, str] = {
    400: "The request is malformed, or a rule or the present state refuses it; `errors` names the field.",
    401: "Verification failed",
    403: "None of the caller's roles may use this method.",
    404: "There is no such object.",
    500: "Internal error; `data.incident` names the entry in the daemon's log.",
    503: "The part that would answer is not there now; repeating is safe.",
    504: "No answer in time; repeating is safe (with the same `Idempotency-Key` for a POST).",
}

_DESCRIPTION = """\
The published RuBackup REST API, answered from one event log.

Every answer wears the envelope `{is_error, message, data, errors}` and carries `X-Log-Position`, the place in the log where it stands.
Every GET takes `at` and shows the past. Sign in with `POST /auth/login`; send the access token (header or
cookie) and the CSRF value with every later request, GET included. `Idempotency-Key` on a POST makes a repeat harmless.
Capacities are GiB, bandwidths KiB/s, sizes of archives bytes."""


def document(methods: Sequence[Method], settings: Settings) -> dict[str, Any]:
    """The whole document, ready to be encoded."""
    components: dict[str, Schema] = {
        "Error": schema.envelope({"type": "object"}, is_error=True),
    }
    paths: dict[str, dict[str, Any]] = {}
    for method in methods:
        own: dict[str, Schema] = dict(method.components)
        paths.setdefault(method.path, {})[method.verb.lower()] = _operation(method, own)
        clashes = [name for name, one in own.items() if components.setdefault(name, one) != one]
        assert not clashes, f"{method.name}: another schema has this name already: {', '.join(clashes)}"
    _add_links(methods, paths)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "rbmedia REST API",
            "version": settings.version,
            "description": _DESCRIPTION,
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "servers": [{"url": ROOT}],
        "tags": [{"name": name} for name in dict.fromkeys(method.group for method in methods)],
        "paths": paths,
        "components": {
            "schemas": dict(sorted(components.items())),
            "parameters": {"IdempotencyKey": _IDEMPOTENCY_KEY},
            "headers": {"LogPosition": _LOG_POSITION},
            "responses": {str(code): _error_response(text) for code, text in _ERRORS.items()},
            "securitySchemes": _SECURITY_SCHEMES,
        },
        "security": _SECURITY,
    }


_IDEMPOTENCY_KEY = {
    "name": "Idempotency-Key",
    "in": "header",
    "description": "A repeat with the same key gets the first answer and changes nothing; with other contents it is refused. "
    "Scoped by user and path.",
    "schema": {"type": "string", "maxLength": KEY_LENGTH_MAX, "pattern": "^[ -~]*$"},
}
_LOG_POSITION = {
    "description": "Position in the event log at which this answer stands.",
    "schema": {"type": "integer", "minimum": 0},
}
_SECURITY_SCHEMES = {
    "bearer": {"type": "http", "scheme": "bearer", "bearerFormat": "JWT", "description": "The access token."},
    "cookie": {
        "type": "apiKey",
        "in": "cookie",
        "name": "access_token_cookie",
        "description": "Set by login; the browser sends it by itself.",
    },
    _CSRF: {
        "type": "apiKey",
        "in": "header",
        "name": "X-CSRF-TOKEN",
        "description": "`csrf_token` of the login answer. Needed with every method.",
    },
}


def _operation(method: Method, components: dict[str, Schema]) -> dict[str, Any]:
    operation: dict[str, Any] = {
        "operationId": method.operation_id,
        "tags": [method.group],
        "summary": method.summary,
        "responses": _responses(method),
    }
    texts = [method.description, _roles_text(method), "Addition of rbmedia." if method.addition else ""]
    if description := "\n\n".join(text for text in texts if text):
        operation["description"] = description
    if parameters := _parameters(method):
        operation["parameters"] = parameters
    if method.body is not None:
        content: dict[str, Any] = {"schema": method.body.schema(components)}
        if method.request_example is not None:
            content["examples"] = {"manual": {"value": method.request_example}}
        operation["requestBody"] = {"required": method.body.required, "content": {"application/json": content}}
    if method.roles is None:
        operation["security"] = []
    else:
        operation["x-required-roles"] = sorted(method.roles)
    return operation


_MADE_ELSEWHERE = {"task_id": "/task_queue/{id}"}
"""Key of an answer's ``data`` -> path of what it is the id of. ``id`` belongs to the collection that was asked."""


def _add_links(methods: Sequence[Method], paths: dict[str, dict[str, Any]]) -> None:
    """Where the ids in an answer lead: from what was made, and from the first row of a list, to whatever takes the id."""
    for method in methods:
        collection = method.path
        targets = {"id": f"{collection}/{{id}}", **(_MADE_ELSEWHERE if method.verb == "POST" else {})}
        properties = method.data.get("properties", {})
        rows = method.verb == "GET" and "items" in properties
        links: dict[str, Any] = {}
        for key, target in targets.items():
            if not rows and not (method.verb == "POST" and key in properties):
                continue
            value = f"$response.body#/data/{'items/0/' if rows else ''}{key}"
            for path, item in paths.items():
                if path == target or path.startswith(f"{target}/"):
                    links |= {one["operationId"]: _link(one, value) for one in item.values()}
        if links:
            paths[collection][method.verb.lower()]["responses"][str(method.status)]["links"] = links


def _link(operation: dict[str, Any], value: str) -> dict[str, Any]:
    return {"operationId": operation["operationId"], "parameters": {"id": value}}


def _roles_text(method: Method) -> str:
    return "" if method.roles is None else f"Roles: {', '.join(sorted(method.roles))}."


def _parameters(method: Method) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    for name in re.findall(r"\{(\w+)\}", method.path):
        declared = method.path_schemas.get(name, schema.ID)
        found.append({"name": name, "in": "path", "required": True, "schema": declared})
    for one in method.query:
        shown: dict[str, Any] = {
            "name": one.name,
            "in": "query",
            "description": one.description,
            "schema": one.schema(),
        }
        if one.required:
            shown["required"] = True
        if one.repeatable:
            shown |= {"style": "form", "explode": True}
        found.append(shown)
    if method.verb == "POST" and method.roles is not None:
        found.append({"$ref": "#/components/parameters/IdempotencyKey"})
    return found


def _responses(method: Method) -> dict[str, Any]:
    content: dict[str, Any] = {"schema": schema.envelope(method.data, is_error=False)}
    if method.response_example is not None:
        content["examples"] = {"manual": {"value": method.response_example}}
    success: dict[str, Any] = {
        "description": method.message or HTTPStatus(method.status).phrase,
        "headers": {"X-Log-Position": {"$ref": "#/components/headers/LogPosition"}},
    }
    if method.status != HTTPStatus.NO_CONTENT:
        success["content"] = {"application/json": content}
    responses = {str(method.status): success}
    for code in sorted(_possible_errors(method)):
        text = method.refusals.get(code)
        if code < 400:
            responses[str(code)] = _partial_response(str(text))
            continue
        own = text is not None and text != _ERRORS.get(code)
        responses[str(code)] = _error_response(str(text)) if own else {"$ref": f"#/components/responses/{code}"}
    return responses


def _possible_errors(method: Method) -> set[int]:
    """The documented ones, and those that follow from what every method does before its handler."""
    codes = {400, 500, 503, 504, *method.refusals}
    if method.roles is not None:
        codes |= {401, 403}
        names_records = "{" in method.path or method.body is not None or any(one.name == "id" for one in method.query)
        codes |= {404} if names_records else set()
    return codes


def _partial_response(text: str) -> dict[str, Any]:
    return _error_response(text) | {
        "content": {"application/json": {"schema": schema.envelope(PARTIAL, is_error=True)}},
    }


def _error_response(text: str) -> dict[str, Any]:
    return {
        "description": text,
        "headers": {"X-Log-Position": {"$ref": "#/components/headers/LogPosition"}},
        "content": {"application/json": {"schema": {"$ref": "#/components/schemas/Error"}}},
    }
