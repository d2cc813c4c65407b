"""``rbmedia serve`` and ``rbmedia agent``: the two programs; and what the first starts of itself."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from rbmedia.settings import Home, load_settings


@click.command()
@click.option(
    "--home", type=click.Path(path_type=Path, file_okay=False), help="Everything the daemon keeps [env: RBMEDIA_HOME]."
)
@click.option("--host", help="Address the API listens on [env: APP_HOST].")
@click.option("--port", help="Port of the API; 0: any free one [env: APP_PORT].")
@click.option("--control-port", help="Port of the agents' control channel; 0: any free one.")
@click.option("--data-port", help="Port of the agents' data channel; 0: any free one.")
@click.option("--http-workers", help="Processes that answer the API beside the daemon [env: RBMEDIA_HTTP_WORKERS].")
@click.option(
    "--config", "configuration", type=click.Path(path_type=Path, dir_okay=False), help="TOML file of settings."
)
@click.option("--with-agent", is_flag=True, help="Run an agent for this host too.")
@click.option("--until-stdin-closes", is_flag=True, hidden=True, help="Stop when standard input ends.")
def serve(configuration: Path | None, with_agent: bool, until_stdin_closes: bool, **options: Any) -> int:
    """Run the daemon until SIGTERM or Ctrl-C."""
    settings = load_settings(configuration=configuration, options=options)
    home = Home(settings.home)
    home.make()
    from rbmedia import compose
    from rbmedia.logs import configure_logging

    configure_logging(home.messages, debug=settings.debug)
    return compose.run_daemon(settings, with_agent=with_agent, until_stdin_closes=until_stdin_closes)


@click.command()
@click.option(
    "--server", default="", help="Host of the daemon [env: RB_SERVER_HOST]. Default: the daemon of this home."
)
@click.option("--control-port", help="Port of the daemon's control channel.")
@click.option(
    "--ca", "ca_certificate", type=click.Path(path_type=Path, dir_okay=False), help="The authority's certificate."
)
@click.option(
    "--ca-fingerprint", default="", help="Its SHA-256: the certificate is then fetched from the daemon and kept."
)
@click.option(
    "--data", type=click.Path(path_type=Path, file_okay=False), help="Where the agent keeps identity and keys."
)
@click.option(
    "--home",
    type=click.Path(path_type=Path, file_okay=False),
    help="Home of the daemon on this host [env: RBMEDIA_HOME].",
)
@click.option(
    "--config", "configuration", type=click.Path(path_type=Path, dir_okay=False), help="TOML file of settings."
)
@click.option("--until-stdin-closes", is_flag=True, hidden=True, help="Stop when standard input ends.")
def agent(
    server: str,
    ca_certificate: Path | None,
    ca_fingerprint: str,
    data: Path | None,
    configuration: Path | None,
    until_stdin_closes: bool,
    **options: Any,
) -> int:
    """Run the agent of this host until SIGTERM or Ctrl-C.

    On the daemon's host it needs no options. Elsewhere it is told the daemon's host and its authority (certificate or
    fingerprint); it then waits until an administrator authorises it (rbmedia clients authorise).
    """
    if server:
        options["server_host"] = server
    settings = load_settings(configuration=configuration, options=options)
    from rbmedia import compose_agent
    from rbmedia.logs import configure_logging

    agent_settings = compose_agent.plan(
        settings, ca_certificate=ca_certificate, fingerprint=ca_fingerprint, data=data, remote=bool(server)
    )
    configure_logging(agent_settings.data_directory / "messages", debug=settings.debug)
    return compose_agent.run(agent_settings, settings, until_stdin_closes=until_stdin_closes)


@click.command(hidden=True)
@click.option("--home", type=click.Path(path_type=Path, file_okay=False), required=True, help="The daemon's.")
@click.option("--number", type=int, required=True, help="Which of the daemon's workers it is, from 1.")
@click.option("--handed", type=int, required=True, help="Descriptor of the socket that brings connections.")
@click.option("--channel", type=int, required=True, help="Descriptor of the socket to the daemon.")
@click.option("--debug", is_flag=True, help="Extended logging.")
def http_worker(home: Path, number: int, handed: int, channel: int, debug: bool) -> int:
    """What the daemon starts for the setting `http_workers`; it ends with the daemon."""
    from rbmedia import compose_worker
    from rbmedia.logs import configure_logging

    configure_logging(compose_worker.messages_of(Home(home), number), debug=debug)
    return compose_worker.run(number, handed=handed, channel=channel)
