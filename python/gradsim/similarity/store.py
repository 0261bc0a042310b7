"""The file of a similarity: one safetensors file, names as JSON in its metadata, a checksum over all of it."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as to_bytes
from torch import Tensor

from gradsim.atomic import write_whole

__all__ = ["FORMAT", "TENSORS", "load", "save"]

FORMAT = "gradsim.similarity/1"
TENSORS = ("cosine", "count", "std", "within", "norms", "samples", "steps")


def save(path: Path, names: dict[str, Any], tensors: dict[str, Tensor], what: str = FORMAT) -> None:
    """Write `names` (anything JSON can hold) and `tensors` to `path`, as a file of the format `what`, or not at all.

    The file is written beside `path` and renamed, so that a full disk or a kill leaves the old file as it was.
    """
    # clone: safetensors refuses tensors that share memory
    ready = {key: value.detach().cpu().contiguous().clone() for key, value in tensors.items()}
    text = json.dumps(names, ensure_ascii=False, sort_keys=True)
    data = to_bytes(ready, metadata={"format": what, "names": text, "sha256": _checksum(text, ready)})
    write_whole(path, data)


def load(path: Path, what: str = FORMAT) -> dict[str, Any]:
    """The names and the tensors in `path`. Raises `ValueError` for a damaged or foreign file, else `OSError`."""
    path.open("rb").close()  # an OSError in the system's own words, before safetensors hides it
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 (no dict: it has no iterator)
    except (SafetensorError, UnicodeDecodeError, KeyError, ValueError, TypeError) as error:
        raise ValueError(f"{path} is damaged or no safetensors file: {error}") from error
    if metadata.get("format") != what:
        kind = "similarity" if what == FORMAT else "progress of a measurement"
        raise ValueError(f"{path} is a safetensors file, but no {kind} of the format {what}")
    text = metadata.get("names", "")
    if metadata.get("sha256") != _checksum(text, tensors):
        raise ValueError(f"{path} is damaged: its checksum does not fit its content")
    try:
        names = json.loads(text)
    except ValueError as error:
        raise ValueError(f"{path} is damaged: its names are no JSON: {error}") from error
    if not isinstance(names, dict):
        raise ValueError(f"{path} is damaged: its names are a JSON {type(names).__name__}, not an object")
    return {**names, **tensors}


def _checksum(text: str, tensors: dict[str, Tensor]) -> str:
    """SHA-256 over the names and every tensor: safetensors itself does not notice a flipped bit in the numbers."""
    digest = hashlib.sha256(text.encode())
    for key in sorted(tensors):
        value = tensors[key].contiguous()
        digest.update(f"{key} {value.dtype} {list(value.shape)} ".encode())
        digest.update(value.reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
