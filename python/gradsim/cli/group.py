"""`gradsim group`: which tasks to train together, from a file of similarities."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from gradsim.cli.errors import UserError
from gradsim.cli.files import check_place, read_similarity, write_json
from gradsim.cli.options import Device, Seed, check_common, names
from gradsim.cli.screen import steps
from gradsim.cli.tables import choice_table, grouping_table
from gradsim.grouping import GroupingChoice, choose_num_groups, group_tasks

__all__ = ["group"]


def group(
    similarity: Annotated[Path, typer.Argument(help="The file that `gradsim similarity` left.", show_default=False)],
    groups: Annotated[str, typer.Option(help="How many groups; auto: what --choose recommends.")] = "auto",
    out: Annotated[Path, typer.Option(help="The JSON file to write.")] = Path("groups.json"),
    method: Annotated[
        str,
        typer.Option(help="auto, exact, milp, local_search, average_linkage, complete_linkage or spectral."),
    ] = "auto",
    overlap: Annotated[bool, typer.Option("--overlap", help="A task may help to train groups beside its own.")] = False,
    alone: Annotated[str, typer.Option(help="self: a task alone scores 1; forbidden: no task alone.")] = "self",
    layers: Annotated[
        str | None, typer.Option(help="Groups of parameters to average, as a,b,c.", show_default="all")
    ] = None,
    choose: Annotated[
        bool, typer.Option("--choose/--no-choose", help="Compare every number of groups with chance.")
    ] = True,
    resamples: Annotated[int, typer.Option(min=0, help="Resamplings behind the stability of the groups.")] = 50,
    time_limit: Annotated[float, typer.Option(help="Seconds for the solver, where it needs a limit.")] = 60.0,
    seed: Seed = 0,
    device: Device = "cpu",
) -> None:
    """Choose the groups of tasks with the greatest mean similarity inside, and write them as JSON.

    The score of a task is the mean of its similarities to the others in its group. Every number of groups is
    compared with random groups of the same sizes, and the groups with those of resampled measurements; --groups auto
    takes the number that this recommends. Grouping runs on the CPU, whatever the device.
    """
    check_common(seed, device)
    check_place(out)
    number = _number(groups, choose)
    measured = read_similarity(similarity)
    chosen = names(layers)
    rules: dict[str, Any] = {"overlap": overlap, "alone": alone, "method": method, "seed": seed}
    screen = Console(highlight=False)
    choice: GroupingChoice | None = None
    try:
        if choose:
            with steps("every number of groups", len(measured.tasks)) as tick:
                choice = choose_num_groups(
                    measured,
                    groups=chosen,
                    resamples=resamples,
                    progress=lambda done, _: tick() if done else None,
                    **rules,
                )
            number = choice.recommended if number is None else number
        assert number is not None  # _number refuses auto without --choose
        grouping = group_tasks(measured, number, groups=chosen, time_limit=time_limit, **rules)
    except (TypeError, ValueError) as error:
        raise UserError(str(error)) from error
    content = grouping.to_dict() | {
        "tasks": measured.tasks,
        "similarity": {"file": str(similarity), "kind": measured.kind, "groups": chosen or measured.groups},
        "rules": rules,
        "choice": None if choice is None else choice.to_dict(),
    }
    write_json(out, content)
    if choice is not None:
        screen.print(choice_table(choice))
        screen.print(f"recommended: {choice.recommended} groups. {choice.reason}")
    screen.print(grouping_table(f"{len(grouping.groups)} groups of {len(measured.tasks)} tasks", grouping))
    screen.print(f"files: {out}", soft_wrap=True)


def _number(groups: str, choose: bool) -> int | None:
    if groups == "auto":
        if not choose:
            raise UserError("--groups auto needs --choose; name a number with --no-choose")
        return None
    try:
        return int(groups)
    except ValueError:
        raise UserError(f"--groups must be a number or auto, not {groups!r}") from None
