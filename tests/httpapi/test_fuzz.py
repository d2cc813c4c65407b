"""schemathesis against the served description: no 5xx that is a bug, no answer that is not described, nothing that hangs.

Examples of the manual, boundaries and faults of every declared value, random input, and sequences along the links of the description, so that what
one request makes is used by the next. ``RBMEDIA_FUZZ_SECONDS`` is how long it may go on (default 80, both runs together), ``RBMEDIA_FUZZ_SEED`` which run it is.
"""

from __future__ import annotations

import logging
import os
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
import trio

from tests.httpapi.contract import PREPARATIONS
from tests.httpapi.house import API, House
from tests.httpapi.manual import prepare
from tests.httpapi.test_server import serving

SECONDS = int(os.environ.get("RBMEDIA_FUZZ_SECONDS", "80"))
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
LEFT_OUT = ("DELETE /auth/logout", "PATCH /users/change_password", "PATCH /users/{id}")
"""They end the login that the run has: by an order, and by a new password of its user."""
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
    async with serving(house, tmp_path) as (told, _):
        command = [
            *(sys.executable, "-m", "schemathesis.cli", "--config-file", str(HERE / "schemathesis.toml"), "run"),
            *(f"{told.url}{API}/openapi.json", "--url", f"{told.url}{API}"),
            *("--tls-verify", str(tmp_path / "pki" / "ca.pem")),
            *(option for name, value in house.headers.items() for option in ("--header", f"{name}: {value}")),
            *(option for path in LEFT_OUT for option in ("--exclude-name", path)),
            *("--checks", "all", "--phases", phases, "--max-time", str(seconds), "--seed", SEED),
            *(
                "--request-timeout",
                "10",
                "--continue-on-failure",
                "--no-color",
                "--warnings",
                "off",
                "--generation-database",
                "none",
            ),
        ]
        with trio.fail_after(SECONDS * 2 + 120):
            ended = await trio.run_process(
                command, cwd=tmp_path, check=False, capture_stdout=True, stderr=subprocess.STDOUT
            )
    text = ended.stdout.decode()
    (tmp_path / "report.txt").write_text(text)
    assert ended.returncode == 0, text[-20_000:]
    assert (await house.call("GET", "pool_list")).status == 200, "the login is what it was"
    assert answers.count["500"] == 0
    if phases == "stateful":
        followed = re.search(r"API Links: +(\d+) covered", text)
        assert followed is not None
        assert int(followed[1]) > 0, text[-2_000:]
    else:
        assert answers.count["200"] > 200, f"few requests went through: {answers.count}"
        assert answers.count["201"] > 30, f"few things were made: {answers.count}"
