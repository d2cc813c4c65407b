"""The first start: who the superuser is, and tidying up what an interrupted start left in the secrets store.

The password is chosen by the operator (environment, file) or drawn here and printed once. It is printed before its hash is
recorded: a crash between the two makes the next start print another one, and no installation exists whose
password nobody saw.
"""

from __future__ import annotations

import hashlib
import logging
import os
import socket
from pathlib import Path

from actors.port import Journal
from httpapi.credentials import Credentials
from rbcore.commands import AddBuiltIns, Initialise, Order
from rbcore.entities import MediaServer, User
from rbcore.errors import ReadOnly
from rbcore.ports import World
from rbmedia.settings import BadSetting, Home, Settings

SUPERUSER = "rubackup"
DATABASE = "rubackup"
PASSWORD_BYTES = 15

log = logging.getLogger("rbmedia")


def chosen_password(settings: Settings) -> str:
    """The operator's choice; empty: none was made. Raises :class:`BadSetting`."""
    if settings.superuser_password:
        return settings.superuser_password
    if not settings.superuser_password_file:
        return ""
    try:
        text = Path(settings.superuser_password_file).expanduser().read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise BadSetting(f"superuser_password_file cannot be read: {error}.") from None
    password = text.split("\n", 1)[0]
    if not password:
        raise BadSetting(f"superuser_password_file: the first line of {settings.superuser_password_file} is empty.")
    return password


async def initialise(journal: Journal, credentials: Credentials, world: World, settings: Settings, home: Home) -> None:
    """Make the installation when it is not there yet; one of an earlier release gets what that did not have."""
    if any(True for _ in journal.state.all(MediaServer)):
        await _add_built_ins(journal, world)
        return
    password = chosen_password(settings)
    if not password:
        password = _drawn(world.randomness.token_bytes(PASSWORD_BYTES))
        print(f"first start: user {SUPERUSER}, database {DATABASE}, password {password}", flush=True)
    credential_id = await credentials.create(password)
    hostname = socket.gethostname()
    command = Initialise(
        hostname=hostname,
        hwid=server_hwid(hostname),
        superuser=SUPERUSER,
        credential_id=credential_id,
        default_catalog_path=str(home.default_pool),
    )
    await journal.execute(Order(command=command, command_id=f"initialise-{credential_id}", actor="actor:daemon"))
    log.info("first start: the installation in %s is made", home.path)


async def _add_built_ins(journal: Journal, world: World) -> None:
    command_id = f"built-ins-{world.randomness.token_bytes(16).hex()}"
    try:
        await journal.execute(Order(command=AddBuiltIns(), command_id=command_id, actor="actor:daemon"))
    except ReadOnly as error:
        # A daemon on a full log volume serves readers all the same; the next start with room does it.
        log.warning("built-in records of this release are not added: %s", error.message)


async def forget_unused_credentials(journal: Journal, credentials: Credentials, folder: Path) -> None:
    """Remove hashes that no user has: a crash came between storing one and recording it."""
    used = {user.credential_id for user in journal.state.all(User)}
    for name in sorted(os.listdir(folder)):
        if name not in used:
            await credentials.remove(name.removesuffix(".new"))
            (folder / name).unlink(missing_ok=True)
            log.info("removed credential %s, which no user has", name)


def server_hwid(hostname: str) -> str:
    """Hardware id of this host as a media server: 16 hex digits from the machine id, or from the name where there is none."""
    try:
        identity = Path("/etc/machine-id").read_text().strip()
    except OSError:
        identity = ""
    return hashlib.blake2b(f"rbmedia media server {identity or hostname}".encode(), digest_size=8).hexdigest()


def _drawn(random: bytes) -> str:
    """Readable aloud: groups of five from an alphabet without look-alikes, five bits of every byte."""
    alphabet = "abcdefghijkmnpqrstuvwxyz23456789"
    assert len(alphabet) == 32
    letters = "".join(alphabet[byte % 32] for byte in random)
    return "-".join(letters[start : start + 5] for start in range(0, len(letters), 5))
