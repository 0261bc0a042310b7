"""The files that commands read and leave."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from gradsim.atomic import write_whole
from gradsim.cli.errors import UserError
from gradsim.grouping import TaskGrouping
from gradsim.similarity import Similarity

__all__ = ["Files", "check_place", "prepare", "read_grouping", "read_json", "read_similarity", "write_json"]


class Files:
    """A folder, and which files were written to it."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.written: list[Path] = []

    def path(self, name: str) -> Path:
        """The path of a file that the caller is about to write."""
        self.written.append(self._folder / name)
        return self.written[-1]

    def write_json(self, name: str, content: dict[str, Any]) -> None:
        """Write `content` as readable JSON."""
        write_json(self.path(name), content)


def check_place(path: Path) -> None:
    """Raise `UserError` where no file can be: before the work whose result it is to hold."""
    if not path.parent.is_dir():
        raise UserError(f"{path.parent} is no folder; make it first or name another file")
    if path.is_dir():
        raise UserError(f"{path} is a folder; name a file")


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Write `content` as readable JSON, whole or not at all."""
    text = json.dumps(content, ensure_ascii=False, allow_nan=False, indent=1)
    write_whole(path, (text + "\n").encode())


def read_json(path: Path) -> Any:
    """What a JSON file holds. Raises `UserError` for one that is not there or no JSON."""
    if not path.is_file():
        raise UserError(f"{path} is not there" if not path.exists() else f"{path} is no file")
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise UserError(f"{path} is no JSON: {error}") from error


def read_similarity(path: Path) -> Similarity:
    """The similarity in a file, or in a folder that holds one. Raises `UserError` for anything else."""
    if path.is_dir():
        found = sorted(path.rglob("*.safetensors"))
        if len(found) != 1:
            raise UserError(f"{path} must hold one .safetensors file, not {len(found)}; name the file")
        path = found[0]
    if not path.is_file():
        raise UserError(f"{path} is not there; `gradsim similarity` makes such a file")
    try:
        return Similarity.load(path)
    except ValueError as error:
        raise UserError(str(error)) from error


def read_grouping(path: Path) -> tuple[TaskGrouping, dict[str, Any] | None]:
    """The grouping in a file of `gradsim group`, and the comparison of numbers of groups beside it, if any.

    Raises `UserError` for a file of another kind.
    """
    content = read_json(path)
    try:
        fields = {name: content[name] for name in ("groups", "serves", "score", "bound", "optimal", "method")}
        fields["bound"] = float("inf") if fields["bound"] is None else fields["bound"]
        return TaskGrouping(**fields), content.get("choice")
    except (KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{path} is no task grouping; `gradsim group` makes such a file") from error


def prepare(folder: Path) -> None:
    """Make the folder and see that files can be written there, before minutes of training are spent."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError) as error:
        raise UserError(f"--out {folder} is no folder: a file is in the way; name another folder") from error
    except OSError as error:
        raise UserError(f"--out {folder} cannot be made: {error.strerror}") from error
    if not os.access(folder, os.W_OK | os.X_OK):
        raise UserError(f"--out {folder} cannot be written to; name another folder")
