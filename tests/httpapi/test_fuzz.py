"""schemathesis against the served description: no 5xx that is a bug, no answer that is not described, nothing that hangs.

Examples of the manual, boundaries and faults of every declared value, random input, and sequences along the links of the description, so that what
one request makes is used by the next. ``RBMEDIA_FUZZ_SECONDS`` is how long it may go on (default 80, both runs together), ``RBMEDIA_FUZZ_SEED`` which run it is.
"""

from __future__ import annotations

import json
import logging
import os
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
import trio

from tests.httpapi.contract import PREPARATIONS
from tests.httpapi.house import API, USER, House
from tests.httpapi.manual import prepare
from tests.httpapi.test_server import serving

SECONDS = int(os.environ.get("RBMEDIA_FUZZ_SECONDS", "80"))
LOGIN_ENDING_SECONDS = 15
SEED = os.environ.get("RBMEDIA_FUZZ_SEED", "1")
COLLECTIONS = (
    "repository",
    "task_queue",
    "client_groups",
    "unauthorised_clients",
    "global_schedule",
    "strategy_rules",
    "new_rule_requests",
    "delete_rule_requests",
    "disaster_recovery_plan",
    "reports",
    "user_groups",
    "pool_substitution",
    "tape_libraries",
    "tape_cartridges",
)
"""What is there when it begins, so that ids lead somewhere."""
LOGIN_ENDING = ("DELETE /auth/logout", "PATCH /users/change_password", "PATCH /users/{id}")
"""By an order, and by a new password of the user: they have a run of their own, in which each request has a user of its own (``fuzz_sign_in``)."""
HERE = Path(__file__).parent


class Answers(logging.Handler):
    """Counts the status codes of the access log."""

    def __init__(self) -> None:
        super().__init__(logging.INFO)
        self.count: Counter[str] = Counter()

    def emit(self, record: logging.LogRecord) -> None:
        if line := _LINE.search(record.getMessage()):
            self.count[line[1]] += 1


_LINE = re.compile(r" 1\.1 (\d{3}) ")


@pytest.fixture
def answers(caplog: pytest.LogCaptureFixture) -> Iterator[Answers]:
    found, access_log = Answers(), logging.getLogger("rbmedia.access")
    caplog.set_level(logging.INFO, access_log.name)
    access_log.addHandler(found)
    yield found
    access_log.removeHandler(found)


@pytest.mark.slow
@pytest.mark.parametrize(("phases", "share"), [("examples,coverage,fuzzing", 0.6), ("stateful", 0.4)])
async def test_no_request_finds_a_bug(
    house: House, tmp_path: Path, answers: Answers, phases: str, share: float
) -> None:
    seconds = int(SECONDS * share)
    assert PREPARATIONS, "the examples are prepared"
    manual = await prepare(house, tmp_path)
    for collection in COLLECTIONS:
        await manual.record(collection)
    house.sessions.connected.update(one["id"] for one in (await house.call("GET", "clients")).data["items"])
    headers = [f"{name}: {value}" for name, value in house.headers.items()]
    options = [*_named("--exclude-name", LOGIN_ENDING), *_named("--header", headers), "--phases", phases]
    text = await _run(house, tmp_path, options, seconds)
    assert answers.count["500"] == 0
    if phases == "stateful":
        followed = re.search(r"API Links: +(\d+) covered", text)
        assert followed is not None
        assert int(followed[1]) > 0, text[-2_000:]
    else:
        assert answers.count["200"] > 200, f"few requests went through: {answers.count}"
        assert answers.count["201"] > 30, f"few things were made: {answers.count}"


@pytest.mark.slow
async def test_no_request_that_ends_a_login_finds_a_bug(house: House, tmp_path: Path, answers: Answers) -> None:
    manual = await prepare(house, tmp_path)
    await manual.record("users")
    assert (await house.call("GET", "users/1")).data["username"] == USER
    options = [*_named("--include-name", LOGIN_ENDING), "--phases", "examples,coverage,fuzzing"]
    hooks = {
        "SCHEMATHESIS_HOOKS": "tests.httpapi.fuzz_sign_in",
        "RBMEDIA_FUZZ_HEADERS": json.dumps(house.headers),
        "RBMEDIA_FUZZ_AUTHORITY": str(tmp_path / "pki" / "ca.pem"),
    }
    await _run(house, tmp_path, options, LOGIN_ENDING_SECONDS, hooks)
    assert answers.count["500"] == 0
    assert answers.count["201"] > 20, f"few users were made: {answers.count}"
    assert answers.count["200"] > 40, f"few requests went through: {answers.count}"


async def _run(
    house: House, folder: Path, options: list[str], seconds: int, environment: dict[str, str] | None = None
) -> str:
    """What schemathesis says of a run in which it found nothing."""
    async with serving(house, folder) as (told, _):
        command = [
            *(sys.executable, "-m", "schemathesis.cli", "--config-file", str(HERE / "schemathesis.toml"), "run"),
            *(f"{told.url}{API}/openapi.json", "--url", f"{told.url}{API}"),
            *("--tls-verify", str(folder / "pki" / "ca.pem")),
            *options,
            *("--checks", "all", "--max-time", str(seconds), "--seed", SEED, "--request-timeout", "10"),
            *("--continue-on-failure", "--no-color", "--warnings", "off", "--generation-database", "none"),
        ]
        with trio.fail_after(SECONDS * 2 + 120):
            ended = await trio.run_process(
                command,
                cwd=folder,
                check=False,
                capture_stdout=True,
                stderr=subprocess.STDOUT,
                env={**os.environ, "PYTHONPATH": str(HERE.parent.parent), **(environment or {})},
            )
    text = ended.stdout.decode()
    (folder / "report.txt").write_text(text)
    assert ended.returncode == 0, text[-20_000:]
    assert (await house.call("GET", "pool_list")).status == 200, "the login is what it was"
    return text


def _named(option: str, names: Sequence[str]) -> list[str]:
    return [word for name in names for word in (option, name)]
