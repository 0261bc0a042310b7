"""Files that are written whole or not at all, and the lock of a folder."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

__all__ = ["locked", "replace_file", "write_json", "write_text"]

LOCK = ".lock"


def replace_file(path: Path, write: Callable[[BinaryIO], None]) -> None:
    """Let `write` fill a file beside `path` and rename it: whoever reads `path` finds the old content or the new.

    The name beside it is always the same, so that kills leave one such file at most; who writes `path` must be alone
    (see `locked`). Raises `OSError` where it cannot be written.
    """
    beside = path.with_name(f".{path.name}.part")
    try:
        with beside.open("w+b") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())  # else a crash of the machine could leave the new name on an empty file
        os.replace(beside, path)
    except BaseException:
        beside.unlink(missing_ok=True)
        raise


def write_text(path: Path, text: str) -> None:
    """Write `text` as UTF-8, whole or not at all."""

    def write(file: BinaryIO) -> None:
        file.write(text.encode("utf-8"))

    replace_file(path, write)


def write_json(path: Path, content: Any) -> None:
    """Write `content` as readable JSON, whole or not at all. Raises `ValueError` for NaN or an infinity in it."""
    write_text(path, json.dumps(content, ensure_ascii=False, allow_nan=False, indent=1) + "\n")


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold the folder for this process. Raises `ValueError` where another one holds it.

    The lock is the system's (flock): it ends with the process that holds it, however that ends, and the file left
    behind locks nothing. Systems without flock (Windows) get no lock.
    """
    try:
        import fcntl
    except ModuleNotFoundError:
        yield
        return
    with (folder / LOCK).open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise ValueError(f"{folder} is being written by another process; wait for it or use another folder") from (
                error
            )
        yield
