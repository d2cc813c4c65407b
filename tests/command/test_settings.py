"""Settings: where a value may come from, which one wins, and what the sentence about a bad one says."""

from __future__ import annotations

import contextlib
import stat
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rbmedia.settings import SETTING_NAMES, BadSetting, Home, Settings, declared, load_settings


def test_defaults_are_the_documented_ones(tmp_path: Path) -> None:
    settings = load_settings(environment={}, options={"home": tmp_path})
    assert (settings.host, settings.port, settings.server_host, settings.debug) == (
        "localhost",
        5656,
        "localhost",
        False,
    )


def test_later_places_win(tmp_path: Path) -> None:
    (tmp_path / "rbmedia.toml").write_text('host = "file"\nport = 1\ncontrol_port = 7\n')
    settings = load_settings(
        environment={"APP_HOST": "environment", "APP_PORT": "2", "RBMEDIA_HOME": str(tmp_path)}, options={"port": "3"}
    )
    assert (settings.host, settings.port, settings.control_port) == ("environment", 3, 7)
    assert settings.home == tmp_path


def test_an_empty_variable_is_no_value(tmp_path: Path) -> None:
    assert load_settings(environment={"APP_PORT": "", "DEBUG": ""}, options={"home": tmp_path}).port == 5656


@pytest.mark.parametrize("word", ["True", "true", "yes", "1", "on"])
def test_debug_takes_the_words_people_write(tmp_path: Path, word: str) -> None:
    assert load_settings(environment={"DEBUG": word}, options={"home": tmp_path}).debug


@pytest.mark.parametrize("port", ["-1", "65536", "5656x", "", " ", "5.6", "٥٦٥٦", "9" * 40])
def test_a_bad_port_is_named_with_its_range_and_origin(tmp_path: Path, port: str) -> None:
    with pytest.raises(BadSetting) as caught:
        load_settings(environment={}, options={"home": tmp_path, "port": port})
    sentence = str(caught.value)
    assert "port" in sentence
    assert "from 0 to 65535" in sentence
    assert "the command line" in sentence


def test_an_unknown_key_is_refused_and_the_likely_one_named(tmp_path: Path) -> None:
    (tmp_path / "rbmedia.toml").write_text('hots = "x"\n')
    with pytest.raises(BadSetting, match=r"no setting hots .*Did you mean host"):
        load_settings(environment={}, options={"home": tmp_path})


def test_a_file_that_is_not_toml_is_refused(tmp_path: Path) -> None:
    named = tmp_path / "other.toml"
    named.write_text("host = = 1")
    with pytest.raises(BadSetting, match="is not TOML"):
        load_settings(configuration=named, environment={}, options={"home": tmp_path})
    with pytest.raises(BadSetting, match="does not exist"):
        load_settings(configuration=tmp_path / "missing.toml", environment={}, options={"home": tmp_path})


@given(
    st.sampled_from(SETTING_NAMES),
    st.one_of(st.text(max_size=30), st.integers(), st.booleans(), st.floats(), st.none()),
)
def test_any_value_is_taken_or_refused_in_a_sentence(name: str, value: object) -> None:
    with contextlib.suppress(BadSetting):
        assert isinstance(load_settings(environment={}, options={"home": "/nowhere", name: value}), Settings)


def test_every_setting_says_what_it_is_for_and_numbers_have_a_range() -> None:
    for name in SETTING_NAMES:
        rule = declared(name)
        assert rule.says
        if Settings.__dataclass_fields__[name].type == "int":
            assert rule.minimum is not None
            assert rule.maximum is not None


def test_the_password_does_not_show_in_what_is_logged(tmp_path: Path) -> None:
    settings = load_settings(environment={"RBMEDIA_SUPERUSER_PASSWORD": "correct horse"}, options={"home": tmp_path})
    assert settings.superuser_password == "correct horse"
    assert "correct horse" not in repr(settings)


def test_secrets_and_keys_are_for_the_owner_only(tmp_path: Path) -> None:
    home = Home(tmp_path / "home")
    home.make()
    home.make()
    for folder in (home.secrets, home.pki, home.agent, home.log):
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
