"""The description of the API: the OpenAPI document and Swagger UI, from local files only."""

from __future__ import annotations

import hashlib
from functools import cache
from importlib.resources import files
from typing import Any

import msgspec
from quart import Response, abort, request
from quart_trio import QuartTrio
from werkzeug.datastructures import Headers

FILES: dict[str, str] = {
    "index.html": "text/html; charset=utf-8",
    "start.js": "text/javascript; charset=utf-8",
    "page.css": "text/css; charset=utf-8",
    "swagger-ui.css": "text/css; charset=utf-8",
    "swagger-ui-bundle.js": "text/javascript; charset=utf-8",
    "favicon-16x16.png": "image/png",
    "favicon-32x32.png": "image/png",
}
"""All that is served, by name: no path of a request ever becomes a path of the file system."""

CONTENT_SECURITY_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; font-src 'self'; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
"""Nothing from elsewhere. Inline styles, because Swagger UI sets style attributes; inline scripts never."""

_HEADERS = (
    ("Content-Security-Policy", CONTENT_SECURITY_POLICY),
    ("Referrer-Policy", "no-referrer"),
    ("X-Content-Type-Options", "nosniff"),
    ("X-Frame-Options", "DENY"),
)


def _headers() -> Headers:
    """Checked for freshness every time: an update of the daemon must not meet the old page."""
    return Headers([*_HEADERS, ("Cache-Control", "no-cache")])


def add_routes(app: QuartTrio, root: str, document: dict[str, Any]) -> None:
    """``<root>/`` the page, ``<root>/openapi.json`` the document, ``<root>/swagger-ui/<file>`` its parts. Without sign-in."""
    encoded = msgspec.json.encode(document)

    async def page() -> Response:
        return _file("index.html")

    async def part(name: str) -> Response:
        return _file(name) if name in FILES else abort(404)

    async def description() -> Response:
        return Response(encoded, 200, _headers(), content_type="application/json")

    app.add_url_rule(f"{root}/", "page", page, methods=["GET"])
    app.add_url_rule(f"{root}/swagger-ui/<name>", "page part", part, methods=["GET"])
    app.add_url_rule(f"{root}/openapi.json", "openapi", description, methods=["GET"])


@cache
def _content(name: str) -> tuple[bytes, str]:
    """Bytes and entity tag. 2 MB altogether, read at first use."""
    raw = files("httpapi").joinpath("static", "swagger-ui", name).read_bytes()
    return raw, f'"{hashlib.sha256(raw).hexdigest()[:32]}"'


def _file(name: str) -> Response:
    raw, tag = _content(name)
    headers = _headers()
    headers["ETag"] = tag
    if request.headers.get("If-None-Match") == tag:
        return Response(b"", 304, headers)
    return Response(raw, 200, headers, content_type=FILES[name])
