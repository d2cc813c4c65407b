"""The way of a request to its method's handler: bounds, sign-in, role, parameters. The same for Quart's requests and for plain ones.

A plain request is what a read needs of an ASGI scope: a judge who carries nothing out has no use for Quart's.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Protocol
from urllib.parse import parse_qsl

from werkzeug.datastructures import MultiDict
from werkzeug.http import parse_cookie

from httpapi import idempotency, signin
from httpapi.call import NOBODY, Call
from httpapi.method import Method
from httpapi.reading import Reading
from httpapi.services import Services
from rbcore.errors import InvalidRequest, Unavailable


class Asked(Protocol):
    """What is looked at of a request before its body; Quart's is one."""

    @property
    def path(self) -> str: ...

    @property
    def query_string(self) -> bytes: ...

    @property
    def args(self) -> Any: ...

    @property
    def headers(self) -> Any: ...

    @property
    def cookies(self) -> Any: ...

    @property
    def remote_addr(self) -> str | None: ...


class Admission:
    """Requests in progress at once, with a bound."""

    def __init__(self, most: int) -> None:
        self._most = most
        self.in_progress = 0

    @contextmanager
    def one(self) -> Iterator[None]:
        """Raises ``Unavailable`` at the bound."""
        if self.in_progress >= self._most:
            raise Unavailable("Too many requests are in progress. Try again shortly.")
        self.in_progress += 1
        try:
            yield
        finally:
            self.in_progress -= 1


class PlainRequest:
    """A request without a body, out of an ASGI scope."""

    __slots__ = ("headers", "path", "query_string", "remote_addr")

    def __init__(self, scope: Any) -> None:
        self.path: str = scope["path"]
        self.query_string: bytes = scope["query_string"]
        self.headers = PlainHeaders(scope["headers"])
        client = scope.get("client")
        self.remote_addr: str | None = client[0] if client else "<local>"

    @property
    def cookies(self) -> Any:
        return parse_cookie(";".join(self.headers.all("Cookie")))

    @property
    def args(self) -> Any:
        """As Werkzeug reads them: an undecodable byte stays percent-encoded."""
        return MultiDict(parse_qsl(self.query_string.decode(), keep_blank_values=True, errors="werkzeug.url_quote"))


class PlainHeaders:
    """Headers of an ASGI scope, of which few are looked at."""

    __slots__ = ("_raw",)

    def __init__(self, raw: Sequence[tuple[bytes, bytes]]) -> None:
        self._raw = raw

    def all(self, name: str) -> list[str]:
        wanted = name.lower().encode()
        return [value.decode("latin1") for one, value in self._raw if one.lower() == wanted]

    def get(self, name: str, default: str | None = None) -> str | None:
        """The first."""
        found = self.all(name)
        return found[0] if found else default

    def __contains__(self, name: str) -> bool:
        return bool(self.all(name))


async def call_of(services: Services, method: Method, asked: Asked, segments: dict[str, str]) -> Call:
    """The call of a request, without its body. Raises ``AuthenticationFailed``, ``AccessDenied`` and ``InvalidRequest``."""
    call = _signed_in(services, method, asked, segments)
    if method.roles is not None:
        await signin.check_role(call, method.roles)
    call.query.update(_read_query(method, asked))
    return call


def _signed_in(services: Services, method: Method, asked: Asked, segments: dict[str, str]) -> Call:
    headers, cookies = asked.headers, asked.cookies
    caller = NOBODY if method.roles is None else signin.authenticate(services, headers, cookies)
    return Call(
        services=services,
        caller=caller,
        roles=method.roles or frozenset(),
        verb=method.verb,
        path=asked.path.rstrip("/"),
        segments=segments,
        query={},
        body=None,
        headers=headers,
        cookies=cookies,
        address=asked.remote_addr or "",
        idempotency_key=idempotency.key_of(headers) if method.verb == "POST" else "",
        message=method.message,
    )


def _read_query(method: Method, asked: Asked) -> dict[str, Any]:
    """Declared parameters by name. Unknown ones are refused: a misspelt ``filter_data`` must not list everything."""
    if not asked.query_string.isascii():
        raise InvalidRequest("Bad request: the query must be percent-encoded ASCII.")
    declared = {one.name: one for one in method.query}
    found: dict[str, Any] = {}
    for name, texts in asked.args.lists() if asked.query_string else ():
        parameter = declared.get(name)
        if parameter is None:
            known = ", ".join(declared) or "none"
            raise InvalidRequest("Bad request", errors={name: [f"Unknown parameter; this method knows: {known}."]})
        target = parameter.synonym_of or name
        if target in found or (len(texts) > 1 and not parameter.repeatable):
            raise InvalidRequest("Bad request", errors={name: ["This parameter stands twice."]})
        values = [parameter.read(text) for text in texts]
        found[target] = values if parameter.repeatable else values[0]
    for parameter in method.query:
        if parameter.required and parameter.name not in found:
            raise InvalidRequest("Bad request", errors={parameter.name: ["This parameter is required."]})
    return found


class ReadMethods:
    """Methods that are reads of the views (``Method.read``), by the target of a request as it is written.

    Only the plainest way to write a target is known here: everything else (a slash at the end, escapes, HEAD, a body) is Quart's to route, to the
    same methods.
    """

    def __init__(self, root: str, methods: Sequence[Method]) -> None:
        self._lists: dict[bytes, Method] = {}
        self._records: dict[bytes, Method] = {}
        for method in methods:
            if method.read is None:
                continue
            assert method.verb == "GET", f"{method.name} is no read"
            assert method.status == 200, f"{method.name} answers a read with {method.status}"
            path = (root + method.path).encode()
            collection, _, last = path.rpartition(b"/")
            if last == b"{id}":
                self._records[collection] = method
            else:
                assert b"{" not in path, f"{method.name} has a parameter elsewhere than at its end"
                self._lists[path] = method

    def find(self, scope: Any) -> tuple[Method, dict[str, str]] | None:
        """The method and its path parameters."""
        if scope["method"] != "GET":
            return None
        target: bytes = scope["raw_path"]
        segments: dict[str, str] = {}
        method = self._lists.get(target)
        if method is None:
            collection, _, last = target.rpartition(b"/")
            method = self._records.get(collection) if last.isdigit() else None
            if method is None:
                return None
            segments = {"id": last.decode()}
        return None if _has_body(scope["headers"]) else (method, segments)


def _has_body(headers: Sequence[tuple[bytes, bytes]]) -> bool:
    return any(name.lower() in (b"content-length", b"transfer-encoding") for name, _ in headers)


async def judge(services: Services, method: Method, segments: dict[str, str], scope: Any) -> Reading:
    """What the request may read. Raises what ``call_of`` raises, and ``NotFound`` for what is no id."""
    assert method.read is not None, "only such methods are found"
    call = await call_of(services, method, PlainRequest(scope), segments)
    return method.read(call, await call.position_asked())


def judge_at_once(services: Services, method: Method, segments: dict[str, str], scope: Any) -> Reading | None:
    """The same, of nearly every read; None where it takes waiting: to record a denial, to find a moment of the past."""
    assert method.read is not None, "only such methods are found"
    asked = PlainRequest(scope)
    call = _signed_in(services, method, asked, segments)
    if method.roles is not None and not signin.has_role(call, method.roles):
        return None
    call.query.update(_read_query(method, asked))
    return None if "at" in call.query else method.read(call, None)
