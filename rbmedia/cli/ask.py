"""``rbmedia ask``: a user of a protected host asks for a rule of the global schedule; an administrator answers."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from rbcore.messages import AskForRule, AskForRuleDeletion
from rbmedia.exits import Exit
from rbmedia.settings import load_settings

_OPTIONS = (
    click.option("--server", default="", help="Host of the daemon [env: RB_SERVER_HOST]. Default: that of this home."),
    click.option("--control-port", help="Port of the daemon's control channel."),
    click.option(
        "--ca", "ca_certificate", type=click.Path(path_type=Path, dir_okay=False), help="The authority's certificate."
    ),
    click.option("--ca-fingerprint", default="", help="Its SHA-256."),
    click.option(
        "--data", type=click.Path(path_type=Path, file_okay=False), help="Where the agent of this host has its keys."
    ),
    click.option(
        "--home",
        type=click.Path(path_type=Path, file_okay=False),
        help="Home of the daemon on this host [env: RBMEDIA_HOME].",
    ),
    click.option(
        "--config", "configuration", type=click.Path(path_type=Path, dir_okay=False), help="TOML file of settings."
    ),
)


def _with_identity(command: Callable[..., Any]) -> Callable[..., Any]:
    """The options by which the agent of this host and its daemon are found."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


@click.group()
def ask() -> None:
    """Ask the administrators for a rule, with the identity of this host's agent, which goes on working."""


@ask.command("rule")
@_with_identity
@click.argument("path")
@click.option("--name", default="", help="Name of the rule. Default: the path.")
@click.option(
    "--type",
    "backup_type",
    type=click.Choice(["full", "incremental", "differential"]),
    default="full",
    show_default=True,
)
@click.option("--every", "periodic_launch", help="Every such interval, for example `1 day`; or give a time:")
@click.option("--min", type=click.IntRange(0, 59), help="Minute.")
@click.option("--hour", type=click.IntRange(0, 23), help="Hour.")
@click.option("--dom", type=click.IntRange(1, 31), help="Day of the month.")
@click.option("--mon", type=click.IntRange(1, 12), help="Month.")
@click.option("--dow", type=click.IntRange(0, 7), help="Day of the week; 1 is Monday.")
@click.option("--pool", help="Default: the pool that is set for this client.")
@click.option("--crypto", default="nocrypt", show_default=True, help="Algorithm, as GET crypto lists them.")
@click.option("--keep", "storage_duration", default="1 year", show_default=True, help="How long a backup is kept.")
@click.option("--comment", default="", help="What the administrators should know.")
def rule(
    path: str,
    name: str,
    server: str,
    control_port: str | None,
    ca_certificate: Path | None,
    ca_fingerprint: str,
    data: Path | None,
    home: Path | None,
    configuration: Path | None,
    **wanted: Any,
) -> int:
    """Ask that PATH of this host is backed up again and again."""
    resource = os.path.abspath(path)
    given = {key: value for key, value in wanted.items() if value is not None}
    fields = {"name": name or resource, "resource_type": "File system", "resource": resource, **given}
    where = {"control_port": control_port, "home": home}
    return _hand_in(AskForRule(rule=fields), server, ca_certificate, ca_fingerprint, data, configuration, where)


@ask.command("deletion")
@_with_identity
@click.argument("rule_id", type=click.IntRange(1))
@click.option("--comment", default="", help="What the administrators should know.")
def deletion(
    rule_id: int,
    comment: str,
    server: str,
    control_port: str | None,
    ca_certificate: Path | None,
    ca_fingerprint: str,
    data: Path | None,
    home: Path | None,
    configuration: Path | None,
) -> int:
    """Ask that the rule RULE_ID about this host goes."""
    message = AskForRuleDeletion(rule_id=rule_id, comment=comment)
    where = {"control_port": control_port, "home": home}
    return _hand_in(message, server, ca_certificate, ca_fingerprint, data, configuration, where)


def _hand_in(
    message: AskForRule | AskForRuleDeletion,
    server: str,
    ca_certificate: Path | None,
    ca_fingerprint: str,
    data: Path | None,
    configuration: Path | None,
    options: dict[str, Any],
) -> int:
    if server:
        options["server_host"] = server
    settings = load_settings(configuration=configuration, options=options)
    from rbmedia import compose_agent

    agent = compose_agent.plan(
        settings, ca_certificate=ca_certificate, fingerprint=ca_fingerprint, data=data, remote=bool(server)
    )
    request_id = compose_agent.hand_in(agent, message)
    click.echo(f"Request {request_id} waits for an administrator.")
    return Exit.OK
