"""Verification of one backup: every stored byte is read, then the result gets its word (domain reference, 1.5)."""

from __future__ import annotations

import math

from actors.port import Journal
from actors.storage import Storages, Verified, VerifyArchive
from rbcore.archive.keys import verify_root
from rbcore.archive.store import Finding
from rbcore.commands import RecordVerification
from rbcore.entities import Backup, Client
from rbcore.errors import Damaged, NotFound
from rbcore.vocabulary import VerificationStatus

FINDINGS_MAX = 1000


async def verify_backup(journal: Journal, storages: Storages, task_id: int, backup: Backup) -> RecordVerification:
    """Raises ``NotAllowedNow`` when it was stopped, ``Unavailable`` when the catalog cannot be read now."""
    try:
        found = await storages.ask(
            backup.local_catalog_id, VerifyArchive(task_id=task_id, archive=backup.archive), math.inf
        )
    except (NotFound, Damaged) as error:
        return RecordVerification(
            task_id=task_id, status=VerificationStatus.BROKEN, bytes_read=0, findings=[error.message]
        )
    assert isinstance(found, Verified), "the answer to VerifyArchive"
    findings = [_sentence(one) for one in found.findings[:FINDINGS_MAX]]
    if len(found.findings) > FINDINGS_MAX:
        findings.append(f"... and {len(found.findings) - FINDINGS_MAX} more")
    if found.root.hex() != backup.root:
        findings.append(f"the root is {found.root.hex() or 'not computable'}, recorded was {backup.root}")
    client = journal.state.find(Client, backup.client_id)
    status = VerificationStatus.BROKEN if findings else _trust(backup, client)
    if status == VerificationStatus.SUSPICIOUS:
        findings.append("the content is what was stored, but the client's signature is absent or cannot be confirmed")
    return RecordVerification(task_id=task_id, status=status, bytes_read=found.bytes_read, findings=findings)


def _trust(backup: Backup, client: Client | None) -> str:
    """Trusted: the pinned key vouches for the root. A client that is no longer authorised was checked when the archive arrived."""
    if client is None:
        return VerificationStatus.TRUSTED if backup.signature_valid else VerificationStatus.SUSPICIOUS
    holds = verify_root(
        bytes.fromhex(client.public_key),
        bytes.fromhex(backup.archive),
        bytes.fromhex(backup.root),
        bytes.fromhex(backup.signature),
    )
    return VerificationStatus.TRUSTED if holds else VerificationStatus.SUSPICIOUS


def _sentence(finding: Finding) -> str:
    block = f"block {finding.block}" if finding.block >= 0 else "an unknown block"
    return f"{finding.container} at offset {finding.offset}, {block}: {finding.what}"
