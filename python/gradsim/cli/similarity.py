"""`gradsim similarity`: how alike the gradients of tasks are, measured along a joint training."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from gradsim.cli import data as options
from gradsim.cli.errors import UserError
from gradsim.cli.files import Files, prepare
from gradsim.cli.options import Device, Granularity, Seed, check_common, need
from gradsim.cli.screen import steps as progress
from gradsim.cli.tables import similarity_table
from gradsim.training import measure_along

__all__ = ["similarity"]


def similarity(
    data: options.Data,
    out: Annotated[Path, typer.Option(help="Folder for the files; a run that was cut short goes on there.")],
    batches: Annotated[int, typer.Option(min=1, help="Measurements, evenly spread over the training.")] = 20,
    steps: Annotated[
        int, typer.Option(min=0, help="Steps of the joint training; 0: measure the model as it is.")
    ] = 200,
    batch: Annotated[int, typer.Option(min=1, help="Examples of each task in a training step.")] = 16,
    measure_batch: Annotated[
        int, typer.Option(min=1, help="Examples of each task in a measurement, and as many more for within.")
    ] = 64,
    learning_rate: Annotated[float, typer.Option(help="Of the joint training, at its highest.")] = 2e-3,
    granularity: Granularity = "all_layer",
    model: options.Model = "builtin",
    model_option: options.ModelOption = None,
    max_length: options.MaxLength = None,
    tasks: options.Tasks = None,
    task_column: options.TaskColumn = None,
    text_column: options.TextColumn = None,
    label_column: options.LabelColumn = None,
    config: options.Config = None,
    train_examples: options.Limit = None,
    tasks_at_once: Annotated[
        int | None, typer.Option(min=1, help="Keep the gradients of so many tasks in memory.", show_default="all")
    ] = None,
    projection: Annotated[
        int | None, typer.Option(min=1, help="Project every gradient to so many numbers a group.", show_default="off")
    ] = None,
    seed: Seed = 0,
    device: Device = "cpu",
) -> None:
    """Train one model on all tasks and measure the cosines of the tasks' gradients on the way (GradSim).

    Every measurement compares one batch of each task with one of every other, for each group of parameters, and two
    batches of the same task with each other: without that a low cosine cannot be told from noise. Leaves
    similarity.safetensors, the same as JSON, and a heat map.
    """
    need("matplotlib", "scipy")
    check_common(seed, device)
    found = options.load_tasks(
        data,
        tasks=tasks,
        task_column=task_column,
        text_column=text_column,
        label_column=label_column,
        config=config,
        train=train_examples,
        seed=seed,
    )
    text_model = options.load_model(model, found, max_length=max_length, options=model_option)
    prepare(out)
    screen = Console(highlight=False)
    screen.print(f"{len(found.tasks)} tasks of {found.source}: {', '.join(found.tasks)}", soft_wrap=True)
    try:
        with progress(f"training and measuring {len(found.tasks)} tasks", steps + batches) as tick:
            measured = measure_along(
                text_model,
                found,
                out,
                steps=steps,
                measurements=batches,
                batch=batch,
                measure_batch=measure_batch,
                learning_rate=learning_rate,
                granularity=granularity,
                seed=seed,
                device=device,
                tasks_at_once=tasks_at_once,
                projection=projection,
                tick=tick,
            )
    except (TypeError, ValueError) as error:
        raise UserError(str(error)) from error
    files = Files(out)
    files.written.append(out / "similarity.safetensors")
    measured.to_json(files.path("similarity.json"))
    if len(found.tasks) > 1:
        measured.plot("heatmap").savefig(files.path("heatmap.png"))
        files.write_json("heatmap.json", {"tasks": measured.tasks, "matrix": measured.mean().tolist()})
    screen.print(similarity_table(measured))
    screen.print("files: " + " ".join(map(str, files.written)), soft_wrap=True)
