"""Proofs, checked by the one-file verifier in an interpreter that knows nothing of ours."""

from __future__ import annotations

import json
import subprocess
import sys
from hashlib import sha256
from pathlib import Path
from typing import Any

import lmdb
import pytest
from Crypto.PublicKey import ECC
from Crypto.Signature import eddsa
from hypothesis import given, settings
from hypothesis import strategies as st

import eventlog.verifier
from eventlog import verifier
from eventlog.audit import prove
from eventlog.checkpoint import TreeHead
from eventlog.signing import Signer, signature_holds
from rbcore.errors import Damaged, NotFound, Refused
from tests.eventlog.logs import make_log, overwrite, stored

VERIFIER = Path(eventlog.verifier.__file__)

RFC_8032 = (
    (
        "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a",
        "",
        "e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e065224901555fb8821590a33bacc61e39701cf9b46bd25bf5f0595bbe24655141438e7a100b",
    ),
    (
        "3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c",
        "72",
        "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da085ac1e43e15996e458f3613d0f11d8c387b2eaeb4302aeeb00d291612bb0c00",
    ),
    (
        "fc51cd8e6218a1a38da47ed00230f0580816ed13ba3303ac5deb911548908025",
        "af82",
        "6291d657deec24024827e69c3abe01a30ce548a284743a445e3680d7db5ac3ac18ff9b538d16f290ae67f760984dc6594a7c15e9716ed28dc027beceea1ec40a",
    ),
)
"""Section 7.1, tests 1 to 3."""


def run(path: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """The verifier, isolated: no environment, no site packages, another working directory."""
    return subprocess.run(
        [sys.executable, "-I", "-S", str(VERIFIER), str(path), *arguments],
        capture_output=True,
        text=True,
        cwd="/",
        check=False,
    )


async def proof_file(directory: Path, position: int, count: int = 30) -> Path:
    path = await make_log(directory, count)
    target = directory / "proof.json"
    target.write_bytes(prove(path, position).to_json())
    return target


@pytest.mark.parametrize(("position", "count"), [(1, 1), (1, 30), (17, 30), (30, 30), (4097, 9000), (8999, 9000)])
async def test_a_proof_convinces(tmp_path: Path, position: int, count: int) -> None:
    path = await proof_file(tmp_path, position, count)
    key = json.loads(path.read_text())["checkpoint"]["public_key"]
    told = run(path, "--key", key)
    assert (told.returncode, told.stderr) == (0, "")
    assert told.stdout.startswith(f"PROVED: event {position} stands in log ")
    assert f"under a checkpoint over {count} events" in told.stdout
    assert f'stream      "task/{position % 10}"' in told.stdout
    assert '"lines": ["a line"]' in told.stdout
    assert "compare it with the key you trust" in run(path).stdout


async def test_a_proof_under_another_key_does_not(tmp_path: Path) -> None:
    told = run(await proof_file(tmp_path, 17), "--key", "00" * 32)
    assert (told.returncode, told.stderr) == (1, "")
    assert "not by the one you gave" in told.stdout


def _changes(proof: dict[str, Any]) -> list[dict[str, Any]]:
    """Everything that can be changed in a proof, one change each."""

    def flipped(text: str, at: int) -> str:
        return text[:at] + ("0" if text[at] != "0" else "1") + text[at + 1 :]

    changed: list[dict[str, Any]] = [
        {**proof, "position": proof["position"] + 1},
        {**proof, "position": 0},
        {**proof, "position": 10**9},
        {**proof, "position": "17"},
        {**proof, "path": proof["path"][:-1]},
        {**proof, "path": [*proof["path"], "00" * 32]},
        {**proof, "path": proof["path"][::-1]},
        {**proof, "path": None},
        {**proof, "format": "other"},
        {**proof, "payload": proof["payload"] + "00"},
        {**proof, "payload": "zz"},
        {**proof, "previous_hash": proof["previous_hash"][2:]},
        {name: value for name, value in proof.items() if name != "checkpoint"},
    ]
    changed += [{**proof, "payload": flipped(proof["payload"], at)} for at in range(0, len(proof["payload"]), 40)]
    for at in (0, 33, 63):
        changed.append({**proof, "previous_hash": flipped(proof["previous_hash"], at)})
        changed += [
            {
                **proof,
                "path": [flipped(one, at) if number == which else one for number, one in enumerate(proof["path"])],
            }
            for which in range(len(proof["path"]))
        ]
    checkpoint = proof["checkpoint"]
    for name in ("signature", "public_key"):
        for at in (0, 31, 63):
            changed.append({**proof, "checkpoint": {**checkpoint, name: flipped(checkpoint[name], at)}})
    for old, new in (("size 30", "size 31"), ("log ", "log 0"), ("\n", "\n\n"), ("rbmedia", "other")):
        changed.append({**proof, "checkpoint": {**checkpoint, "text": checkpoint["text"].replace(old, new, 1)}})
    return changed


async def test_a_proof_that_was_changed_anywhere_does_not(tmp_path: Path) -> None:
    proof = json.loads((await proof_file(tmp_path, 17)).read_text())
    assert verifier.check(proof, None)[0].startswith("PROVED")
    target = tmp_path / "changed.json"
    for number, changed in enumerate(_changes(proof)):
        target.write_text(json.dumps(changed))
        code = verifier.main([str(target)])
        assert code == 1, changed
        if number % 20 == 0:
            told = run(target)
            assert (told.returncode, told.stderr) == (1, "")
            assert told.stdout.startswith("NOT PROVED: ")


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"3", b"\xff", b"{}", b"null"])
def test_what_is_no_proof_is_told(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "proof.json"
    path.write_bytes(content)
    told = run(path)
    assert told.returncode in (1, 2)
    assert "Traceback" not in told.stderr
    assert run(tmp_path / "missing").returncode == 2


@pytest.mark.parametrize(("public_key", "message", "signature"), RFC_8032)
def test_ed25519_of_the_verifier_is_that_of_the_rfc(public_key: str, message: str, signature: str) -> None:
    key, text, signed = bytes.fromhex(public_key), bytes.fromhex(message), bytes.fromhex(signature)
    assert verifier.ed25519_holds(key, text, signed)
    assert not verifier.ed25519_holds(key, text + b"x", signed)
    assert not verifier.ed25519_holds(key, text, signed[:-1] + bytes([signed[-1] ^ 1]))
    high = int.from_bytes(signed[32:], "little") + verifier.ORDER
    assert not verifier.ed25519_holds(key, text, signed[:32] + high.to_bytes(32, "little")), "malleable"
    assert not verifier.ed25519_holds(key[:31], text, signed)


@settings(max_examples=10, deadline=None)
@given(seed=st.binary(min_size=32, max_size=32), message=st.binary(max_size=100))
def test_ed25519_of_the_verifier_agrees_with_the_library(seed: bytes, message: bytes) -> None:
    key = ECC.construct(curve="Ed25519", seed=seed)
    signature = eddsa.new(key, "rfc8032").sign(message)
    public_key = key.public_key().export_key(format="raw")
    assert verifier.ed25519_holds(public_key, message, signature)
    assert not verifier.ed25519_holds(public_key, message + b"\0", signature)


def test_a_checkpoint_says_what_was_signed() -> None:
    head = TreeHead(b"x" * 16, 5, b"h" * 32, sha256().digest(), 12)
    checkpoint = Signer(bytes(32)).sign(head)
    assert checkpoint.head() == head
    assert signature_holds(checkpoint)
    assert verifier.read_checkpoint(checkpoint.text) == ((b"x" * 16).hex(), 5, sha256().digest(), 12)


async def test_what_cannot_be_proved_is_said(tmp_path: Path) -> None:
    path = await make_log(tmp_path, 30)
    for position in (0, 31):
        with pytest.raises(NotFound, match="has events 1 to 30"):
            prove(path, position)
    value = bytearray(stored(path)[4])
    value[-1] ^= 1
    overwrite(path, {5: bytes(value)})
    with pytest.raises(Damaged, match="does not lead to the tree head"):
        prove(path, 17)


async def test_what_is_not_signed_yet_is_said(tmp_path: Path) -> None:
    path = await make_log(tmp_path, 30)
    with lmdb.open(str(path), max_dbs=6, map_size=1 << 30) as environment:
        checkpoints = environment.open_db(b"checkpoints")
        with environment.begin(write=True) as transaction:
            transaction.drop(checkpoints, delete=False)
    with pytest.raises(Refused, match="not under a signed checkpoint yet"):
        prove(path, 17)
