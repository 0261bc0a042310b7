"""The options that name data and a model, and what they stand for."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from gradsim.cli.errors import UserError
from gradsim.cli.options import names
from gradsim.data import TaskSet, limit, read_tasks
from gradsim.models import TextModel, make_model

__all__ = [
    "Config",
    "Data",
    "LabelColumn",
    "Limit",
    "MaxLength",
    "Model",
    "ModelOption",
    "TaskColumn",
    "Tasks",
    "TestLimit",
    "TextColumn",
    "load_model",
    "load_tasks",
]

Data = Annotated[
    list[str],
    typer.Option(
        help="A folder of <task>/{train,dev,test}.{tsv,csv,jsonl}, cldr, or the name or path of a dataset with "
        "--task-column. Several: one folder a task.",
        show_default=False,
    ),
]
Tasks = Annotated[str | None, typer.Option(help="Some of the tasks, as a,b,c.", show_default="all that can be trained")]
TaskColumn = Annotated[str | None, typer.Option(help="The column of a dataset that names the task.")]
TextColumn = Annotated[str | None, typer.Option(help="The column of the text.", show_default="found by its name")]
LabelColumn = Annotated[str | None, typer.Option(help="The column of the label.", show_default="found by its name")]
Config = Annotated[str | None, typer.Option(help="The configuration of a dataset.")]
Limit = Annotated[int | None, typer.Option(min=1, help="Training examples of each task.", show_default="all")]
TestLimit = Annotated[
    int | None, typer.Option(min=1, help="Test examples of each task, and dev examples.", show_default="all")
]
Model = Annotated[
    str,
    typer.Option(
        help="builtin (a small Transformer over characters), the name or path of a Hugging Face model, or config:NAME "
        "for random weights."
    ),
]
ModelOption = Annotated[
    list[str] | None, typer.Option("--model-option", help="NAME=VALUE of the built-in model; may be repeated.")
]
MaxLength = Annotated[
    int | None, typer.Option(min=2, help="Words or tokens that are read of a text.", show_default="the model's")
]


def load_tasks(
    data: list[str],
    *,
    tasks: str | None,
    task_column: str | None,
    text_column: str | None,
    label_column: str | None,
    config: str | None,
    train: int | None = None,
    test: int | None = None,
    seed: int,
) -> TaskSet:
    """The tasks that the options name, those without training examples left out. Raises `UserError`."""
    for source in data:
        if ("/" in source or source.startswith(".")) and not Path(source).exists():
            raise UserError(f"--data {source} is not there")
    try:
        found = read_tasks(
            data[0] if len(data) == 1 else list(data),
            task_column=task_column,
            text_column=text_column,
            label_column=label_column,
            config=config,
        )
        chosen = names(tasks)
        found = found.trainable() if chosen is None else found.select(chosen)
        untrained = [name for name, content in found.tasks.items() if not content.train]
        if untrained:
            raise ValueError(f"task {untrained[0]!r} of {found.source} has no training examples")
        return limit(found, train=train, dev=test, test=test, seed=seed)
    except (TypeError, ValueError) as error:
        raise UserError(str(error)) from error


def load_model(name: str, tasks: TaskSet, *, max_length: int | None, options: list[str] | None) -> TextModel:
    """The model that the options name. Raises `UserError`."""
    settings: dict[str, Any] = {}
    for option in options or []:
        key, equals, value = option.partition("=")
        if not equals:
            raise UserError(f"--model-option must be NAME=VALUE, not {option!r}")
        settings[key.strip()] = _value(value.strip())
    try:
        return make_model(name, tasks, max_length=max_length, options=settings or None)
    except (TypeError, ValueError) as error:
        raise UserError(str(error)) from error


def _value(text: str) -> int | float | str:
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text
