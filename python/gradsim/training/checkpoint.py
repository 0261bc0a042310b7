"""The file from which a killed training goes on."""

from __future__ import annotations

import hashlib
import time
import warnings
from collections.abc import Mapping
from os import PathLike
from pathlib import Path
from typing import Any, BinaryIO

import torch

from gradsim.training.files import replace_file
from gradsim.training.numbers import check_real

__all__ = ["Checkpoint", "differences"]

_MARK = b"\ngradsim checkpoint 1, sha256 "  # followed by 64 hexadecimal digits, at the end of the file
_BLOCK_bytes = 1 << 20


class Checkpoint:
    """One file that holds the state of a training; the settings in it say which training that is.

    It is written whole or not at all, by `torch.save`, with a SHA-256 behind it (torch itself does not notice a flipped
    bit), and read with `weights_only=True`: nothing is ever unpickled.

    Args:
        path: the file; its folder must exist.
        settings: what the state belongs to, as JSON takes it; another training refuses it.
        seconds: the least time between two writings; 0: every time.

    Raises `ValueError` and `TypeError` for `seconds` that are no number from 0.
    """

    def __init__(self, path: str | PathLike[str], settings: Mapping[str, Any], *, seconds: float = 30.0) -> None:
        check_real("checkpoint_seconds", seconds, least=0.0)
        self.path, self.settings, self.seconds = Path(path), dict(settings), seconds
        self._written = time.monotonic()

    def load(self) -> dict[str, Any] | None:
        """The state that `save` was given; None where there is no file.

        A file that is damaged counts as none, with a warning. Raises `ValueError` for the state of another training,
        naming what differs.
        """
        try:
            intact = _intact(self.path)
        except FileNotFoundError:
            return None
        if not intact:
            warnings.warn(f"{self.path} is damaged; this training starts again from its first step", stacklevel=2)
            return None
        held: dict[str, Any] = torch.load(self.path, map_location="cpu", weights_only=True)
        other = differences(held["settings"], self.settings)
        if other:
            raise ValueError(f"{self.path} is the checkpoint of another training: {other[0]}; delete it or use another")
        self._written = time.monotonic()
        state: dict[str, Any] = held["state"]
        return state

    def due(self) -> bool:
        """Whether it is time to write again."""
        return time.monotonic() - self._written >= self.seconds

    def save(self, state: Mapping[str, Any]) -> None:
        """Write tensors, numbers, strings, lists, tuples and dicts. Raises `OSError` where it cannot be written."""

        def write(file: BinaryIO) -> None:
            torch.save({"settings": self.settings, "state": dict(state)}, file)
            size = file.tell()
            file.seek(0)
            digest = _digest(file, size)
            file.seek(size)
            file.write(_MARK + digest.encode())

        replace_file(self.path, write)
        self._written = time.monotonic()

    def remove(self) -> None:
        """Delete the file, if it is there: what it was for has been saved elsewhere."""
        self.path.unlink(missing_ok=True)


def differences(held: Mapping[str, Any], wanted: Mapping[str, Any], prefix: str = "") -> list[str]:
    """What differs between two nested dicts, one phrase for each entry: `budget.steps is 10 there and 20 here`."""
    found = []
    for key in dict.fromkeys([*wanted, *held]):  # files may have sorted theirs
        one, other = held.get(key), wanted.get(key)
        if isinstance(one, Mapping) and isinstance(other, Mapping):
            found += differences(one, other, f"{prefix}{key}.")
        elif key not in held or key not in wanted or one != other:
            found.append(f"{prefix}{key} is {_shown(held, key)} there and {_shown(wanted, key)} here")
    return found


def _shown(settings: Mapping[str, Any], key: str) -> str:
    text = repr(settings[key]) if key in settings else "missing"
    return text if len(text) <= 80 else f"{text[:60]}..."


def _intact(path: Path) -> bool:
    tail = len(_MARK) + 64
    with path.open("rb") as file:
        size = file.seek(0, 2) - tail
        if size < 0:
            return False
        file.seek(size)
        mark = file.read()
        file.seek(0)
        return mark == _MARK + _digest(file, size).encode()


def _digest(file: BinaryIO, size: int) -> str:
    digest = hashlib.sha256()
    while size > 0:
        block = file.read(min(size, _BLOCK_bytes))
        if not block:
            break
        digest.update(block)
        size -= len(block)
    return digest.hexdigest()
