"""What `--data` may say."""

from __future__ import annotations

from collections.abc import Sequence
from os import PathLike
from pathlib import Path
from typing import Any

from gradsim.data.dataset import read_dataset
from gradsim.data.folder import read_folder
from gradsim.data.tasks import TaskSet
from gradsim.data.words import cldr_tasks

__all__ = ["read_tasks"]


def read_tasks(
    source: Any,
    *,
    task_column: str | None = None,
    text_column: str | None = None,
    label_column: str | None = None,
    labels: Sequence[str] | None = None,
    config: str | None = None,
) -> TaskSet:
    """The tasks of `"cldr"`, of a folder, of several folders (a list), or with `task_column` of a dataset.

    The other arguments are those of `read_folder` and `read_dataset`. Raises `ValueError` for a source that is none of
    these, or an argument that it has no use for.
    """
    if isinstance(source, list | tuple) and len(source) == 1:
        source = source[0]
    if task_column is not None:
        return read_dataset(
            source,
            task_column=task_column,
            text_column=text_column,
            label_column=label_column,
            config=config,
            labels=labels,
        )
    if config is not None:
        raise ValueError("config is for a dataset, which needs a task_column as well")
    if source == "cldr":
        given = {"text_column": text_column, "label_column": label_column, "labels": labels}
        useless = [name for name, value in given.items() if value is not None]
        if useless:
            raise ValueError(f"{useless[0]} has no meaning for 'cldr'")
        return cldr_tasks()
    if isinstance(source, list | tuple):
        return read_folder(source, text_column=text_column, label_column=label_column, labels=labels)
    if not isinstance(source, str | PathLike):
        raise ValueError(f"a dataset ({type(source).__name__}) needs the column that names the tasks (task_column)")
    if not Path(source).is_dir():
        raise ValueError(
            f"{str(source)!r} is neither 'cldr' nor a folder, and a dataset needs the column that names the tasks "
            "(task_column)"
        )
    if any((Path(source) / file).is_file() for file in ("dataset_dict.json", "state.json")):
        raise ValueError(f"{source} holds a saved dataset, and needs the column that names the tasks (task_column)")
    return read_folder(source, text_column=text_column, label_column=label_column, labels=labels)
