"""The folder that the demo leaves its files in."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from gradsim.cli.errors import UserError

__all__ = ["Files", "prepare"]


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
        text = json.dumps(content, ensure_ascii=False, allow_nan=False, indent=1)
        self.path(name).write_text(text + "\n", encoding="utf-8")


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
