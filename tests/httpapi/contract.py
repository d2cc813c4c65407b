"""The contract: which documented status codes were answered, and which need a story of their own."""

from __future__ import annotations

from collections import Counter
from collections.abc import Awaitable, Callable

from httpapi.rubackup.catalogue import facts
from tests.httpapi import manual_logs, manual_schedule, manual_storage, manual_tape, manual_users
from tests.httpapi.house import PASSWORD
from tests.httpapi.manual import NOTHING, Manual

SAME_ROUTE = {"DELETE /task_queue/{status}": "DELETE /task_queue/{id}"}
"""Documented twice, one pattern on the wire: what stands in the segment decides."""
PREPARATIONS = (manual_logs, manual_schedule, manual_storage, manual_tape, manual_users)
"""Modules that register how examples are prepared."""

Story = Callable[[Manual], Awaitable[None]]


class _Otherwise:
    """Documented codes that do not follow from an example or from a common fault."""

    def __init__(self) -> None:
        self._stories: dict[str, list[Story]] = {}

    def story(self, group: str) -> Callable[[Story], Story]:
        def register(story: Story) -> Story:
            self._stories.setdefault(group, []).append(story)
            return story

        return register

    async def carry_out(self, group: str, manual: Manual) -> None:
        for story in self._stories.get(group, ()):
            await story(manual)


class _Report:
    """The codes answered in this run of the tests, by method."""

    def __init__(self) -> None:
        self._answered: set[tuple[str, str, int]] = set()

    def note(self, answered: set[tuple[str, str, int]]) -> None:
        self._answered |= answered

    def lines(self) -> list[str]:
        """How many of the documented codes were given, by code; and the names of those that were not."""
        documented = {(name, int(code)) for name, one in facts().items() for code in one.responses}
        answered = {(f"{verb} {path}", code) for verb, path, code in self._answered}
        given = {(name, code) for name, code in documented if (SAME_ROUTE.get(name, name), code) in answered}
        total, done = (Counter(code for _, code in some) for some in (documented, given))
        lines = [f"{code}: {done[code]} of {total[code]} documented" for code in sorted(total)]
        called = {name for name in facts() if any(SAME_ROUTE.get(name, name) == one for one, _ in answered)}
        lines.append(
            f"{len(called)} of {len(facts())} methods called, {len(given)} of {len(documented)} documented codes given"
        )
        lines.append(f"{len(answered - documented)} further codes that every method may give (400, 401, 404)")
        missing = sorted(documented - given)
        if len(missing) <= NAMED_MAX:
            lines += [f"not given: {code} by {name}: its group was not run" for name, code in missing]
        return lines

    @property
    def empty(self) -> bool:
        return not self._answered


NAMED_MAX = 20
"""Codes that were not given are named when they are few: a run of all groups."""
OTHERWISE = _Otherwise()
REPORT = _Report()


@OTHERWISE.story("Auth")
async def _every_method_of_sign_in_refuses(manual: Manual) -> None:
    house = manual.house
    assert (await house.raw("POST", "auth/login", json=_login("wrong"))).status == 401
    assert (await house.raw("POST", "auth/refresh")).status == 401
    assert (await house.raw("DELETE", "auth/logout")).status == 401


def _login(password: str) -> dict[str, str]:
    return {"rubackup_database": "rubackup", "rubackup_user": "rubackup", "password": password}


@OTHERWISE.story("Users")
async def _a_user_is_deleted_while_his_new_password_is_hashed(manual: Manual) -> None:
    """Before that he is signed in, and after it he is not: only amid it there is nobody any more whose password it could be."""
    house = manual.house
    user = await manual.create("users")
    name = (await house.call("GET", f"users/{user}")).data["username"]
    ours = house.tokens
    assert (await house.login(name, PASSWORD)).status == 200
    headers, house.tokens = house.headers, ours
    credentials = house.services.credentials
    create = credentials.create

    async def create_and_delete(password: str) -> str:
        credential_id = await create(password)
        assert (await house.call("DELETE", f"users/{user}")).status == 200
        return credential_id

    credentials.create = create_and_delete  # type: ignore[method-assign]
    try:
        body = {"new_password": f"{PASSWORD}!"}
        answer = await house.raw("PATCH", "users/change_password", json=body, headers=headers)
    finally:
        credentials.create = create  # type: ignore[method-assign]
    assert answer.status == 404, answer.raw
    assert (await house.raw("PATCH", "users/change_password", json=body, headers=headers)).status == 401


@OTHERWISE.story("New Rule Requests")
async def _some_new_rules(manual: Manual) -> None:
    await _some_requests(manual, "new_rule_requests")


@OTHERWISE.story("Delete Rule Request")
async def _some_deletions(manual: Manual) -> None:
    await _some_requests(manual, "delete_rule_requests")


async def _some_requests(manual: Manual, collection: str) -> None:
    """One of two is there: it is answered, and the other is named."""
    for verb, word in (("POST", "approve"), ("DELETE", "decline")):
        request = await manual.record(collection)
        answer = await manual.house.call(verb, f"{collection}/{word}", {"ids": [request, NOTHING]})
        assert (answer.status, list(answer.errors)) == (207, [str(NOTHING)]), answer.raw
        assert answer.data == {"succeeded": [request], "failed": [NOTHING]}


@OTHERWISE.story("Tape Libraries")
async def _a_stranger_in_the_library(manual: Manual) -> None:
    house = manual.house
    library = await manual.record("tape_libraries")
    house.shelf.put("RB0999L9")
    answer = await house.call("POST", f"tape_libraries/{library}/sync")
    assert (answer.status, answer.errors) == (422, {"unknown_cartridges": ["RB0999L9"]})


@OTHERWISE.story("Task Queue")
async def _no_task_of_that_status(manual: Manual) -> None:
    answer = await manual.house.call("DELETE", "task_queue/obsoleted")
    assert answer.status == 404
