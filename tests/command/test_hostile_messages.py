"""Names in error messages come from other hosts and from cartridges: none steers the terminal."""

from __future__ import annotations

import pytest

import rbmedia.cli
from rbcore import errors


def test_an_error_steers_no_terminal(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def refuse(**_: object) -> None:
        raise errors.Refused("client \x1b]0;evil\x07\r is unknown.\nLook at it.")

    monkeypatch.setattr(rbmedia.cli.rbmedia, "main", refuse)
    assert rbmedia.cli.run(["tape"]) == 1
    assert capsys.readouterr().err == "rbmedia: client \\x1b]0;evil\\x07\\x0d is unknown.\nLook at it.\n"
