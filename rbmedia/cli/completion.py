"""``rbmedia completion SHELL``: the script that teaches a shell to complete this command."""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class


@click.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completion(shell: str) -> None:
    """Print the completion script of SHELL.

    \b
    bash: rbmedia completion bash > ~/.local/share/bash-completion/completions/rbmedia
    zsh:  rbmedia completion zsh > "${fpath[1]}/_rbmedia"
    fish: rbmedia completion fish > ~/.config/fish/completions/rbmedia.fish
    """
    kind = get_completion_class(shell)
    assert kind is not None
    command = click.get_current_context().find_root().command
    click.echo(kind(command, {}, "rbmedia", "_RBMEDIA_COMPLETE").source())
