"""Logins: what is counted, when a name is blocked, and that strangers cannot fill the state."""

from __future__ import annotations

import pytest

from rbcore.commands import NoteAccessDenied, NoteLogin, NoteLogout
from rbcore.decide.access import login_blocked
from rbcore.entities import LoginFailures
from rbcore.errors import AuthenticationFailed
from rbcore.events import LoginFailed
from rbcore.evolve import LOGIN_FAILURES_MAX, apply
from rbcore.state import State
from tests.core.world import SECOND_NS, START_NS, World

HERE, THERE = "192.0.2.1", "192.0.2.2"
BLOCK_NS = 30 * 60 * SECOND_NS


@pytest.fixture
def world() -> World:
    return World().installed()


def fail(world: World, name: str = "rubackup", address: str = HERE) -> None:
    world.run(NoteLogin(user_name=name, address=address, succeeded=False, reason="wrong password"))


def blocked(world: World, name: str = "rubackup", address: str = HERE) -> bool:
    return login_blocked(world.state, name, address, world.now_ns)


def test_five_failures_block_the_name_from_that_address(world: World) -> None:
    for _ in range(4):
        fail(world)
        assert not blocked(world)
    fail(world)
    assert blocked(world)
    assert not blocked(world, address=THERE)
    assert not blocked(world, name="other")


def test_attempts_during_a_block_are_recorded_and_do_not_make_it_longer(world: World) -> None:
    for _ in range(5):
        fail(world)
    ends_ns = world.now_ns + BLOCK_NS
    events = len(world.log)
    fail(world)
    assert len(world.log) == events + 1
    world.now_ns = ends_ns - 2 * SECOND_NS
    assert blocked(world)
    world.now_ns = ends_ns
    assert not blocked(world)
    fail(world)
    assert not blocked(world), "the count begins anew after a block"


def test_a_success_forgets_failures(world: World) -> None:
    for _ in range(4):
        fail(world)
    world.run(NoteLogin(user_name="rubackup", address=HERE, succeeded=True))
    assert not world.state.tables["login_failures"]
    fail(world)
    assert not blocked(world)


def test_old_failures_do_not_count(world: World) -> None:
    for _ in range(4):
        fail(world)
    world.now_ns += BLOCK_NS
    fail(world)
    assert not blocked(world)


def test_what_strangers_send_is_bounded_and_storable(world: World) -> None:
    fail(world, name="\ud800" + "x" * 10_000)
    (known,) = world.state.all(LoginFailures)
    assert len(known.user_name) <= 256
    world.run(NoteAccessDenied(user_name="\udfff", method="GET" * 99, path="/" * 9999, address=HERE))
    world.run(NoteLogout(user_name="rubackup", reason="logout"))
    world.run(NoteLogout(user_name="nobody", reason="logout"))
    with pytest.raises(AuthenticationFailed, match="Verification failed"):
        world.run(NoteLogin(user_name="nobody", address=HERE, succeeded=True))


def test_the_oldest_failures_are_forgotten_at_the_bound() -> None:
    state = State()
    for number in range(LOGIN_FAILURES_MAX + 10):
        event = LoginFailed(f"user{number}", HERE, "unknown user", 1)
        apply(state, "access/0", number + 1, START_NS, number + 1, event)
    assert len(state.tables["login_failures"]) == LOGIN_FAILURES_MAX
    assert state.by_key(LoginFailures, ("user9", HERE)) is None
    assert state.by_key(LoginFailures, ("user10", HERE)) is not None
