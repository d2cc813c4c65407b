"""REST client of the public API: what the command line, the main job and the tests use, and nothing that a user could not do.

It checks the daemon's certificate against the private authority, wears the documented headers, and exchanges an expired
access token once before it gives up.
"""

from __future__ import annotations

import ssl
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import httpx
import msgspec

from rbmedia.exits import CommandFailed, Exit
from rbmedia.sessions import Session, SessionFile

API = "/api/v1"
PAGE_ROWS = 200
CONNECT_SECONDS = 5.0
ANSWER_SECONDS = 60.0


class ApiError(CommandFailed):
    """The daemon said no. ``status`` and ``errors`` are those of the answer."""

    def __init__(self, status: int, message: str, errors: Mapping[str, Any], code: Exit = Exit.FAILED) -> None:
        details = [
            f"{name}: {' '.join(map(str, lines)) if isinstance(lines, list) else lines}"
            for name, lines in errors.items()
        ]
        super().__init__("; ".join([message or f"the daemon answered {status}", *details]), code)
        self.status = status
        self.errors = dict(errors)


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """A good answer, out of its envelope."""

    status: int
    message: str
    data: Any
    position: int
    """Where it stands in the log (``X-Log-Position``)."""


class RestClient:
    """One daemon. Not for concurrent use.

    ``password_of`` is asked for (user, password) when there is no login yet or it has ended; None: then the call fails with
    :data:`Exit.NO_ACCESS`. Without ``sessions`` logins are kept in memory only.
    """

    def __init__(
        self,
        url: str,
        ca_certificate: Path,
        *,
        sessions: SessionFile | None = None,
        password_of: Callable[[], tuple[str, str] | None] | None = None,
    ) -> None:
        self.url = url.rstrip("/")
        self._ca_certificate = ca_certificate
        self._sessions = sessions
        self._session = sessions.find(self.url) if sessions else None
        self._password_of = password_of
        self._http = httpx.Client(
            base_url=self.url,
            verify=_trust(ca_certificate),
            trust_env=False,
        )

    def __enter__(self) -> RestClient:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._http.close()

    # --- logins -------------------------------------------------------------------------------------------------------

    def login(self, user: str, password: str, database: str = "rubackup") -> Answer:
        body = {"rubackup_database": database, "rubackup_user": user, "password": password}
        answer = self._open("POST", "/auth/login", json=body)
        self._keep(user, answer)
        return answer

    def logout(self) -> None:
        session = self._session
        if session is None:
            return
        try:
            self._open("DELETE", "/auth/logout", headers=_headers(session))
        finally:
            self._forget()

    @property
    def user(self) -> str:
        """Name of the user who is logged in; empty: nobody is."""
        return self._session.user if self._session else ""

    def _keep(self, user: str, answer: Answer) -> None:
        try:
            self._session = Session(
                url=self.url,
                user=user,
                access_token=answer.data["access_token"],
                refresh_token=answer.data["refresh_token"],
                csrf_token=answer.data["csrf_token"],
                ca_certificate=str(self._ca_certificate.absolute()),
            )
        except (KeyError, TypeError) as error:
            raise CommandFailed(f"{self.url} did not answer the login as documented.", Exit.NO_ACCESS) from error
        if self._sessions:
            self._sessions.save(self._session)

    def _forget(self) -> None:
        self._session = None
        if self._sessions:
            self._sessions.forget(self.url)

    def _renew(self, stale: Session | None) -> None:
        """Get a login that is newer than ``stale``: another call's, a refreshed one, or a new one by password."""
        if self._sessions is None:
            self._renew_alone(stale)
            return
        with self._sessions.locked():
            stored = self._sessions.find(self.url)
            if stored is not None and stored != stale:
                self._session = stored
            else:
                self._renew_alone(stale)

    def _renew_alone(self, stale: Session | None) -> None:
        if stale is not None:
            headers = {
                "Authorization-Access-Token": f"Bearer {stale.access_token}",
                "Authorization": f"Bearer {stale.refresh_token}",
                "X-CSRF-TOKEN": stale.csrf_token,
            }
            try:
                self._keep(stale.user, self._open("POST", "/auth/refresh", headers=headers))
            except ApiError as error:
                if error.status != httpx.codes.UNAUTHORIZED:
                    raise
                self._forget()
            else:
                return
        known = self._password_of() if self._password_of else None
        if known is None:
            raise CommandFailed(
                f"Not logged in at {self.url}, or the login has ended. Run: rbmedia login --server {self.url}",
                Exit.NO_ACCESS,
            )
        self.login(*known)

    # --- calls --------------------------------------------------------------------------------------------------------

    def call(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, Any] | None = None,
        body: Any = None,
        repeat: bool = True,
        answer_seconds: float = ANSWER_SECONDS,
    ) -> Answer:
        """One call with the login's headers. ``path`` stands below ``/api/v1``. ``answer_seconds``: how long the answer may take.

        Raises :class:`ApiError` for an answer that is an error, :class:`CommandFailed` when there is none.
        """
        if self._session is None:
            self._renew(None)
        session = self._session
        assert session is not None
        try:
            return self._open(
                method, path, params=query, json=body, headers=_headers(session), answer_seconds=answer_seconds
            )
        except ApiError as error:
            if error.status != httpx.codes.UNAUTHORIZED or not repeat:
                raise
        self._renew(session)
        return self.call(method, path, query=query, body=body, repeat=False, answer_seconds=answer_seconds)

    def get(self, path: str, /, **query: Any) -> Any:
        return self.call("GET", path, query=query).data

    def post(self, path: str, data: Any = None) -> Answer:
        return self.call("POST", path, body={} if data is None else {"data": data})

    def rows(self, path: str, /, **query: Any) -> Iterator[dict[str, Any]]:
        """Every row of a list, page after page, as of one position of the log: rows that come meanwhile shift nothing."""
        page, seen = 1, 0
        while True:
            answer = self.call("GET", path, query={"limit": PAGE_ROWS, **query, "page": page})
            items = answer.data["items"]
            yield from items
            seen += len(items)
            if not items or seen >= answer.data["total"]:
                return
            page += 1
            query.setdefault("at", answer.position)

    def _open(
        self,
        method: str,
        path: str,
        *,
        params: Mapping[str, Any] | None = None,
        json: Any = None,
        headers: Mapping[str, str] | None = None,
        answer_seconds: float = ANSWER_SECONDS,
    ) -> Answer:
        timeout = httpx.Timeout(answer_seconds, connect=CONNECT_SECONDS)
        try:
            response = self._http.request(
                method, API + path, params=params, json=json, headers=headers, timeout=timeout
            )
        except httpx.ConnectError as error:
            raise CommandFailed(_why_unreachable(self.url, error), Exit.NO_ACCESS) from error
        except httpx.HTTPError as error:
            raise CommandFailed(
                f"{self.url} did not answer: {str(error) or type(error).__name__}.", Exit.NO_ACCESS
            ) from error
        return _unwrap(response)


def _headers(session: Session) -> dict[str, str]:
    return {"Authorization": f"Bearer {session.access_token}", "X-CSRF-TOKEN": session.csrf_token}


def _unwrap(response: httpx.Response) -> Answer:
    if response.status_code == httpx.codes.NO_CONTENT:
        return Answer(
            status=response.status_code, message="", data=None, position=int(response.headers.get("X-Log-Position", 0))
        )
    try:
        envelope = response.json()
        is_error, message = bool(envelope["is_error"]), str(envelope["message"])
        data, errors = envelope["data"], envelope["errors"]
        position = int(response.headers.get("X-Log-Position", 0))
    except (ValueError, KeyError, TypeError) as error:
        raise CommandFailed(
            f"{response.url} answered {response.status_code} with something that is not an answer of this API.",
            Exit.NO_ACCESS,
        ) from error
    if is_error or response.is_error:
        code = Exit.NO_ACCESS if response.status_code == httpx.codes.UNAUTHORIZED else Exit.FAILED
        raise ApiError(response.status_code, message, errors if isinstance(errors, dict) else {}, code)
    return Answer(status=response.status_code, message=message, data=data, position=position)


def _trust(ca_certificate: Path) -> ssl.SSLContext:
    try:
        return ssl.create_default_context(cafile=str(ca_certificate))
    except FileNotFoundError:
        raise CommandFailed(
            f"There is no authority's certificate at {ca_certificate}. Name the daemon's pki/ca.pem with --ca.",
            Exit.NO_ACCESS,
        ) from None
    except (ssl.SSLError, OSError) as error:
        raise CommandFailed(f"{ca_certificate} is not a usable certificate: {error}.", Exit.NO_ACCESS) from None


def _why_unreachable(url: str, error: httpx.ConnectError) -> str:
    text = str(error)
    if "CERTIFICATE_VERIFY_FAILED" in text:
        return f"The certificate of {url} is not from the authority that this command trusts: {text}. Is --ca the right one?"
    return f"Nobody answers at {url} ({text}). Is the daemon running there (rbmedia serve)?"
