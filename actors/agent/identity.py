"""Who an agent is: files in its data directory, made at first start, durable before first use, readable by the owner only.

``identity.key``  the Ed25519 seed (32 bytes): signs proofs and archives
``master-key``    256 bits: every data key derives from it; without it encrypted backups cannot be restored, by anybody
``ca.pem``        the daemon's authority, when it was given by its fingerprint

Two agents on one host have two data directories, two identities and two hwids.
"""

from __future__ import annotations

import logging
import re
from dataclasses import dataclass, field
from pathlib import Path

from blake3 import blake3

from actors.agent.port import AgentKeys
from drivers.tls import fetch_authority, fingerprint_of, write_private
from rbcore.archive.keys import MASTER_KEY_BYTES, public_key
from rbcore.errors import AuthenticationFailed, Damaged, InvalidRequest, NotFound
from rbcore.ports import Randomness

_log = logging.getLogger(__name__)

SEED_BYTES = 32
IDENTITY_FILE = "identity.key"
_HWID = re.compile(r"[0-9a-f]{8,128}")


@dataclass(frozen=True, slots=True)
class Identity:
    """What proves that this is the agent it says it is."""

    hwid: str
    public_key: bytes
    keys: AgentKeys = field(repr=False)


def open_identity(directory: Path, randomness: Randomness, *, hwid: str = "") -> Identity:
    """The identity in ``directory``, made when it is not there. Blocking.

    ``hwid``: 8 to 128 hex digits of the operator's choice; by default the first 16 of the public key's digest. Raises ``Damaged``
    when a key file is not what it was: a new one in its place would be another agent and lose the encrypted backups.
    """
    if hwid and not _HWID.fullmatch(hwid):
        raise InvalidRequest("An agent's hwid is 8 to 128 lower-case hexadecimal digits.")
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    seed = _secret(directory / IDENTITY_FILE, SEED_BYTES, randomness)
    master_key = _secret(directory / "master-key", MASTER_KEY_BYTES, randomness)
    public = public_key(seed)
    derived = blake3(public, derive_key_context="rbmedia hwid v1").hexdigest()[:16]
    return Identity(hwid=hwid or derived, public_key=public, keys=AgentKeys(signing_seed=seed, master_key=master_key))


def _secret(path: Path, length: int, randomness: Randomness) -> bytes:
    try:
        found = path.read_bytes()
    except FileNotFoundError:
        made = randomness.token_bytes(length)
        write_private(path, made)
        _log.info("%s was made: keep a copy of it in a safe place", path)
        return made
    if len(found) != length:
        raise Damaged(f"{path} has {len(found)} bytes instead of {length}: put the copy back that you keep of it.")
    if path.stat().st_mode & 0o077:
        path.chmod(0o600)
        _log.warning("%s could be read by others; it cannot any more", path)
    return found


def authority_of(
    directory: Path, *, certificate: Path | None, fingerprint: str, daemon_host: str, daemon_port: int
) -> str:
    """The daemon's authority (PEM): from its file, or by its SHA-256 fingerprint, then kept as ``ca.pem``. Blocking.

    Raises ``NotFound``, ``AuthenticationFailed`` when fingerprint and certificate differ, ``Unavailable`` when it has to be
    fetched and the daemon does not answer.
    """
    kept = directory / "ca.pem"
    if certificate is not None:
        try:
            pem = certificate.read_text()
        except OSError as error:
            raise NotFound(f"The authority's certificate {certificate} cannot be read: {error}") from error
    elif kept.exists():
        pem = kept.read_text()
    elif fingerprint:
        pem = fetch_authority(daemon_host, daemon_port, fingerprint)
        write_private(kept, pem.encode())
    else:
        raise NotFound(
            "The agent was given neither the authority's certificate nor its fingerprint: whom should it trust?"
        )
    if fingerprint and fingerprint_of(pem) != fingerprint.replace(":", "").lower():
        raise AuthenticationFailed(
            f"The authority's certificate has the fingerprint {fingerprint_of(pem)}, not the one that was given."
        )
    return pem
