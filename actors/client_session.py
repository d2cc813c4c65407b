"""Client sessions, the daemon's side: one per connected agent, from its Hello to its last heartbeat.

The life of a session: ``new`` -> Hello, Challenge -> ``challenged`` -> Proof, Welcome -> ``waiting`` (nobody has authorised the
client yet) or ``authorised``. An agent proves its identity before anything it says has an effect, and after that it may only
speak about its own work. Whatever else arrives closes the connection, is logged with the address, and changes nothing.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Sequence
from typing import Any, Literal
from weakref import WeakValueDictionary

import msgspec
import trio

from actors.conversation import Answers, Conversation, ParcelCodec
from actors.link import Link, LinkClosed
from actors.port import Journal, Progress
from actors.progress import ProgressBoard
from actors.quiet_log import QuietLog
from actors.works import Works
from rbcore.archive.keys import verify
from rbcore.commands import AgentGone, AgentHello, Command, Order, Reply
from rbcore.entities import Client
from rbcore.errors import AuthenticationFailed, DeadlineExceeded, ProtocolViolation, RbError, Unavailable
from rbcore.messages import (
    MESSAGE_BYTES_MAX,
    PROTOCOL_VERSION,
    Accepted,
    Asked,
    AskForRule,
    AskForRuleDeletion,
    Challenge,
    Heartbeat,
    Hello,
    ListArchive,
    ListBlockDevices,
    ListFilesystem,
    Listing,
    ListModuleResources,
    Parcel,
    Proof,
    Visit,
    Welcome,
    WorkEnded,
    WorkNotes,
    WorkProgress,
    WorkStage,
    proof_message,
)
from rbcore.ports import World
from rbcore.schedule_commands import RequestRule, RequestRuleDeletion

_log = logging.getLogger(__name__)

HANDSHAKE_SECONDS_MAX = 15.0
HEARTBEAT_SECONDS = 10.0
HEARTBEATS_MISSED_MAX = 3
FAREWELL_SECONDS = 2.0
"""How long a refused peer has to take its answer before the connection is closed (closing drops what is queued)."""
SESSIONS_UNPROVEN_MAX = 256
"""Connections that have not proved an identity; more are closed at once."""
SESSIONS_WAITING_MAX = 1024
"""Proven agents that nobody has authorised; more are refused until some are gone."""
SESSIONS_VISITING_MAX = 64
"""Visitors with the identity of a client; more are refused until some are gone."""
_HWID = re.compile(r"[0-9a-f]{8,128}")
_HOSTNAME = re.compile(r"[!-~]{1,253}")


class SessionStatistics(msgspec.Struct, frozen=True, kw_only=True):
    connected: int
    unproven: int
    waiting: int
    authorised: int
    refused: int
    lines_left_out: int


class _Session:
    """One connection."""

    def __init__(self, link: Link) -> None:
        self.link = link
        self.state: Literal["new", "challenged", "waiting", "authorised", "visiting"] = "new"
        self.hello: Hello | Visit | None = None
        self.proof: Proof | None = None
        self.nonce = b""
        self.client_id = 0
        self.heard_at = trio.current_time()
        self.proven = trio.Event()
        self.end_reason = ""
        self.conversation: Conversation | None = None

    def __repr__(self) -> str:
        name = f" of client {self.client_id}" if self.client_id else ""
        return f"<session from {self.link.address}{name}: {self.state}>"

    @property
    def hwid(self) -> str:
        return self.hello.hwid if self.hello is not None else ""

    def end(self, reason: str) -> None:
        self.end_reason = self.end_reason or reason
        self.link.close()


class ClientSessions:
    """All connected agents. Implements ``actors.port.Sessions``."""

    def __init__(
        self,
        journal: Journal,
        works: Works,
        world: World,
        *,
        server_id: str,
        heartbeat_seconds: float = HEARTBEAT_SECONDS,
    ) -> None:
        self._journal = journal
        self._works = works
        self._world = world
        self._server_id = server_id
        self._heartbeat_seconds = heartbeat_seconds
        self._codec = ParcelCodec(Parcel, MESSAGE_BYTES_MAX)
        self._quiet = QuietLog(_log)
        self._sessions: set[_Session] = set()
        self._by_client: dict[int, _Session] = {}
        self._board = ProgressBoard()
        self._presence: WeakValueDictionary[str, trio.Lock] = WeakValueDictionary()
        """By hwid: coming and going of one client are recorded one after the other, whichever connections they are of."""
        self._refused = 0
        self.admitting = False
        """Set when what the last run left is recorded; before that agents are turned away and dial again."""
        self.data_port = 0
        """Where the data channel listens; set before the first agent comes."""
        self.on_presence: Callable[[], None] = lambda: None
        """Called when a client came or went: the dispatcher looks again."""

    # --- for the other actors -----------------------------------------------------------------------------------------

    def online(self, client_id: int) -> bool:
        return client_id in self._by_client

    def online_ids(self) -> frozenset[int]:
        return frozenset(self._by_client)

    def progress(self, task_id: int) -> Progress | None:
        return self._board.newest(task_id)

    def progress_of_all(self) -> Sequence[Progress]:
        return self._board.all_newest()

    def take_progress(self, report: WorkProgress) -> None:
        self._board.take(report, self._world.clock.now_ns())

    def forget_progress(self, task_id: int) -> None:
        self._board.forget(task_id)

    async def ask(
        self,
        client_id: int,
        question: ListFilesystem | ListBlockDevices | ListModuleResources | ListArchive,
        deadline_seconds: float,
    ) -> Listing:
        answer = await self.request(client_id, question, deadline_seconds)
        if not isinstance(answer, Listing):
            raise ProtocolViolation(f"Client {client_id} answered a question with {type(answer).__name__}.")
        return answer

    async def request(self, client_id: int, body: Any, deadline_seconds: float, request_id: str = "") -> Any:
        """The agent's answer. Raises ``Unavailable`` when the client is offline, ``DeadlineExceeded``, or what it answered."""
        session = self._by_client.get(client_id)
        if session is None or session.conversation is None:
            raise Unavailable(f"Client {client_id} is not connected.")
        return await session.conversation.ask(body, deadline_seconds, request_id)

    def statistics(self) -> SessionStatistics:
        states = [session.state for session in self._sessions]
        return SessionStatistics(
            connected=len(states),
            unproven=states.count("new") + states.count("challenged"),
            waiting=states.count("waiting"),
            authorised=states.count("authorised"),
            refused=self._refused,
            lines_left_out=self._quiet.left_out,
        )

    async def authorised(self, hwid: str) -> None:
        """An administrator authorised this client: if it waits here, it is welcomed."""
        for session in list(self._sessions):
            if session.state == "waiting" and session.hwid == hwid:
                await self._welcome_again(session)

    async def revoked(self, client_id: int) -> None:
        """The client is not authorised any more: it comes back as a stranger."""
        session = self._by_client.get(client_id)
        if session is not None:
            session.end("the client is no longer authorised")

    # --- one connection -------------------------------------------------------------------------------------------------

    async def serve(self, link: Link) -> None:
        """Handler of one incoming link; returns when it is over."""
        if not self.admitting:
            link.close()
            return
        if self.statistics().unproven >= SESSIONS_UNPROVEN_MAX:
            self._refuse(link.address, "too many connections that have not proved who they are")
            link.close()
            return
        session = _Session(link)
        self._sessions.add(session)
        try:
            await self._converse(session)
        except Exception:
            # A bug in one session must not end the others.
            _log.exception("%r failed", session)
            session.end("the daemon failed")
        finally:
            self._sessions.discard(session)
            link.close()
            with trio.CancelScope(shield=True, deadline=trio.current_time() + 10.0):
                await self._gone(session)

    async def _converse(self, session: _Session) -> None:
        answers = Answers()

        async def handle(body: Any, message_id: str) -> Any:
            session.heard_at = trio.current_time()
            try:
                return await self._handle(session, body, message_id)
            except ProtocolViolation as violation:
                self._refuse(session.link.address, violation.message)
                nursery.start_soon(self._farewell, session, violation.message)
                raise
            except AuthenticationFailed as failure:
                self._refuse(session.link.address, failure.message)
                nursery.start_soon(self._farewell, session, failure.message)
                raise

        conversation = session.conversation = Conversation(session.link, self._codec, handle, self._world, answers)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._watch, session)
            try:
                await conversation.run()
            except LinkClosed as error:
                session.end(str(error))
            except ProtocolViolation as violation:
                self._refuse(session.link.address, violation.message)
                session.end(violation.message)
            nursery.cancel_scope.cancel()

    async def _farewell(self, session: _Session, reason: str) -> None:
        """Give the peer the time to take its answer, then close."""
        await trio.sleep(FAREWELL_SECONDS)
        session.end(reason)

    async def _watch(self, session: _Session) -> None:
        """Handshake deadline, heartbeats, and their absence."""
        with trio.move_on_after(HANDSHAKE_SECONDS_MAX):
            await session.proven.wait()
        if not session.proven.is_set():
            self._refuse(session.link.address, f"no proof of identity within {HANDSHAKE_SECONDS_MAX} s")
            session.end("no proof of identity")
            return
        assert session.conversation is not None, "the conversation is there before its watch"
        silence_max = HEARTBEATS_MISSED_MAX * self._heartbeat_seconds
        while True:
            await trio.sleep(self._heartbeat_seconds)
            if trio.current_time() - session.heard_at > silence_max:
                session.end(f"{HEARTBEATS_MISSED_MAX} heartbeats were missed")
                return
            try:
                await session.conversation.tell(Heartbeat())
            except LinkClosed as error:
                session.end(str(error))
                return

    async def _gone(self, session: _Session) -> None:
        if session.state != "authorised":
            return
        reason = session.end_reason or "the daemon is stopping"
        async with self._presence_of(session):
            if self._by_client.get(session.client_id) is not session:
                return  # the client is here again
            del self._by_client[session.client_id]
            try:
                await self._works.client_gone(session.client_id, f"The connection to the client was lost: {reason}.")
                await self._execute(session, AgentGone(client_id=session.client_id, reason=reason))
            except RbError as error:
                # At its next start the daemon records that nobody is connected.
                _log.warning("the end of %r could not be recorded: %s", session, error.message)
        self.on_presence()

    # --- what agents say ------------------------------------------------------------------------------------------------

    async def _handle(self, session: _Session, body: Any, message_id: str) -> Any:
        match body:
            case Heartbeat():
                return None
            case Hello() | Visit():
                return self._challenge(session, body)
            case Proof():
                return await self._prove(session, body)
        if session.state not in ("authorised", "visiting"):
            raise ProtocolViolation(f"{type(body).__name__} before the client is authorised")
        match body:
            case AskForRule():
                command: Command = RequestRule(client_id=session.client_id, rule=body.rule)
                return await self._take_request(session, command, message_id)
            case AskForRuleDeletion():
                command = RequestRuleDeletion(client_id=session.client_id, rule_id=body.rule_id, comment=body.comment)
                return await self._take_request(session, command, message_id)
        if session.state == "visiting":
            raise ProtocolViolation(f"{type(body).__name__} is not for a visitor")
        match body:
            case WorkProgress():
                work = self._works.of_task(body.task_id)
                if work is not None and work.client_id == session.client_id:
                    self.take_progress(body)
                return None
            case WorkStage():
                await self._works.stage(session.client_id, body)
            case WorkNotes():
                await self._works.notes(session.client_id, body, message_id)
            case WorkEnded():
                await self._works.ended(session.client_id, body)
            case _:
                raise ProtocolViolation(f"{type(body).__name__} is not for the daemon")
        return Accepted()

    async def _take_request(self, session: _Session, command: Command, message_id: str) -> Asked:
        """Once, however often and over however many connections the message is repeated."""
        order = Order(
            command=command, command_id=f"request/{session.hwid}/{message_id}", actor=f"client:{session.hwid}"
        )
        reply = await self._journal.execute(order)
        return Asked(request_id=reply.ids[0])

    def _challenge(self, session: _Session, hello: Hello | Visit) -> Challenge:
        if session.state not in ("new", "challenged"):
            raise ProtocolViolation("Hello in a session that is past it")
        if hello.protocol != PROTOCOL_VERSION:
            raise ProtocolViolation(
                f"The agent speaks protocol {hello.protocol}, the daemon {PROTOCOL_VERSION}. Update the older one."
            )
        if len(hello.public_key) != 32 or len(hello.nonce) != 32:
            raise ProtocolViolation("public key and nonce have 32 bytes each")
        if not _HWID.fullmatch(hello.hwid) or not _HOSTNAME.fullmatch(hello.hostname):
            raise ProtocolViolation(
                "hwid is 8 to 128 lower-case hexadecimal digits, hostname at most 253 printable characters"
            )
        session.hello = hello
        session.nonce = self._world.randomness.token_bytes(32)
        session.state = "challenged"
        return Challenge(nonce=session.nonce, server_id=self._server_id)

    async def _prove(self, session: _Session, proof: Proof) -> Welcome:
        hello = session.hello
        if session.state != "challenged" or hello is None:
            raise ProtocolViolation("Proof without a Challenge")
        message = proof_message(self._server_id, hello.nonce, session.nonce)
        if not verify(hello.public_key, message, proof.signature):
            raise AuthenticationFailed(f"The agent {hello.hwid} could not prove its identity.")
        if len(proof.resource_types) > 256 or any(
            len(text) > 256 for text in (proof.os_type, proof.os_version, proof.agent_version, *proof.resource_types)
        ):
            raise ProtocolViolation("the agent reports more than has room")
        if self.statistics().waiting >= SESSIONS_WAITING_MAX:
            raise Unavailable(f"{SESSIONS_WAITING_MAX} unauthorised agents are connected, which is the bound.")
        session.proof = proof
        welcome = await (self._enter_as_visitor(session) if isinstance(hello, Visit) else self._enter(session))
        session.proven.set()
        return welcome

    async def _enter(self, session: _Session) -> Welcome:
        """Tell the journal who is there; what it answers decides whether the agent works or waits."""
        hello, proof = session.hello, session.proof
        assert hello is not None, "proven sessions said Hello"
        assert proof is not None, "proven sessions gave their proof"
        async with self._presence_of(session):
            if session.state == "authorised":
                return self._welcome(session)
            reply = await self._execute(
                session,
                AgentHello(
                    hwid=hello.hwid,
                    hostname=hello.hostname,
                    public_key=hello.public_key.hex(),
                    address=session.link.address,
                    os_type=proof.os_type,
                    os_version=proof.os_version,
                    agent_version=proof.agent_version,
                    resource_types=proof.resource_types,
                ),
            )
            if not reply.data["authorised"]:
                session.state = "waiting"
                return self._welcome(session)
            session.client_id = int(reply.data["client_id"])
            earlier = self._by_client.get(session.client_id)
            self._by_client[session.client_id] = session
            session.state = "authorised"
            if earlier is not None:
                earlier.end("the client connected anew")
                await self._works.client_gone(session.client_id, "The client connected anew.")
            self.on_presence()
            return self._welcome(session)

    async def _enter_as_visitor(self, session: _Session) -> Welcome:
        """Only with the identity that was pinned."""
        assert session.hello is not None, "proven sessions said Visit"
        if sum(one.state == "visiting" for one in self._sessions) >= SESSIONS_VISITING_MAX:
            raise Unavailable(f"{SESSIONS_VISITING_MAX} visitors are connected, which is the bound.")
        client = self._journal.state.by_key(Client, session.hwid)
        if client is None or client.public_key != session.hello.public_key.hex():
            raise AuthenticationFailed(f"Client {session.hwid} is not authorised with this identity.")
        session.client_id = client.id
        session.state = "visiting"
        return self._welcome(session)

    def _presence_of(self, session: _Session) -> trio.Lock:
        lock = self._presence.get(session.hwid)
        if lock is None:
            lock = self._presence[session.hwid] = trio.Lock()
        return lock

    def _welcome(self, session: _Session) -> Welcome:
        return Welcome(
            authorised=session.state in ("authorised", "visiting"),
            client_id=session.client_id,
            data_port=self.data_port,
            heartbeat_seconds=self._heartbeat_seconds,
        )

    async def _welcome_again(self, session: _Session) -> None:
        try:
            welcome = await self._enter(session)
            assert session.conversation is not None, "who waits has a conversation"
            if welcome.authorised:
                await session.conversation.ask(welcome, self._heartbeat_seconds * HEARTBEATS_MISSED_MAX)
        except (Unavailable, DeadlineExceeded, AuthenticationFailed) as error:
            # It dials again and is welcomed then.
            session.end(error.message)

    async def _execute(self, session: _Session, command: Any) -> Reply:
        return await self._journal.execute(
            Order(
                command=command,
                command_id=f"session/{self._world.randomness.token_bytes(12).hex()}",
                actor=f"client:{session.hwid}",
            )
        )

    def _refuse(self, address: str, reason: str) -> None:
        self._refused += 1
        self._quiet.warning("refused from %s: %s", address, reason)
