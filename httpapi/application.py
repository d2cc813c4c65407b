"""The Quart-Trio application: declared methods become routes, every answer wears the envelope.

Per request there is one coroutine, ``_Dispatcher.serve``: sign-in, role, parameters, body, handler. Quart's hooks before and after
requests are not used, because each costs awaits on the way of every detail GET.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import trio
from quart import Request, Response, request
from quart_trio import QuartTrio
from werkzeug.exceptions import HTTPException, RequestEntityTooLarge
from werkzeug.exceptions import MethodNotAllowed as WrongVerb

from httpapi import idempotency, openapi, swagger
from httpapi.asgi import Application
from httpapi.envelope import Answer, respond, respond_error
from httpapi.front import Front
from httpapi.incident import incident_of
from httpapi.json_body import read_object, refuse
from httpapi.judging import Admission, ReadMethods, call_of
from httpapi.method import Method
from httpapi.request_body import BoundedRequest
from httpapi.rubackup import methods as rubackup_methods
from httpapi.services import Services
from rbcore.errors import InvalidRequest, MethodNotAllowed, NotFound, RbError, TooLarge

ROOT = "/api/v1"
BODY_SECONDS = 30
"""A body that has not arrived by then is refused: a slow sender may not hold a request open."""

log = logging.getLogger("rbmedia.api")


def create_app(services: Services) -> Front:
    """The application on the given services. It starts nothing and owns nothing: serve it with ``httpapi.serve``."""
    methods, admission = rubackup_methods(), Admission(services.settings.requests_max)
    return Front(_quart(services, methods, admission), services, ReadMethods(ROOT, methods), admission)


def read_methods() -> ReadMethods:
    """Which requests may be reads of the views: what a worker knows of the API."""
    return ReadMethods(ROOT, rubackup_methods())


def _quart(services: Services, methods: Sequence[Method], admission: Admission) -> QuartTrio:
    app = Application("httpapi", static_folder=None, template_folder=None)
    app.request_class = BoundedRequest
    app.config["MAX_CONTENT_LENGTH"] = services.settings.body_bytes_max
    app.config["BODY_TIMEOUT"] = BODY_SECONDS
    app.config["PROPAGATE_EXCEPTIONS"] = False
    app.url_map.merge_slashes = False
    app.url_map.strict_slashes = False
    dispatcher = _Dispatcher(services, admission)
    for method in methods:
        _add_route(app, dispatcher, method)
    _add_options(app, methods)
    _add_refusals(app, methods)
    swagger.add_routes(app, ROOT, openapi.document(methods, services.settings))
    app.register_error_handler(HTTPException, dispatcher.refused_by_framework)
    app.register_error_handler(Exception, dispatcher.failed)
    return app


def _add_route(app: QuartTrio, dispatcher: _Dispatcher, method: Method) -> None:
    async def view(**segments: str) -> Response:
        return await dispatcher.serve(method, segments)

    rule = ROOT + method.path.replace("{", "<").replace("}", ">")
    app.add_url_rule(rule, method.operation_id, view, methods=[method.verb], provide_automatic_options=False)


def _add_options(app: QuartTrio, methods: Sequence[Method]) -> None:
    """OPTIONS tells the verbs of a path to anybody; it promises nothing to other origins."""
    verbs: dict[str, set[str]] = {}
    for method in methods:
        verbs.setdefault(method.path, {"OPTIONS"}).add(method.verb)
    for path, allowed in verbs.items():
        names = ", ".join(sorted(allowed | ({"HEAD"} if "GET" in allowed else set())))

        async def view(names: str = names, **_: str) -> Response:
            response = respond(Answer({"allow": names.split(", ")}), 200, 0)
            del response.headers["X-Log-Position"]
            response.headers["Allow"] = names
            return response

        rule = ROOT + path.replace("{", "<").replace("}", ">")
        app.add_url_rule(rule, f"options {path}", view, methods=["OPTIONS"], provide_automatic_options=False)


def _add_refusals(app: QuartTrio, methods: Sequence[Method]) -> None:
    """A verb that ``/pool_list/available_for_copy_or_move`` does not know is not that of ``/pool_list/{id}``."""
    verbs: dict[str, set[str]] = {}
    for method in methods:
        verbs.setdefault(method.path, set()).add(method.verb)
    for path, own in verbs.items():
        pattern = f"{path.rpartition('/')[0]}/{{id}}"
        others = verbs.get(pattern, set()) - own if path != pattern else set()
        if not others:
            continue
        allowed = sorted(own | {"OPTIONS"} | ({"HEAD"} if "GET" in own else set()))

        async def view(allowed: list[str] = allowed) -> Response:
            raise WrongVerb(valid_methods=allowed)

        rule = f"{ROOT}{path}"
        app.add_url_rule(rule, f"refused {path}", view, methods=sorted(others), provide_automatic_options=False)


class _Dispatcher:
    """Takes a request through its method's declaration to the handler, and whatever happens back into an envelope."""

    def __init__(self, services: Services, admission: Admission) -> None:
        self._services = services
        self._admission = admission

    async def serve(self, method: Method, segments: dict[str, str]) -> Response:
        try:
            with self._admission.one():
                answer = await self._answer(method, segments)
        except RbError as error:
            return await self._refuse(error)
        position = self._services.journal.log.head if answer.position is None else answer.position
        return respond(answer, method.status, position)

    async def _answer(self, method: Method, segments: dict[str, str]) -> Answer:
        asked: Request = request._get_current_object()  # type: ignore[attr-defined]
        call = await call_of(self._services, method, asked, segments)
        document = None
        if method.body is not None:
            document = await _read_body(asked)
            call = call.with_body(method.body.parse(document))
        if call.idempotency_key:
            call = replace(call, digest=idempotency.digest_of(call.query, document))
        return await method.handle(call)

    async def _refuse(self, error: RbError, headers: dict[str, str] | None = None) -> Response:
        await request.body.swallow()  # type: ignore[attr-defined]
        return respond_error(error, self._services.journal.log.head, headers)

    async def refused_by_framework(self, error: HTTPException) -> Response:
        """What Quart and Werkzeug refuse themselves, in the documented status codes."""
        if error.code == 404:
            return await self._refuse(NotFound("There is nothing under this path."))
        if error.code == 405:
            allowed = ", ".join(sorted(getattr(error, "valid_methods", None) or ()))
            message = f"This path does not know the method {request.method}; it knows: {allowed}."
            return await self._refuse(MethodNotAllowed(message), {"Allow": allowed} if allowed else None)
        if isinstance(error, RequestEntityTooLarge):
            return await self._refuse(_too_large(self._services.settings.body_bytes_max))
        if error.code == 408:
            return await self._refuse(InvalidRequest(f"The body did not arrive within {BODY_SECONDS} seconds."))
        if error.code is not None and error.code < 500:
            return await self._refuse(InvalidRequest(f"Bad request: {error.description or error.name}"))
        return await self.failed(error)

    async def failed(self, error: Exception) -> Response:
        """A bug, or a part of the daemon that is broken."""
        if isinstance(error, RbError):
            return await self._refuse(error)
        return await self._refuse(incident_of(error, self._services.randomness, request.method, request.path))


def _too_large(bytes_max: int) -> TooLarge:
    return TooLarge(f"The body is larger than {bytes_max} bytes.", errors={"_schema": ["The body is too large."]})


async def _read_body(asked: Request) -> dict[str, Any]:
    mimetype = asked.mimetype
    if mimetype and mimetype != "application/json" and not mimetype.endswith("+json"):
        raise refuse(f"The body must be JSON with Content-Type application/json, not {mimetype}.", "Content-Type")
    charset = asked.mimetype_params.get("charset", "utf-8").lower()
    if charset not in ("utf-8", "utf8", "us-ascii"):
        raise refuse(f"The body must be UTF-8, not {charset}.", "Content-Type")
    try:
        raw = await asked.get_data(cache=True, as_text=False, parse_form_data=False)
    except trio.TooSlowError as error:
        raise InvalidRequest(f"The body did not arrive within {BODY_SECONDS} seconds.") from error
    if not raw:
        raise refuse("This method needs a JSON body.")
    return read_object(raw)
