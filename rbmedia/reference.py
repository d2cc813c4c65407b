"""Tables of docs/operations.md that follow from the code: settings, exit codes, commands (``scripts/docs``).

A generated part stands between two comment lines, ``<!-- generated: NAME -->`` and ``<!-- end -->``; everything else is written by hand.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import click

from rbmedia.exits import Exit
from rbmedia.settings import SETTING_NAMES, Settings, declared

_PART = re.compile(r"(<!-- generated: (\w+) -->\n).*?(<!-- end -->)", re.DOTALL)


def settings_table() -> str:
    """All settings with key, environment, default and range."""
    fields = Settings.__dataclass_fields__
    rows = ["| key | environment | default | allowed | meaning |", "|---|---|---|---|---|"]
    for name in SETTING_NAMES:
        rule, field = declared(name), fields[name]
        if field.type == "int":
            allowed = f"{rule.minimum} to {rule.maximum}" + (f" {rule.unit}" if rule.unit else "")
        else:
            allowed = {"bool": "true, false", "Path": "a path"}.get(str(field.type), "a text")
        default = (
            "" if field.type == "Path" else str(field.default).lower() if field.type == "bool" else str(field.default)
        )
        variable = f"`{rule.environment}`" if rule.environment else ""
        rows.append(f"| `{name}` | {variable} | {f'`{default}`' if default else 'empty'} | {allowed} | {rule.says} |")
    return "\n".join(rows) + "\n"


def exits_table() -> str:
    rows = ["| code | meaning |", "|---|---|"]
    rows += [f"| {int(one)} | {one.meaning} |" for one in Exit]
    return "\n".join(rows) + "\n"


def commands_table() -> str:
    """Every command with the first sentence of its help."""
    from rbmedia.cli import rbmedia

    rows = ["| command | what it does |", "|---|---|"]
    for path, command in _commands("rbmedia", rbmedia):
        rows.append(f"| `{path}` | {command.get_short_help_str(limit=200)} |")
    return "\n".join(rows) + "\n"


def _commands(path: str, command: click.Command) -> Iterator[tuple[str, click.Command]]:
    if isinstance(command, click.Group):
        if command.invoke_without_command:
            yield path, command
        for name, one in sorted(command.commands.items()):
            if one.hidden:
                continue  # what a program starts, nobody types
            yield from _commands(f"{path} {name}", one)
    else:
        arguments = [
            one.make_metavar(click.Context(command)) for one in command.params if isinstance(one, click.Argument)
        ]
        yield " ".join([path, *arguments]).replace("|", "\\|"), command


PARTS: dict[str, Callable[[], str]] = {"settings": settings_table, "exits": exits_table, "commands": commands_table}


def with_generated_parts(text: str) -> str:
    """The document with every generated part made anew; KeyError for a part that nobody makes."""
    return _PART.sub(lambda found: f"{found[1]}{PARTS[found[2]]()}{found[3]}", text)


def main(arguments: list[str]) -> int:
    """Write or (``--check``) compare documents; 1 when one is out of date."""
    parser = argparse.ArgumentParser(prog="scripts/docs")
    parser.add_argument("--check", action="store_true")
    parser.add_argument("documents", nargs="+", type=Path)
    parsed = parser.parse_args(arguments)
    stale = 0
    for path in parsed.documents:
        text = path.read_text()
        wanted = with_generated_parts(text)
        if wanted == text:
            continue
        stale += 1
        if parsed.check:
            sys.stderr.write(f"{path} is out of date: run scripts/docs\n")
        else:
            path.write_text(wanted)
            sys.stdout.write(f"{path} written\n")
    return 1 if parsed.check and stale else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
