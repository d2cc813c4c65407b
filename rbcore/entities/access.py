"""Who uses the server, and which clients belong together."""

from __future__ import annotations

from rbcore.entities.base import Entity


class User(Entity, frozen=True, kw_only=True):
    KIND = "user"
    username: str
    fullname: str = ""
    address: str = ""
    tel: str = ""
    office: str = ""
    email: str = ""
    group_id: int = 1
    roles: tuple[str, ...] = ()
    """Follow from the assignments below (``rbcore.roles``); kept here so that the past shows them too."""
    credential_id: str = ""
    """Names the password hash in the secrets store; the hash itself never stands in the log."""
    protected: bool = False


class UserGroup(Entity, frozen=True, kw_only=True):
    """Users who are told of something together."""

    KIND = "user_group"
    groupname: str
    description: str = ""
    protected: bool = False


class Supervisor(Entity, frozen=True, kw_only=True):
    """The user has the role. So with the three below, each within what it names."""

    KIND = "supervisor"
    user: int


class Maintainer(Entity, frozen=True, kw_only=True):
    KIND = "maintainer"
    media_server: int
    user: int


class Administrator(Entity, frozen=True, kw_only=True):
    KIND = "administrator"
    client_group: int
    user: int


class StrategyAdministrator(Entity, frozen=True, kw_only=True):
    KIND = "strategy_administrator"
    strategy: int
    user: int


class ClientGroup(Entity, frozen=True, kw_only=True):
    KIND = "client_group"
    name: str
    description: str = ""
    shared: bool = False
    clustered: bool = False
    launch_attempts_limit: int = 1
    protected: bool = False


class LoginFailures(Entity, frozen=True, kw_only=True):
    """Failed logins in a row of one user name from one address. A newer failure gets a newer id: the lowest is the oldest."""

    KIND = "login_failures"
    user_name: str
    address: str
    count: int
    last_ns: int
