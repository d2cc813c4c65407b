"""What demonstrations say while they run: a line at a time, at once."""

from __future__ import annotations


def say(text: str) -> None:
    print(text, flush=True)
