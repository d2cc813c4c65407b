"""The command line: one module per group of commands, none of which knows more of the daemon than its public API.

Heavy imports stand inside the commands that need them, so that shell completion and ``--help`` answer at once.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

import click

from rbcore.errors import Damaged, RbError
from rbmedia import __version__
from rbmedia.cli.access import login, logout
from rbmedia.cli.ask import ask
from rbmedia.cli.audit import audit, index
from rbmedia.cli.completion import completion
from rbmedia.cli.daemon import agent, http_worker, serve
from rbmedia.cli.objects import clients, pools
from rbmedia.cli.offline import replay, views
from rbmedia.cli.repository import repository
from rbmedia.cli.rules import rules
from rbmedia.cli.shell import printable
from rbmedia.cli.simulate import simulate
from rbmedia.cli.tape import tape
from rbmedia.cli.tape_scan import scan
from rbmedia.cli.tasks import tasks
from rbmedia.cli.work import backup, restore
from rbmedia.exits import CommandFailed, Exit
from rbmedia.settings import BadSetting


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(__version__, prog_name="rbmedia")
def rbmedia() -> None:
    """Event-sourced backup server: the daemon, the agent, and everything one can ask of them.

    Commands that talk to a daemon find it by --server, by a daemon that runs on this host's home, or by the last login.
    """


for _command in (
    serve,
    agent,
    http_worker,
    ask,
    login,
    logout,
    backup,
    restore,
    tasks,
    clients,
    pools,
    repository,
    rules,
    tape,
    replay,
    audit,
    index,
    views,
    simulate,
    completion,
):
    rbmedia.add_command(_command)
# Here, because the group's own commands talk to a daemon, and this one needs none.
tape.add_command(scan)


def run(arguments: Sequence[str]) -> int:
    """Run one command line; the exit code (:class:`rbmedia.exits.Exit`). Programming errors keep their traceback."""
    try:
        result = rbmedia.main(args=list(arguments), prog_name="rbmedia", standalone_mode=False)
    except CommandFailed as error:
        return _end(error.message, error.code)
    except BadSetting as error:
        return _end(str(error), Exit.USAGE)
    except click.ClickException as error:
        error.show()
        return Exit.USAGE
    except Damaged as error:
        return _end(error.message, Exit.DAMAGE)
    except RbError as error:
        return _end(error.message, Exit.FAILED)
    except (click.Abort, KeyboardInterrupt):
        return _end("Interrupted.", Exit.INTERRUPTED)
    except BrokenPipeError:
        # Whoever read our output has seen enough (`| head`).
        sys.stderr.close()
        return Exit.OK
    return result if isinstance(result, int) else Exit.OK


def _end(message: str, code: Exit) -> int:
    # What other hosts, devices and cartridges said may stand in it.
    click.echo("\n".join(map(printable, f"rbmedia: {message}".split("\n"))), err=True)
    return code
