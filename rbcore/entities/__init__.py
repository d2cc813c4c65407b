"""Entities: the live state, one frozen struct per kind. ``evolve`` makes new ones; nothing changes one in place.

Times are nanoseconds since 1970-01-01 UTC, 0 meaning never or not yet. References are integer ids, 0 meaning none;
names are looked up where a view shows them.

Belongs here: what is known of one thing. Does not belong here: how it looks on the wire (``rbcore.resources``), what may be done
with it (``rbcore.decide``).
"""

from __future__ import annotations

from rbcore.entities.access import (
    Administrator,
    ClientGroup,
    LoginFailures,
    Maintainer,
    StrategyAdministrator,
    Supervisor,
    User,
    UserGroup,
)
from rbcore.entities.base import Entity
from rbcore.entities.clients import Client, FormerClient, UnauthorisedClient
from rbcore.entities.notifications import Notification
from rbcore.entities.schedule import (
    BackupStrategy,
    ClientBandwidth,
    DeleteRuleRequest,
    DisasterRecoveryPlan,
    NewRuleRequest,
    Report,
    ScheduleRule,
    StrategyRule,
)
from rbcore.entities.settings import CONFIGURATION_ID, Configuration
from rbcore.entities.storage import (
    BlockDevice,
    ClientDefinedStorage,
    DynamicPoolGroup,
    DynamicPoolGroupRecord,
    LocalCatalog,
    MediaServer,
    Pool,
    PoolSubstitution,
    UnauthorisedMediaServer,
)
from rbcore.entities.tape import LibrarySlot, MediumChanger, TapeCartridge, TapeDrive, TapeLibrary, TapeTask
from rbcore.entities.tasks import Backup, BackupPart, PendingRemoval, Task

ENTITIES: dict[str, type[Entity]] = {
    kind.KIND: kind
    for kind in (
        User,
        UserGroup,
        Supervisor,
        Maintainer,
        Administrator,
        StrategyAdministrator,
        ClientGroup,
        UnauthorisedMediaServer,
        MediaServer,
        Pool,
        LocalCatalog,
        PoolSubstitution,
        DynamicPoolGroup,
        DynamicPoolGroupRecord,
        BlockDevice,
        ClientDefinedStorage,
        UnauthorisedClient,
        Client,
        FormerClient,
        Task,
        Backup,
        PendingRemoval,
        TapeLibrary,
        MediumChanger,
        TapeDrive,
        LibrarySlot,
        TapeCartridge,
        TapeTask,
        LoginFailures,
        Configuration,
        Notification,
        BackupStrategy,
        ScheduleRule,
        StrategyRule,
        NewRuleRequest,
        DeleteRuleRequest,
        DisasterRecoveryPlan,
        Report,
        ClientBandwidth,
    )
}
"""By stream kind."""

__all__ = [
    "CONFIGURATION_ID",
    "ENTITIES",
    "Administrator",
    "Backup",
    "BackupPart",
    "BackupStrategy",
    "BlockDevice",
    "Client",
    "ClientBandwidth",
    "ClientDefinedStorage",
    "ClientGroup",
    "Configuration",
    "DeleteRuleRequest",
    "DisasterRecoveryPlan",
    "DynamicPoolGroup",
    "DynamicPoolGroupRecord",
    "Entity",
    "FormerClient",
    "LibrarySlot",
    "LocalCatalog",
    "LoginFailures",
    "Maintainer",
    "MediaServer",
    "MediumChanger",
    "NewRuleRequest",
    "Notification",
    "PendingRemoval",
    "Pool",
    "PoolSubstitution",
    "Report",
    "ScheduleRule",
    "StrategyAdministrator",
    "StrategyRule",
    "Supervisor",
    "TapeCartridge",
    "TapeDrive",
    "TapeLibrary",
    "TapeTask",
    "Task",
    "UnauthorisedClient",
    "UnauthorisedMediaServer",
    "User",
    "UserGroup",
]
