"""What a password must be: the one place that says so.

Length is what counts; rules about kinds of characters only make people write passwords down. The first superuser's password is
chosen by whoever installs the server, who may take a shorter one; every later one is held to this.
"""

from __future__ import annotations

from typing import Final

LENGTH_MIN: Final = 8
"""Characters."""
BYTES_MAX: Final = 1024
"""In UTF-8: hashing costs what is hashed."""


def password_fault(password: str) -> str | None:
    """Why it cannot be taken, as a sentence that goes after the field's name; None: it can."""
    if len(password) < LENGTH_MIN:
        return f"must have at least {LENGTH_MIN} characters"
    if len(password.encode("utf-8", "surrogatepass")) > BYTES_MAX:
        return f"must have at most {BYTES_MAX} bytes"
    return None
