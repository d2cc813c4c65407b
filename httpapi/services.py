"""What the HTTP edge works with: the actors and ports behind it, and the few settings it has."""

from __future__ import annotations

from dataclasses import dataclass, field

from actors.port import BackupContents, Journal, Monitoring, Rooms, Sessions, TapeLibraries
from eventlog.views.port import ViewReader
from httpapi.credentials import Credentials
from httpapi.tokens import Tokens
from rbcore.block_device import BlockDevices
from rbcore.ports import Clock, Randomness


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    app_host: str = "localhost"
    """``APP_HOST``: the host part of the API's address. Decides the domain of the cookies."""
    server_address: str = "127.0.0.1"
    """Address of the primary server, as in ``rubackup_server_address`` of the login answer."""
    server_name: str = "localhost"
    database: str = "rubackup"
    """The only value of ``rubackup_database`` that signs in."""
    version: str = "0"
    body_bytes_max: int = 1024 * 1024
    requests_max: int = 256
    """Requests in progress at once; one more is answered ``unavailable``."""
    view_wait_seconds: float = 10.0
    """How long a write waits for the views to reach its position."""
    agent_wait_seconds: float = 15.0
    """How long a question to an agent may take."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Services:
    journal: Journal
    views: ViewReader
    sessions: Sessions
    contents: BackupContents
    tape: TapeLibraries
    block_devices: BlockDevices
    rooms: Rooms
    monitoring: Monitoring
    tokens: Tokens
    credentials: Credentials
    clock: Clock
    randomness: Randomness
    settings: Settings = field(default_factory=Settings)
