"""What every command shares: where the daemon is, who is asking, and how an answer is shown (a table, or ``--json``)."""

from __future__ import annotations

import functools
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Concatenate, ParamSpec, cast

import click
import msgspec

from rbmedia.client import RestClient
from rbmedia.endpoint import read_endpoint
from rbmedia.sessions import SessionFile, default_session_file
from rbmedia.settings import Home, Settings, load_settings

P = ParamSpec("P")


@dataclass(frozen=True, slots=True, kw_only=True)
class Shell:
    """The caller's side of a command."""

    as_json: bool
    home: Path | None = None
    server: str = ""
    ca_certificate: Path | None = None

    @property
    def settings(self) -> Settings:
        return load_settings(options={"home": self.home})

    def target(self) -> tuple[str, Path]:
        """URL and authority of the daemon that is meant (the order is that of the help text)."""
        settings = self.settings
        home = Home(settings.home)
        sessions = SessionFile(default_session_file())
        if self.server:
            url = self.server if "://" in self.server else f"https://{self.server}"
            known = sessions.find(url.rstrip("/"))
            return url, self.ca_certificate or (Path(known.ca_certificate) if known else home.ca_certificate)
        running = read_endpoint(home.daemon_file)
        if running is not None:
            return running.url, self.ca_certificate or Path(running.ca_certificate)
        last = sessions.last() if self.home is None else None
        if last is not None:
            return last.url, self.ca_certificate or Path(last.ca_certificate)
        return f"https://{settings.server_host}:{settings.port}", self.ca_certificate or home.ca_certificate

    def client(self) -> RestClient:
        """A client with the cached login, or with RBMEDIA_USER and RBMEDIA_PASSWORD of the environment."""
        url, ca_certificate = self.target()
        return RestClient(
            url, ca_certificate, sessions=SessionFile(default_session_file()), password_of=_password_of_environment
        )

    def say(self, text: str) -> None:
        """A sentence for people; with ``--json`` nothing but JSON goes to stdout."""
        click.echo(text, err=self.as_json)

    def show(self, value: Any, text: Callable[[], None] | str) -> None:
        """The result: ``value`` as JSON, or ``text`` for people."""
        if self.as_json:
            emit_json(value)
        elif isinstance(text, str):
            click.echo(text)
        else:
            text()

    def show_rows(self, rows: Sequence[Mapping[str, Any]], columns: Sequence[str], title: str = "") -> None:
        """A list: all keys as JSON, the named columns as a table (those that no row has are left out)."""
        self.show(list(rows), lambda: print_table(rows, columns, title))

    def show_record(self, row: Mapping[str, Any]) -> None:
        self.show(dict(row), lambda: print_record(row))


def emit_json(value: Any) -> None:
    click.echo(msgspec.json.format(msgspec.json.encode(value), indent=2).decode())


def cell(value: Any) -> str:
    """One value for people."""
    if value is None or value == "":
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list | tuple):
        return ", ".join(map(cell, value)) or "-"
    if isinstance(value, dict):
        return msgspec.json.encode(value).decode()
    return printable(str(value))


def printable(text: str) -> str:
    """Names come from other hosts: nothing in them may steer the terminal."""
    return "".join(one if one.isprintable() else f"\\x{ord(one):02x}" for one in text)


def print_table(rows: Sequence[Mapping[str, Any]], columns: Sequence[str], title: str = "") -> None:
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    if not rows:
        click.echo(f"{title or 'Rows'}: none.")
        return
    shown = [name for name in columns if any(name in row for row in rows)]
    table = Table(box=None, pad_edge=False, header_style="bold", title=title or None, title_justify="left")
    for name in shown:
        numeric = all(isinstance(row.get(name), int | float) and not isinstance(row.get(name), bool) for row in rows)
        table.add_column(name.replace("_", " "), justify="right" if numeric else "left", overflow="fold")
    for row in rows:
        table.add_row(*(escape(cell(row.get(name))) for name in shown))
    width = None if sys.stdout.isatty() else max(200, len(shown) * 40)
    Console(width=width, soft_wrap=not sys.stdout.isatty()).print(table)


def print_record(row: Mapping[str, Any]) -> None:
    width = max((len(name) for name in row), default=0)
    for name, value in row.items():
        click.echo(f"{name.replace('_', ' '):<{width}}  {cell(value)}")


def print_story(rows: Sequence[Mapping[str, Any]]) -> None:
    """Events with what caused them and what was rejected (``.../why``)."""
    for row in rows:
        click.echo(f"{row['id']:>8}  {row['time']}  {row['actor']}: {printable(row['text'])}")
        cause = row["caused_by"]
        if cause:
            click.echo(f"          because of event {cause['id']}")
        for reason in row["rejected"]:
            click.echo(f"          rejected: {printable(reason)}")


def byte_text(count: float) -> str:
    """``1.4 GiB``."""
    for unit in ("bytes", "KiB", "MiB", "GiB", "TiB"):
        if count < 1024 or unit == "TiB":
            return f"{count:.0f} {unit}" if unit == "bytes" else f"{count:.1f} {unit}"
        count /= 1024
    raise AssertionError("unreachable")


def _password_of_environment() -> tuple[str, str] | None:
    password = os.environ.get("RBMEDIA_PASSWORD")
    return (os.environ.get("RBMEDIA_USER") or "rubackup", password) if password else None


_JSON = click.option("--json", "as_json", is_flag=True, help="Answer in JSON.")
_HOME = click.option(
    "--home",
    type=click.Path(path_type=Path, file_okay=False),
    help="Home of the daemon on this host [env: RBMEDIA_HOME].",
)
_SERVER = click.option("--server", envvar="RBMEDIA_SERVER", default="", help="Daemon's URL, https://host:port.")
_CA = click.option(
    "--ca",
    "ca_certificate",
    envvar="RBMEDIA_CA",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Certificate of the daemon's authority (its home's pki/ca.pem).",
)


def online(command: Callable[Concatenate[Shell, P], Any]) -> Callable[..., Any]:
    """A command that talks to a daemon: gets a :class:`Shell` first."""

    @_JSON
    @_HOME
    @_SERVER
    @_CA
    @functools.wraps(command)
    def with_shell(as_json: bool, home: Path | None, server: str, ca_certificate: Path | None, **others: Any) -> Any:
        shell = Shell(as_json=as_json, home=home, server=server, ca_certificate=ca_certificate)
        return cast(Callable[..., Any], command)(shell, **others)

    return with_shell


def offline(command: Callable[Concatenate[Shell, P], Any]) -> Callable[..., Any]:
    """A command that works on the home folder itself."""

    @_JSON
    @_HOME
    @functools.wraps(command)
    def with_shell(as_json: bool, home: Path | None, **others: Any) -> Any:
        return cast(Callable[..., Any], command)(Shell(as_json=as_json, home=home), **others)

    return with_shell
