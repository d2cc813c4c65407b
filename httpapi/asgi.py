"""Quart-Trio from the ASGI server to a view and back, without what this API has no use for.

Quart offers hooks, signals and sessions at every step of a request, and sends an answer as a stream of unknown length. Nobody here hooks in or listens, a
sign-in is in the headers, and an answer is bytes; asking everywhere whether somebody does costs a fifth of a small answer.
"""

from __future__ import annotations

from typing import Any
from urllib.parse import urlsplit

import trio
from quart.ctx import RequestContext
from quart.sessions import NullSession, SessionInterface
from quart.wrappers.response import DataBody, Response
from quart_trio import QuartTrio
from quart_trio.asgi import TrioASGIHTTPConnection


class NoSessions(SessionInterface):
    """One empty session for everybody that takes nothing."""

    _empty = NullSession()

    async def open_session(self, app: Any, request: Any) -> NullSession:
        return self._empty


class Exchange(TrioASGIHTTPConnection):
    """One request and its answer."""

    def __init__(self, app: QuartTrio, scope: Any) -> None:
        """Makes every request target a path before Quart sees it, which takes ``http://[`` for an error of its own."""
        if not scope["path"].startswith("/"):
            scope = {**scope, "path": _path_of_target(scope["path"])}
        super().__init__(app, scope)

    async def __call__(self, receive: Any, send: Any) -> None:
        """Answers in the task that the server has started for it; a task beside it receives the body, and learns when the peer is gone."""
        request = self._create_request_from_scope(send)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self.handle_messages, nursery, request, receive)
            await self.handle_request(nursery, request, send)

    async def _send_response(self, send: Any, response: Any) -> None:
        body = response.response
        if not isinstance(body, DataBody):
            await super()._send_response(send, response)
            return
        headers = [(name.lower().encode(), value.encode()) for name, value in response.headers]
        await send({"type": "http.response.start", "status": response.status_code, "headers": headers})
        await send({"type": "http.response.body", "body": body.data, "more_body": False})


class Application(QuartTrio):
    asgi_http_class = Exchange  # type: ignore[assignment]
    session_interface = NoSessions()  # type: ignore[assignment]

    async def full_dispatch_request(self, request_context: RequestContext | None = None) -> Any:
        try:
            result: Any = await self.dispatch_request(request_context)
        except (Exception, BaseExceptionGroup) as error:
            result = await self.handle_user_exception(error)
        return result if isinstance(result, Response) else await self.make_response(result)

    async def do_teardown_request(
        self, exc: BaseException | None, request_context: RequestContext | None = None
    ) -> None:
        pass

    async def do_teardown_appcontext(self, exc: BaseException | None) -> None:
        pass


def _path_of_target(target: str) -> str:
    """Of an absolute form (proxies send it) its path; ``*`` and what is no target at all are the root, under which nothing is."""
    try:
        path = urlsplit(target).path
    except ValueError:
        return "/"
    return path if path.startswith("/") else "/"
