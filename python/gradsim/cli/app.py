"""The commands, put together. Needs typer and rich, which is why `main` imports it late."""

from __future__ import annotations

import typer

from gradsim.cli import bench, doctor, group, report, similarity, train
from gradsim.cli.demo import command
from gradsim.cli.errors import UserError

__all__ = ["run"]

# The base of every complaint about the command line: of click's, or in newer typer of its own copy of click
_UsageProblem: type[Exception] = typer.BadParameter.__mro__[2]

app = typer.Typer(
    name="gradsim",
    help="Gradient surgery, gradient similarity and task grouping.",
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.command("demo", epilog="Example: gradsim demo --out demo-out --seeds 3")(command.demo)
app.command("similarity", epilog="Example: gradsim similarity --data afrisenti --out run --batches 20")(
    similarity.similarity
)
app.command("group", epilog="Example: gradsim group run/similarity.safetensors --groups 4 --out groups.json")(
    group.group
)
app.command("train", epilog="Example: gradsim train --data afrisenti --groups groups.json --out run/train")(train.train)
app.command("report", epilog="Example: gradsim report run groups.json --out report")(report.report)
app.command("bench", epilog="Example: gradsim bench --tasks 8 --elements 4194304")(bench.bench)
app.command("doctor", epilog="Example: gradsim doctor")(doctor.doctor)


def run(arguments: list[str]) -> int:
    """Run the command that `arguments` name (none: help). Raises `UserError` for what cannot be understood."""
    try:
        # not standalone: it would print its usage over several lines and leave the process itself
        result = typer.main.get_command(app).main(arguments or ["--help"], "gradsim", standalone_mode=False)
    except _UsageProblem as error:
        # format_message names the option, which str does not
        message = error.format_message() if hasattr(error, "format_message") else str(error)
        raise UserError(f"{message} (see gradsim --help)") from error
    except typer.Abort as error:
        raise KeyboardInterrupt from error
    return result if isinstance(result, int) else 0
