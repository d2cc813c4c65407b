"""``rbmedia login`` and ``logout``."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from rbmedia.cli.shell import Shell, online
from rbmedia.exits import CommandFailed, Exit


@click.command()
@online
@click.option("--user", default="rubackup", show_default=True, envvar="RBMEDIA_USER")
@click.option("--database", default="rubackup", show_default=True, help="The service database, as in the login method.")
@click.option(
    "--password-file", type=click.Path(path_type=Path, dir_okay=False, allow_dash=True), help="First line; - is stdin."
)
def login(shell: Shell, user: str, database: str, password_file: Path | None) -> None:
    """Log in and keep the login for later commands (in a file that only you can read).

    The password comes from --password-file, from RBMEDIA_PASSWORD, or from a prompt.
    """
    password = _password(password_file, user)
    with shell.client() as client:
        answer = client.login(user, password, database)
        roles = ", ".join(answer.data.get("role", []))
        shown = {"url": client.url, "user_name": user, "role": answer.data.get("role", [])}
        shell.show(shown, f"Logged in at {client.url} as {user} ({roles}).")


@click.command()
@online
def logout(shell: Shell) -> None:
    """End the kept login."""
    with shell.client() as client:
        was = client.user
        client.logout()
        shell.show(
            {"url": client.url, "user_name": was}, f"Logged out of {client.url}." if was else "Nobody was logged in."
        )


def _password(file: Path | None, user: str) -> str:
    import os

    if file is not None:
        try:
            text = sys.stdin.readline() if str(file) == "-" else file.read_text()
        except (OSError, UnicodeDecodeError) as error:
            raise CommandFailed(f"The password file cannot be read: {error}.", Exit.USAGE) from None
        return text.split("\n", 1)[0]
    from_environment = os.environ.get("RBMEDIA_PASSWORD")
    if from_environment:
        return from_environment
    prompted: str = click.prompt(f"Password of {user}", hide_input=True, err=True)
    return prompted
