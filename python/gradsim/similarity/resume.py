"""The file from which an interrupted measurement goes on."""

from __future__ import annotations

import glob
import hashlib
import time
from collections.abc import Mapping
from os import PathLike
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from gradsim.similarity import store

__all__ = ["FORMAT", "Progress", "fingerprint"]

FORMAT = "gradsim.similarity-progress/1"
INTERVAL_SECONDS = 10.0
WRITING_SHARE = 0.05  # the most of the time that writing may take


class Progress:
    """One safetensors file with the state of a measurement; nothing in it is unpickled.

    Args:
        path: where it is, or will be.
        call: what must be the same when it is resumed, anything JSON can hold.
    """

    def __init__(self, path: str | PathLike[str], call: Mapping[str, Any]) -> None:
        self.path = Path(path)
        self.call = dict(call)
        self._due = 0.0

    def read(self) -> dict[str, Any] | None:
        """The state in the file, None where there is no file.

        Raises `ValueError` for a damaged or foreign file and for one of another call, `OSError` for one that cannot be
        read.
        """
        if not self.path.exists():
            return None
        stored = store.load(self.path, FORMAT)
        call, numbers = stored.pop("call", None), stored.pop("recorder", None)
        settings = stored.pop("settings", None)
        if not isinstance(call, dict) or not isinstance(numbers, dict):
            raise ValueError(f"{self.path} is damaged: it lacks what it was called with")
        for name, value in self.call.items():
            if call.get(name) != value:
                was = "" if name == "model" else f": {call.get(name)}, not {value}"
                raise ValueError(f"{self.path} is of a measurement with another {name}{was}; remove it to start anew")
        return {"settings": settings, "recorder": {**numbers, **stored}}

    def write(self, state: Mapping[str, Any]) -> None:
        """Replace the file by one with this state (`settings`, and the numbers and tensors of a `recorder`)."""
        start = time.monotonic()
        recorder = state["recorder"]
        tensors = {name: value for name, value in recorder.items() if isinstance(value, Tensor)}
        numbers = {name: value for name, value in recorder.items() if name not in tensors}
        names = {"call": self.call, "settings": state["settings"], "recorder": numbers}
        store.save(self.path, names, tensors, FORMAT)
        end = time.monotonic()
        self._due = end + max(INTERVAL_SECONDS, (end - start) / WRITING_SHARE)

    def due(self) -> bool:
        """Whether it is time to write again."""
        return time.monotonic() >= self._due

    def remove(self) -> None:
        """Remove the file, and what a process that was killed while writing has left beside it."""
        self.path.unlink(missing_ok=True)
        for left in self.path.parent.glob(f".{glob.escape(self.path.name)}.????????"):
            left.unlink(missing_ok=True)


def fingerprint(model: nn.Module) -> str:
    """SHA-256 over all parameters and buffers, their names, dtypes and shapes."""
    digest = hashlib.sha256()
    for name, value in (*model.named_parameters(), *model.named_buffers()):
        plain = value.detach().cpu().contiguous()
        digest.update(f"{name} {plain.dtype} {list(plain.shape)} ".encode())
        digest.update(plain.reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
