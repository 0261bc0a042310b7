"""The command line: `gradsim COMMAND`, or `python -m gradsim.cli`."""

from gradsim.cli.main import main

__all__ = ["main"]
