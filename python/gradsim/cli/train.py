"""`gradsim train`: one model per group of tasks against its baselines, all on the same budget."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from gradsim.cli import data as options
from gradsim.cli.errors import UserError
from gradsim.cli.files import prepare, read_grouping
from gradsim.cli.options import Device, Granularity, Seed, check_common, names, need, read_classes
from gradsim.cli.screen import steps as progress
from gradsim.cli.tables import results_tables
from gradsim.training import Budget, Comparison, verdict

__all__ = ["train"]


def train(
    data: options.Data,
    groups: Annotated[Path, typer.Option(help="The file that `gradsim group` left.", show_default=False)],
    out: Annotated[Path, typer.Option(help="Folder for the run; one that was cut short goes on there.")],
    steps: Annotated[int, typer.Option(min=1, help="Steps of every model.")] = 200,
    batch: Annotated[int, typer.Option(min=1, help="Examples of each task in a step.")] = 16,
    learning_rate: Annotated[float, typer.Option(help="At its highest.")] = 2e-3,
    seeds: Annotated[int, typer.Option(min=1, help="Repetitions; the first seed is --seed.")] = 3,
    random_groupings: Annotated[int, typer.Option("--random", min=0, help="Random groupings of the same sizes.")] = 3,
    families: Annotated[
        Path | None, typer.Option(help="A JSON object task -> family: one model per family.", show_default="left out")
    ] = None,
    gradvac: Annotated[str, typer.Option(help="Which arms to train with GradVac too, of groups,all,random,...")] = (
        "groups,all"
    ),
    beta: Annotated[float, typer.Option(help="GradVac's decay of the target similarities.")] = 1e-2,
    granularity: Granularity = "all_layer",
    sampling: Annotated[str, typer.Option(help="uniform, proportional or temperature.")] = "uniform",
    temperature: Annotated[float, typer.Option(help="For --sampling temperature: 1 is proportional.")] = 5.0,
    model: options.Model = "builtin",
    model_option: options.ModelOption = None,
    max_length: options.MaxLength = None,
    tasks: options.Tasks = None,
    task_column: options.TaskColumn = None,
    text_column: options.TextColumn = None,
    label_column: options.LabelColumn = None,
    config: options.Config = None,
    train_examples: options.Limit = None,
    test_examples: options.TestLimit = None,
    seed: Seed = 0,
    device: Device = "cpu",
) -> None:
    """Train one model per group, with and without GradVac inside it, and the baselines on the same budget.

    Baselines: all tasks in one model, one model per task, random groups of the same sizes, language families where
    they are given, and the most frequent label. Every task gives the same number of its own examples in every arm.
    What is killed goes on where it was when the same command is run again.
    """
    need("sklearn", "scipy", "matplotlib")
    check_common(seed, device)
    grouping, _ = read_grouping(groups)
    found = options.load_tasks(
        data,
        tasks=tasks,
        task_column=task_column,
        text_column=text_column,
        label_column=label_column,
        config=config,
        train=train_examples,
        test=test_examples,
        seed=seed,
    )
    if tasks is None:  # in the order of the data, whatever the groups: other groups then share their models
        served = {task for group in grouping.serves for task in group}
        found = found.select([name for name in found.tasks if name in served] or found.names)
    text_model = options.load_model(model, found, max_length=max_length, options=model_option)
    classes = read_classes(families)
    prepare(out)
    screen = Console(highlight=False)
    try:
        budget = Budget(steps, batch, learning_rate, sampling=sampling, temperature=temperature)
        comparison = Comparison(
            text_model,
            found,
            budget,
            out,
            groups=grouping,
            families=classes,
            random_groupings=random_groupings,
            gradvac=names(gradvac) or [],
            seeds=range(seed, seed + seeds),
            device=device,
            granularity=granularity,
            beta=beta,
        )
        with progress("training", comparison.total_steps) as tick:
            results = comparison.run(tick)
    except (TypeError, ValueError) as error:
        raise UserError(str(error)) from error
    for table in results_tables(results):
        screen.print(table)
    for sentence in verdict(results):
        screen.print(sentence)
    screen.print(f"files: {out / 'results.json'} {out / 'cells'}", soft_wrap=True)
