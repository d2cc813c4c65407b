"""The daemon's ASGI application: reads of the views are answered here, everything else is Quart's."""

from __future__ import annotations

from typing import Any

from quart_trio import QuartTrio

from httpapi.envelope import Reply
from httpapi.incident import incident_of
from httpapi.judging import Admission, ReadMethods, judge, judge_at_once
from httpapi.method import Method
from httpapi.reading import Reading
from httpapi.services import Services
from rbcore.errors import RbError


class Front:
    """What ``httpapi.serve`` serves in the daemon. ``judged`` is for those who carry reads out elsewhere."""

    def __init__(self, app: QuartTrio, services: Services, reads: ReadMethods, admission: Admission) -> None:
        self.app, self.services, self.reads = app, services, reads
        self._admission = admission

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        found = self.reads.find(scope) if scope["type"] == "http" else None
        if found is None:
            await self.rest(scope, receive, send)
            return
        judged = await self.judged(*found, scope)
        await send_reply(judged if isinstance(judged, Reply) else await self.carried_out(judged, scope), send)

    async def rest(self, scope: Any, receive: Any, send: Any) -> None:
        """What is no read, and whatever else there is."""
        await self.app(scope, receive, send)

    async def judged(self, method: Method, segments: dict[str, str], scope: Any) -> Reading | Reply:
        """What the request may read, or the answer that it may not."""
        try:
            with self._admission.one():
                return await judge(self.services, method, segments, scope)
        except Exception as error:
            return self._refusal(error, scope)

    def judged_at_once(self, method: Method, segments: dict[str, str], scope: Any) -> Reading | None:
        """The same of what may be read, without waiting; None where it takes waiting to say so, or to refuse."""
        try:
            with self._admission.one():
                return judge_at_once(self.services, method, segments, scope)
        except Exception:
            return None  # ``judged`` comes to the same, and answers

    async def carried_out(self, reading: Reading, scope: Any) -> Reply:
        services = self.services
        try:
            with self._admission.one():
                return Reply.of(await reading.answer(services.views), services.journal.log.head)
        except Exception as error:
            return self._refusal(error, scope)

    def _refusal(self, error: Exception, scope: Any) -> Reply:
        services = self.services
        if not isinstance(error, RbError):
            error = incident_of(error, services.randomness, scope["method"], scope["path"])
        return Reply.of_error(error, services.journal.log.head)


async def send_reply(reply: Reply, send: Any) -> None:
    await send({"type": "http.response.start", "status": reply.status, "headers": reply.headers})
    await send({"type": "http.response.body", "body": reply.body, "more_body": False})
