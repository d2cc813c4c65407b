"""Loaded by schemathesis (``SCHEMATHESIS_HOOKS``) for the methods that end a login: each request comes from a user of its own.

``RBMEDIA_FUZZ_HEADERS`` is JSON of whoever makes those users. He is not changed himself: ``PATCH /users/{id}`` goes past him.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from itertools import count
from typing import Any

import requests
import schemathesis

PASSWORD = "a password that is long enough"
OWN = ("/auth/logout", "/users/change_password")
_numbers = count(1)


@schemathesis.auth(refresh_interval=None)
class SignIn:
    """Headers for one request."""

    def get(self, case: Any, _context: Any) -> dict[str, str]:
        maker: dict[str, str] = json.loads(os.environ["RBMEDIA_FUZZ_HEADERS"])
        if not case.operation.path.endswith(OWN):
            return maker
        root, verify = case.operation.base_url, os.environ["RBMEDIA_FUZZ_AUTHORITY"]
        return _somebody(lambda path, **more: requests.post(f"{root}{path}", verify=verify, timeout=10, **more), maker)

    def set(self, case: Any, data: dict[str, str], _context: Any) -> None:
        case.headers = {**(case.headers or {}), **data}


@schemathesis.hook
def before_call(_context: Any, case: Any, _kwargs: dict[str, Any]) -> None:
    """Nobody takes the maker his password away."""
    number = str((case.path_parameters or {}).get("id"))
    if number.isdecimal() and int(number) == 1:
        case.path_parameters["id"] = 2


def _somebody(post: Callable[..., requests.Response], maker: dict[str, str]) -> dict[str, str]:
    """Headers of a new user who is signed in."""
    name = f"fuzz{os.getpid()}-{next(_numbers)}"
    made = post("/users", json={"data": {"username": name, "user_password": PASSWORD}}, headers=maker)
    made.raise_for_status()
    login = {"rubackup_database": "rubackup", "rubackup_user": name, "password": PASSWORD}
    answer = post("/auth/login", json=login)
    answer.raise_for_status()
    tokens = answer.json()["data"]
    return {"Authorization": f"Bearer {tokens['access_token']}", "X-CSRF-TOKEN": tokens["csrf_token"]}
