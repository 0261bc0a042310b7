"""Tasks in folders: `DIR/<task>/{train,dev,test}.{tsv,csv,jsonl}`."""

from __future__ import annotations

import os
import warnings
from collections.abc import Sequence
from os import PathLike
from pathlib import Path

from gradsim.data.files import SUFFIXES, read_rows
from gradsim.data.rows import Row, Splits, assemble, check_labels
from gradsim.data.tasks import SPLITS, TaskSet

__all__ = ["ALIASES", "read_folder"]

# what the file or split of a TaskData's split may be called
ALIASES = {"train": ("train",), "dev": ("dev", "validation", "valid"), "test": ("test",)}

PathType = str | PathLike[str]


def read_folder(
    path: PathType | Sequence[PathType],
    *,
    text_column: str | None = None,
    label_column: str | None = None,
    labels: Sequence[str] | None = None,
) -> TaskSet:
    """The tasks in a folder, one sub-folder each, or in several folders, one task each.

    A task's folder holds `train`, `dev` (or `validation`, `valid`) and `test`, as `.tsv`, `.csv` or `.jsonl` (see
    `read_rows`); a split without a file is empty. Other files are ignored, and so, with a warning, is a sub-folder
    without any split.

    Args:
        path: a folder, or a list of folders whose names are the tasks'.
        text_column, label_column: the columns (the keys of JSON objects); None for the usual names.
        labels: the names of all labels, in their order; None for those that occur.

    Raises `ValueError` for what is not as described, with file and line, and `OSError` for what cannot be read.
    """
    if labels is not None:
        check_labels(labels)
    if isinstance(path, str | PathLike):
        folders, source = _tasks_of(Path(path)), str(path)
    else:
        folders, source = _several([Path(folder) for folder in path]), ", ".join(str(folder) for folder in path)
    tasks = {}
    for name, files in folders.items():
        places = {split: f"{name}/{file.name}" for split, file in files.items()}
        rows: dict[str, list[Row]] = {
            split: read_rows(file, places[split], text_column=text_column, label_column=label_column)
            for split, file in files.items()
        }
        tasks[name] = Splits(rows, places)
    return assemble(tasks, labels, source)


def _tasks_of(folder: Path) -> dict[str, dict[str, Path]]:
    """task -> split -> file of the sub-folders."""
    if not folder.is_dir():
        raise ValueError(f"{folder} is no folder" if folder.exists() else f"there is no folder {folder}")
    tasks = {}
    for child in sorted(folder.iterdir()):
        if not child.is_dir() or child.name.startswith("."):
            continue
        files = _splits_of(child)
        if files:
            tasks[child.name] = files
        else:
            warnings.warn(f"{child} is ignored: it holds no {_wanted()}", stacklevel=3)
    if not tasks:
        own = list(_splits_of(folder).values())
        hint = f"; {own[0].name} lies in it directly: a task is a folder inside it" if own else ""
        raise ValueError(f"{folder} holds no task: no folder in it holds a {_wanted()}{hint}")
    return tasks


def _several(folders: Sequence[Path]) -> dict[str, dict[str, Path]]:
    tasks: dict[str, dict[str, Path]] = {}
    for folder in folders:
        name = Path(os.path.abspath(folder)).name
        if not folder.is_dir():
            raise ValueError(f"{folder} is no folder" if folder.exists() else f"there is no folder {folder}")
        if name in tasks:
            raise ValueError(f"two of the folders are called {name!r}: a task is named by its folder")
        tasks[name] = _splits_of(folder)
        if not tasks[name]:
            raise ValueError(f"{folder} holds no {_wanted()}")
    if not tasks:
        raise ValueError("path must be a folder or a list of at least one, and is empty")
    return tasks


def _splits_of(folder: Path) -> dict[str, Path]:
    """split -> file; nothing for a folder that is no task's."""
    files: dict[str, Path] = {}
    for split in SPLITS:
        found = [folder / f"{name}{suffix}" for name in ALIASES[split] for suffix in SUFFIXES]
        there = [file for file in found if file.is_file()]
        if len(there) > 1:
            raise ValueError(f"{folder} holds both {there[0].name} and {there[1].name}: which is the {split} split?")
        if there:
            files[split] = there[0]
    return files


def _wanted() -> str:
    return f"{{{','.join(SPLITS)}}}.{{{','.join(suffix[1:] for suffix in SUFFIXES)}}}"
