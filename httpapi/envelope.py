"""The envelope ``{is_error, message, data, errors}`` (reference 4.2): every answer of every path wears it.

``Answer`` is what a handler returns. Only here bytes are made of it: a Quart response by ``respond`` and ``respond_error``, and what ASGI wants by ``Reply`` where
no Quart stands between.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Any

import msgspec
from quart import Response
from werkzeug.datastructures import Headers

from rbcore.errors import RbError


class Envelope(msgspec.Struct, frozen=True, gc=False):
    is_error: bool
    message: str
    data: Any
    errors: dict[str, list[str]]


class Answer(msgspec.Struct, frozen=True, gc=False):
    """What a method answers. ``position`` is where the answer stands in the log (``X-Log-Position``)."""

    data: Any = {}
    message: str = ""
    position: int | None = None
    """None: the head of the log."""
    cookies: tuple[str, ...] = ()
    """Whole ``Set-Cookie`` values."""
    status: int | None = None
    """None: the documented one of success."""
    errors: dict[str, list[str]] = {}
    """Of what was asked for beside what was done: ``partial``."""


def partial(succeeded: Sequence[int], failed: Mapping[int, str], message: str, position: int | None = None) -> Answer:
    """207: some of the ids were done and some not, each with the sentence why (reference 4.2). ``is_error`` is true."""
    errors = {str(one): [sentence] for one, sentence in failed.items()}
    data = {"succeeded": list(succeeded), "failed": list(failed)}
    return Answer(data, message, position, status=207, errors=errors)


PARTIAL: dict[str, Any] = {
    "type": "object",
    "properties": {
        "succeeded": {"type": "array", "items": {"type": "integer"}},
        "failed": {"type": "array", "items": {"type": "integer"}, "description": "`errors` tells why, by id."},
    },
    "required": ["succeeded", "failed"],
}
"""Schema of ``data`` in a 207."""


_ENCODER = msgspec.json.Encoder(decimal_format="number")

SECURITY_HEADERS: tuple[tuple[str, str], ...] = (
    ("Cache-Control", "no-store"),
    ("Content-Security-Policy", "default-src 'none'; frame-ancestors 'none'"),
    ("Referrer-Policy", "no-referrer"),
    ("X-Content-Type-Options", "nosniff"),
    ("X-Frame-Options", "DENY"),
)
"""No ``Strict-Transport-Security``: the certificate may come from a private CA, and a browser that was told to insist
would lock its user out of the host on the day the CA changes."""


def respond(answer: Answer, status: int, position: int) -> Response:
    status = answer.status or status
    if status == HTTPStatus.NO_CONTENT:
        response = _response(b"", status, position)
        del response.headers["Content-Type"]
    else:
        response = _response(_body_of(answer), status, position)
    for cookie in answer.cookies:
        response.headers.add("Set-Cookie", cookie)
    return response


def respond_error(error: RbError, position: int, headers: Mapping[str, str] | None = None) -> Response:
    response = _response(_body_of_error(error), error.status, position)
    for name, value in (headers or {}).items():
        response.headers[name] = value
    return response


class Reply(msgspec.Struct, frozen=True, gc=False):
    """An answer in the envelope, ready to be sent: the very bytes that ``respond`` makes."""

    status: int
    position: int
    body: bytes

    @classmethod
    def of(cls, answer: Answer, position: int) -> Reply:
        """Of a read; ``position`` where the answer has none."""
        return cls(answer.status or 200, position if answer.position is None else answer.position, _body_of(answer))

    @classmethod
    def of_error(cls, error: RbError, position: int) -> Reply:
        return cls(error.status, position, _body_of_error(error))

    @property
    def headers(self) -> list[tuple[bytes, bytes]]:
        return [
            *_RAW_HEADERS,
            (b"x-log-position", b"%d" % self.position),
            (b"content-type", b"application/json"),
            (b"content-length", b"%d" % len(self.body)),
        ]


_RAW_HEADERS = tuple((name.lower().encode(), value.encode()) for name, value in SECURITY_HEADERS)


def _body_of(answer: Answer) -> bytes:
    return _ENCODER.encode(Envelope(bool(answer.errors), answer.message, answer.data, answer.errors))


def _body_of_error(error: RbError) -> bytes:
    return _ENCODER.encode(Envelope(True, error.message, error.data, error.errors))


def _response(body: bytes, status: int, position: int) -> Response:
    headers = Headers([*SECURITY_HEADERS, ("X-Log-Position", str(position))])
    return Response(body, status, headers, content_type="application/json")
