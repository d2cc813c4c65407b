"""Vocabularies: consistent with each other, and defaults within their own ranges."""

from __future__ import annotations

import pytest

from rbcore import vocabulary as words
from rbcore.configuration import configured
from rbcore.interval import parse_interval
from rbcore.state import State
from rbcore.vocabulary import GLOBAL_CONFIGURATION, ConfigurationKey


@pytest.mark.parametrize("key", GLOBAL_CONFIGURATION.values(), ids=lambda key: key.name)
def test_defaults_are_acceptable_values(key: ConfigurationKey) -> None:
    match key.type:
        case "integer":
            assert key.unit
            assert key.minimum <= key.default <= key.maximum
            assert key.default % key.multiple_of == 0
        case "yes_no" | "choice":
            assert key.default in key.values
        case "boolean":
            assert key.default in (True, False)
        case "path":
            assert key.default.startswith("/")
        case "time":
            assert parse_interval(key.default).seconds < 86_400
        case "text":
            assert key.default == ""
    assert key.meaning.endswith(".")
    assert configured(State(), key.name) == key.default


def test_statuses_are_one_vocabulary() -> None:
    assert set(words.RUNNING_STATUSES) < set(words.ACTIVE_STATUSES)
    assert set(words.ACTIVE_STATUSES) | words.TERMINAL_STATUSES == set(words.TASK_STATUSES)
    assert set(words.ACTIVE_STATUSES).isdisjoint(words.TERMINAL_STATUSES)
    assert set(words.REMOVAL_WORDS.values()) <= words.TERMINAL_STATUSES
    assert set(words.TAPE_TASK_STATUSES) <= set(words.TASK_STATUSES)
    assert set(words.TASK_TYPES) > words.CLIENT_TASKS


def test_deduplication_default_is_a_pair_that_is_allowed() -> None:
    algorithm, hash_length, block_size = words.DEDUPLICATION_DEFAULT
    assert hash_length in words.DEDUPLICATION_HASH_LENGTHS_BITS[algorithm]
    assert block_size in words.BLOCK_SIZES_BYTES
    assert set(words.DESTINATION_STORAGE_TYPES) >= words.POOL_TYPES_WITH_DATA_PLANE
    assert set(words.POOL_TYPE_SYNONYMS.values()) <= set(words.DESTINATION_STORAGE_TYPES)
    assert set(words.TAPE_NATIVE_CAPACITY_BYTES) == set(words.TAPE_TYPES) - {"CLN"}
