"""Documents and scripts agree with the code: generated tables, links, help of every command."""

from __future__ import annotations

import re
import stat
import subprocess
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from rbmedia.cli import rbmedia
from rbmedia.exits import Exit
from rbmedia.reference import with_generated_parts

ROOT = Path(__file__).resolve().parents[2]
DOCUMENTS = [ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").glob("*.md"))]
SCRIPTS = [*sorted((ROOT / "scripts").iterdir()), ROOT / ".ci" / "run"]


def commands(path: tuple[str, ...], command: click.Command) -> Iterator[tuple[str, ...]]:
    yield path
    if isinstance(command, click.Group):
        for name, one in command.commands.items():
            yield from commands((*path, name), one)


def test_generated_tables_are_those_of_the_code() -> None:
    text = (ROOT / "docs" / "operations.md").read_text()
    assert with_generated_parts(text) == text, "run scripts/docs"


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_links_lead_somewhere(document: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)[^)]*\)", document.read_text()):
        if "://" not in target:
            assert (document.parent / target).exists(), f"{document.name} links to {target}"


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_scripts_parse_and_can_be_run(script: Path) -> None:
    assert subprocess.run(["bash", "-n", script], check=False).returncode == 0
    if script.name != "_env":
        assert script.stat().st_mode & stat.S_IXUSR


@pytest.mark.parametrize("path", list(commands((), rbmedia)), ids=" ".join)
def test_every_command_explains_itself(path: tuple[str, ...]) -> None:
    done = CliRunner().invoke(rbmedia, [*path, "--help"])
    assert done.exit_code == 0
    assert "Usage:" in done.output
    command: click.Command = rbmedia
    for name in path:
        assert isinstance(command, click.Group)
        command = command.commands[name]
    assert command.help
    for parameter in command.params:
        if isinstance(parameter, click.Option) and not parameter.hidden and parameter.name not in ("yes", "help"):
            assert parameter.help or parameter.show_default or parameter.type.name == "choice", (
                f"{path}: {parameter.name}"
            )


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_scripts(shell: str) -> None:
    done = CliRunner().invoke(rbmedia, ["completion", shell])
    assert done.exit_code == 0
    assert "_RBMEDIA_COMPLETE" in done.output


def test_exit_codes_have_distinct_meanings() -> None:
    assert len({one.meaning for one in Exit}) == len(Exit)
