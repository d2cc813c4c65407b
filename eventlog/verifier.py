#!/usr/bin/env python3
"""Check a proof that an event stands in an rbmedia log. One file, nothing but a Python interpreter (3.8 or newer).

    python3 -I -S verifier.py proof.json [--key HEX]

Exit code 0: proved. 1: the proof does not hold. 2: it could not be read. Read this file before you trust it; it is short on purpose:

1. The checkpoint's text is signed (Ed25519, RFC 8032) by the public key in the proof, which is HEX if you gave one.
2. The record's hash is SHA-256(0x00 || previous hash || payload). Hashed upwards with the siblings in ``path``
   (SHA-256(0x01 || left || right), RFC 9162 section 2.1.3.2) it gives the root in the checkpoint's text.
3. The payload is the event at that position (a MessagePack array), printed as it stands.

Without ``--key`` the proof only shows that *somebody* signed: compare the printed key with one you got another way.
"""

from __future__ import annotations

import datetime
import hashlib
import json
import struct
import sys
from typing import Any, Tuple  # noqa: UP035  (runs on 3.8)

FIELDS = ("position", "time_ns", "stream", "version", "type", "schema", "actor", "command_id", "causation", "correlation", "body", "answer")  # fmt: skip


class Refuted(Exception):
    """The proof does not hold; the text says at which step."""


# --- Ed25519, RFC 8032 section 6 (verification only: speed and side channels do not matter here) ---------------------

Point = Tuple[int, int, int, int]  # noqa: UP006
"""Extended coordinates (X, Y, Z, T) with x = X/Z, y = Y/Z, x*y = T/Z."""

P = 2**255 - 19
ORDER = 2**252 + 27742317777372353535851937790883648493
D = -121665 * pow(121666, P - 2, P) % P
SQRT_MINUS_ONE = pow(2, (P - 1) // 4, P)


def recover_x(y: int, sign: int) -> int | None:
    """The x of the point with this y and this sign, or None."""
    if y >= P:
        return None
    x2 = (y * y - 1) * pow(D * y * y + 1, P - 2, P) % P
    if x2 == 0:
        return None if sign else 0
    x = pow(x2, (P + 3) // 8, P)
    if (x * x - x2) % P:
        x = x * SQRT_MINUS_ONE % P
    if (x * x - x2) % P:
        return None
    return P - x if x & 1 != sign else x


BASE_Y = 4 * pow(5, P - 2, P) % P
BASE_X = recover_x(BASE_Y, 0) or 0
BASE = (BASE_X, BASE_Y, 1, BASE_X * BASE_Y % P)


def add(one: Point, other: Point) -> Point:
    a = (one[1] - one[0]) * (other[1] - other[0]) % P
    b = (one[1] + one[0]) * (other[1] + other[0]) % P
    c = 2 * one[3] * other[3] * D % P
    d = 2 * one[2] * other[2] % P
    e, f, g, h = b - a, d - c, d + c, b + a
    return (e * f % P, g * h % P, f * g % P, e * h % P)


def multiply(scalar: int, point: Point) -> Point:
    product = (0, 1, 1, 0)
    while scalar:
        if scalar & 1:
            product = add(product, point)
        point = add(point, point)
        scalar >>= 1
    return product


def equal(one: Point, other: Point) -> bool:
    return (one[0] * other[2] - other[0] * one[2]) % P == 0 and (one[1] * other[2] - other[1] * one[2]) % P == 0


def decompress(encoded: bytes) -> Point | None:
    number = int.from_bytes(encoded, "little")
    y = number & ((1 << 255) - 1)
    x = recover_x(y, number >> 255)
    return None if x is None else (x, y, 1, x * y % P)


def ed25519_holds(public_key: bytes, message: bytes, signature: bytes) -> bool:
    """Whether ``signature`` (64 bytes) over ``message`` was made with the private key of ``public_key`` (32 bytes)."""
    if len(public_key) != 32 or len(signature) != 64:
        return False
    key, nonce = decompress(public_key), decompress(signature[:32])
    scalar = int.from_bytes(signature[32:], "little")
    if key is None or nonce is None or scalar >= ORDER:
        return False
    digest = hashlib.sha512(signature[:32] + public_key + message).digest()
    challenge = int.from_bytes(digest, "little") % ORDER
    return equal(multiply(scalar, BASE), add(nonce, multiply(challenge, key)))


# --- Merkle path -----------------------------------------------------------------------------------------------------


def node(left: bytes, right: bytes) -> bytes:
    return hashlib.sha256(b"\x01" + left + right).digest()


def root_from_path(leaf: bytes, index: int, size: int, path: list[bytes]) -> bytes:
    """RFC 9162 section 2.1.3.2."""
    first, last, digest = index, size - 1, leaf
    for sibling in path:
        if last == 0:
            raise Refuted(f"the Merkle path is too long for a tree of {size} events")
        if first & 1 or first == last:
            digest = node(sibling, digest)
            while not first & 1 and first:
                first >>= 1
                last >>= 1
        else:
            digest = node(digest, sibling)
        first >>= 1
        last >>= 1
    if last:
        raise Refuted(f"the Merkle path is too short for a tree of {size} events")
    return digest


# --- MessagePack, as far as envelopes need it ------------------------------------------------------------------------

SIZED = {0xCC: ">B", 0xCD: ">H", 0xCE: ">I", 0xCF: ">Q", 0xD0: ">b", 0xD1: ">h", 0xD2: ">i", 0xD3: ">q", 0xCA: ">f", 0xCB: ">d"}  # fmt: skip
STRINGS = {0xD9: ">B", 0xDA: ">H", 0xDB: ">I"}
BINARIES = {0xC4: ">B", 0xC5: ">H", 0xC6: ">I"}
ARRAYS = {0xDC: ">H", 0xDD: ">I"}
MAPS = {0xDE: ">H", 0xDF: ">I"}


class Unpacker:
    """MessagePack, as much of it as an event needs: reads one value after the other."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.offset = 0

    def take(self, count: int) -> bytes:
        piece = self.data[self.offset : self.offset + count]
        if len(piece) != count:
            raise Refuted("the payload ends in the middle of a value")
        self.offset += count
        return piece

    def number(self, form: str) -> Any:
        return struct.unpack(form, self.take(struct.calcsize(form)))[0]

    def array(self, count: int) -> list[Any]:
        return [self.value() for _ in range(count)]

    def map(self, count: int) -> dict[str, Any]:
        found = {}
        for _ in range(count):
            name = self.value()
            found[str(name)] = self.value()
        return found

    def value(self) -> Any:
        tag = self.take(1)[0]
        if tag < 0x80:
            return tag
        if tag < 0x90:
            return self.map(tag & 0x0F)
        if tag < 0xA0:
            return self.array(tag & 0x0F)
        if tag < 0xC0:
            return self.take(tag & 0x1F).decode("utf-8")
        if tag >= 0xE0:
            return tag - 256
        if tag in (0xC0, 0xC2, 0xC3):
            return {0xC0: None, 0xC2: False, 0xC3: True}[tag]
        if tag in SIZED:
            return self.number(SIZED[tag])
        if tag in STRINGS:
            return self.take(self.number(STRINGS[tag])).decode("utf-8")
        if tag in BINARIES:
            return self.take(self.number(BINARIES[tag])).hex()
        if tag in ARRAYS:
            return self.array(self.number(ARRAYS[tag]))
        if tag in MAPS:
            return self.map(self.number(MAPS[tag]))
        raise Refuted(f"the payload has a value of an unknown kind (0x{tag:02x})")


# --- the proof -------------------------------------------------------------------------------------------------------


def read_checkpoint(text: str) -> tuple[str, int, bytes, int]:
    """(log id, size, root, time in nanoseconds) that a checkpoint's text states."""
    lines = text.split("\n")
    names = ("", "log ", "size ", "head ", "root ", "time_ns ", "")
    if len(lines) != 7 or lines[0] != "rbmedia-log-checkpoint-v1" or lines[6]:
        raise Refuted("the checkpoint's text is not one of an rbmedia log")
    if not all(lines[i].startswith(names[i]) for i in range(7)):
        raise Refuted("the checkpoint's text is not one of an rbmedia log")
    _, log_id, size, _, root, time_ns, _ = (lines[i][len(names[i]) :] for i in range(7))
    return log_id, int(size), bytes.fromhex(root), int(time_ns)


def check(proof: Any, key: str | None) -> list[str]:
    """Raise ``Refuted``, or return the lines that say what is proved."""
    if proof["format"] != "rbmedia-log-proof-v1":
        raise Refuted(f"the format is {proof['format']!r}, and this verifier knows rbmedia-log-proof-v1")
    checkpoint = proof["checkpoint"]
    text, public_key = checkpoint["text"], checkpoint["public_key"]
    if key is not None and public_key.lower() != key.lower():
        raise Refuted(f"the checkpoint is signed by key {public_key}, not by the one you gave")
    if not ed25519_holds(bytes.fromhex(public_key), text.encode("utf-8"), bytes.fromhex(checkpoint["signature"])):
        raise Refuted("the signature of the checkpoint does not hold")
    log_id, size, root, time_ns = read_checkpoint(text)
    position, payload = proof["position"], bytes.fromhex(proof["payload"])
    previous = bytes.fromhex(proof["previous_hash"])
    if not 1 <= position <= size:
        raise Refuted(f"position {position} is not among the {size} signed events")
    if len(previous) != 32:
        raise Refuted(f"the previous hash has {len(previous)} bytes instead of 32")
    leaf = hashlib.sha256(b"\x00" + previous + payload).digest()
    if root_from_path(leaf, position - 1, size, [bytes.fromhex(one) for one in proof["path"]]) != root:
        raise Refuted("the record does not lead to the signed tree head")
    unpacker = Unpacker(payload)
    fields = unpacker.value()
    if not isinstance(fields, list) or len(fields) < 11 or fields[0] != position or unpacker.offset != len(payload):
        raise Refuted(f"the payload is not the event at position {position}")
    lines = [
        f"PROVED: event {position} stands in log {log_id}",
        f"  under a checkpoint over {size} events, the newest of {at(time_ns)}",
        f"  signed by key {public_key}{'' if key else '  <- compare it with the key you trust'}",
        "The event:",
    ]
    for name, content in zip(FIELDS, fields):  # noqa: B905  (runs on 3.8)
        told = f"  ({at(content)})" if name == "time_ns" else ""
        lines.append(f"  {name:11} {json.dumps(content, ensure_ascii=True)}{told}")
    return lines


def at(time_ns: int) -> str:
    """A time in nanoseconds, as text in UTC."""
    try:
        return datetime.datetime.fromtimestamp(time_ns / 1e9, datetime.UTC).isoformat()
    except (OverflowError, ValueError, OSError):
        return f"{time_ns} ns"


def main(arguments: list[str]) -> int:
    key = None
    if len(arguments) == 3 and arguments[1] == "--key":
        key = arguments[2]
    elif len(arguments) != 1 or arguments[0].startswith("-"):
        print("usage: verifier.py PROOF.json [--key HEX]", file=sys.stderr)
        return 2
    try:
        with open(arguments[0], encoding="utf-8") as file:
            proof = json.load(file)
    except (OSError, ValueError) as error:
        print(f"cannot read the proof: {error}", file=sys.stderr)
        return 2
    try:
        lines = check(proof, key)
    except Refuted as refuted:
        print(f"NOT PROVED: {refuted}")
        return 1
    except (KeyError, TypeError, ValueError, AttributeError, RecursionError, OverflowError) as error:
        print(f"NOT PROVED: the file is not a proof ({type(error).__name__}: {error})")
        return 1
    print("\n".join(lines))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
