"""The file of a similarity: one safetensors file, names as JSON in its metadata, a checksum over all of it."""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as to_bytes
from torch import Tensor

__all__ = ["FORMAT", "TENSORS", "load", "save"]

FORMAT = "gradsim.similarity/1"
TENSORS = ("cosine", "count", "std", "within", "norms")


def save(path: Path, names: dict[str, Any], tensors: dict[str, Tensor]) -> None:
    """Write `names` (tasks, groups, kind) and `tensors` to `path`, whole or not at all.

    The file is written beside `path` and renamed, so that a full disk or a kill leaves the old file as it was.
    """
    # clone: safetensors refuses tensors that share memory
    ready = {key: value.detach().cpu().contiguous().clone() for key, value in tensors.items()}
    text = json.dumps(names, ensure_ascii=False, sort_keys=True)
    data = to_bytes(ready, metadata={"format": FORMAT, "names": text, "sha256": _checksum(text, ready)})
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
        umask = os.umask(0)
        os.umask(umask)
        os.chmod(temporary, 0o666 & ~umask)  # mkstemp's 0600 would keep the file from the user's group
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise


def load(path: Path) -> dict[str, Any]:
    """The names and the tensors in `path`. Raises `ValueError` for a damaged or foreign file, else `OSError`."""
    path.open("rb").close()  # an OSError in the system's own words, before safetensors hides it
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 (no dict: it has no iterator)
    except (SafetensorError, UnicodeDecodeError, KeyError, ValueError, TypeError) as error:
        raise ValueError(f"{path} is damaged or no safetensors file: {error}") from error
    if metadata.get("format") != FORMAT:
        raise ValueError(f"{path} is a safetensors file, but no similarity of the format {FORMAT}")
    text = metadata.get("names", "")
    if metadata.get("sha256") != _checksum(text, tensors):
        raise ValueError(f"{path} is damaged: its checksum does not fit its content")
    return {**json.loads(text), **tensors}


def _checksum(text: str, tensors: dict[str, Tensor]) -> str:
    """SHA-256 over the names and every tensor: safetensors itself does not notice a flipped bit in the numbers."""
    digest = hashlib.sha256(text.encode())
    for key in sorted(tensors):
        value = tensors[key].contiguous()
        digest.update(f"{key} {value.dtype} {list(value.shape)} ".encode())
        digest.update(value.reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
