"""First start, and credentials."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from rbcore.commands import AddBuiltIns, Command, Context, Initialise, SetCredential
from rbcore.decide.decision import Decision, Draft, get
from rbcore.entities import BackupStrategy, ClientGroup, LocalCatalog, MediaServer, Pool, User, UserGroup
from rbcore.events import RecordChanged
from rbcore.state import State
from rbcore.vocabulary import DEFAULT_POOL, DEFAULT_STRATEGY, NO_GROUP, NOBODY, PoolType, Role


def initialise(state: State, command: Initialise, context: Context) -> Decision:
    """What every installation has (reference 1.19). Nothing happens where it was done before."""
    draft = Draft(state)
    if not state.tables[MediaServer.KIND]:
        server = MediaServer(id=draft.take_id(MediaServer), hostname=command.hostname, hwid=command.hwid)
        group = ClientGroup(id=draft.take_id(ClientGroup), name=NO_GROUP, protected=True)
        pool = Pool(
            id=draft.take_id(Pool),
            pool_name=DEFAULT_POOL,
            pool_type=PoolType.FILE_SYSTEM,
            media_server=server.id,
            protected=True,
        )
        catalog = LocalCatalog(id=draft.take_id(LocalCatalog), path=command.default_catalog_path, pool=pool.id)
        superuser = User(
            id=draft.take_id(User),
            username=command.superuser,
            roles=(Role.SUPERUSER,),
            credential_id=command.credential_id,
            protected=True,
        )
        # Without a rule it does nothing: the manual's rules of strategies are of one that has this name.
        strategy = BackupStrategy(
            id=draft.take_id(BackupStrategy),
            name=DEFAULT_STRATEGY,
            pool_id=pool.id,
            created_ns=context.now_ns,
        )
        for entity in (server, group, pool, catalog, superuser, strategy):
            draft.add_record(entity)
        _add_built_ins(draft)
    return draft.decision()


def add_built_ins(state: State, command: AddBuiltIns, context: Context) -> Decision:
    """What later releases brought to every installation, for one that was made before them."""
    draft = Draft(state)
    if state.tables[MediaServer.KIND]:
        _add_built_ins(draft)
    return draft.decision()


def _add_built_ins(draft: Draft) -> None:
    nobody = draft.state.by_key(UserGroup, NOBODY)
    if nobody is None:
        draft.add_record(UserGroup(id=draft.take_id(UserGroup), groupname=NOBODY, protected=True))
    elif not nobody.protected:
        draft.add(UserGroup, nobody.id, RecordChanged({"protected": True}))


def set_credential(state: State, command: SetCredential, context: Context) -> Decision:
    user = get(state, User, command.user_id, "user")
    draft = Draft(state)
    data = {}
    if user.credential_id != command.credential_id:
        draft.add(User, user.id, RecordChanged({"credential_id": command.credential_id}))
        data["former_credential_id"] = user.credential_id
    return draft.decision(ids=[user.id], data=data)


DECIDERS: dict[type[Command], Callable[[State, Any, Context], Decision]] = {
    Initialise: initialise,
    AddBuiltIns: add_built_ins,
    SetCredential: set_credential,
}
