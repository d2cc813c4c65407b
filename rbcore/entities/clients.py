"""Protected hosts: those that may store backups, those that wait for it, and those that were."""

from __future__ import annotations

from rbcore.entities.base import Entity


class UnauthorisedClient(Entity, frozen=True, kw_only=True):
    KIND = "unauthorised_client"
    hwid: str
    hostname: str
    public_key: str
    address: str = ""
    os_type: str = "Linux"
    os_version: str = ""
    agent_version: str = ""
    resource_types: tuple[str, ...] = ()
    first_seen_ns: int = 0
    last_seen_ns: int = 0


class Client(Entity, frozen=True, kw_only=True):
    KIND = "client"
    hwid: str
    hostname: str
    public_key: str
    address: str = ""
    os_type: str = "Linux"
    os_version: str = ""
    agent_version: str = ""
    resource_types: tuple[str, ...] = ()
    online: bool = False
    last_online_ns: int = 0
    group_id: int = 1
    lsf_flag: bool = False
    ls_pool: int = 1
    lrl_flag: bool = False
    storage_capacity: int = 0
    description: str = ""
    centralized_restore: bool = True
    client_side_backup: bool = False
    client_side_restore: bool = False


class FormerClient(Entity, frozen=True, kw_only=True):
    """A client that is no longer authorised. Same id as the client had, which it gets back when it is authorised again."""

    KIND = "former_client"
    hwid: str
    hostname: str
