"""Entry point of the command ``rbmedia``: runs the command line and turns what went wrong into a sentence and an exit code."""

from __future__ import annotations

import sys

from rbmedia.cli import run


def main() -> None:
    sys.exit(run(sys.argv[1:]))


if __name__ == "__main__":
    main()
