"""The command line: a face of `colla.Client`. `cli.up`, `cli.demo` and `cli.simulate` alone start something."""

from __future__ import annotations


def main() -> None:
    """The program `colla`."""
    # What is not needed is not imported: a command shall begin at once.
    from colla.cli.app import app

    app(prog_name="colla")
