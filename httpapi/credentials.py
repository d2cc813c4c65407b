"""Password hashes: argon2id, outside the event log (events name a credential by id).

Checking a password costs tens of milliseconds and tens of MiB on purpose, so it runs on worker threads, few at a time, and costs
the same whether the user exists or not.
"""

from __future__ import annotations

import re
from typing import Protocol

import trio
from argon2 import Parameters, PasswordHasher, profiles
from argon2.exceptions import InvalidHashError, VerificationError

from rbcore import passwords
from rbcore.errors import InvalidRequest, NotFound, Unavailable
from rbcore.ports import Randomness, Threads, Volume

VERIFICATIONS_MAX = 2
"""At once: 64 MiB each with the default parameters."""
WAITING_MAX = 64
"""Logins waiting for their turn; one more is told to come again."""

_ID = re.compile(r"[0-9a-f]{32}")


class Credentials(Protocol):
    async def create(self, password: str) -> str:
        """Store the hash of a new password durably and return its credential id."""

    async def verify(self, credential_id: str, password: str) -> bool:
        """Whether this is the password. An unknown or empty id costs the same work and is False. Raises ``Unavailable``."""

    async def remove(self, credential_id: str) -> None:
        """Forget the hash. Nothing happens when there is none."""


class VolumeCredentials:
    """One file per credential id on a volume that only the daemon's user can read (``secrets/credentials``).

    A credential is written under a temporary name, synced, renamed, and the directory synced, before its id is told to anybody:
    an event never names a hash that a crash took away.
    """

    def __init__(
        self,
        volume: Volume,
        threads: Threads,
        randomness: Randomness,
        parameters: Parameters = profiles.RFC_9106_LOW_MEMORY,
    ) -> None:
        self._volume = volume
        self._threads = threads
        self._randomness = randomness
        self._hasher = PasswordHasher.from_parameters(parameters)
        self._turns = trio.CapacityLimiter(VERIFICATIONS_MAX)
        self._nobody = self._hasher.hash(randomness.token_bytes(16), salt=randomness.token_bytes(16))
        """Hash of a password that nobody knows, for the constant work."""

    async def create(self, password: str) -> str:
        secret = password.encode()
        if not 0 < len(secret) <= passwords.BYTES_MAX:
            sentence = f"A password has between 1 and {passwords.BYTES_MAX} bytes."
            raise InvalidRequest("Bad request", errors={"password": [sentence]})
        credential_id = self._randomness.token_bytes(16).hex()
        salt = self._randomness.token_bytes(16)

        def work() -> None:
            self._write(credential_id, self._hasher.hash(secret, salt=salt).encode())

        async with self._turns:
            await self._threads.run(work)
        return credential_id

    async def verify(self, credential_id: str, password: str) -> bool:
        if self._turns.statistics().tasks_waiting >= WAITING_MAX:
            raise Unavailable("Too many logins are being checked at this moment. Try again in a few seconds.")
        secret = password.encode("utf-8", "surrogatepass")

        def work() -> bool:
            known = self._read(credential_id)
            try:
                self._hasher.verify(known or self._nobody, secret[: passwords.BYTES_MAX])
            except (VerificationError, InvalidHashError):
                return False
            return known is not None and len(secret) <= passwords.BYTES_MAX

        async with self._turns:
            return await self._threads.run(work)

    async def remove(self, credential_id: str) -> None:
        def work() -> None:
            if _ID.fullmatch(credential_id):
                self._volume.remove(credential_id)
                self._volume.sync_directory("")

        await self._threads.run(work)

    def _write(self, credential_id: str, content: bytes) -> None:
        temporary = f"{credential_id}.new"
        file = self._volume.create(temporary)
        try:
            file.write(content)
            file.sync()
        finally:
            file.close()
        self._volume.rename(temporary, credential_id)
        self._volume.sync_directory("")

    def _read(self, credential_id: str) -> str | None:
        if not _ID.fullmatch(credential_id):
            return None
        try:
            file = self._volume.open(credential_id)
        except NotFound:
            return None
        try:
            return file.read_at(0, file.size()).decode("ascii", "replace")
        finally:
            file.close()
