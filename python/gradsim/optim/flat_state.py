"""The state of a surgery as named tensors and text, for files that hold nothing else (safetensors)."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

__all__ = ["flatten_state", "unflatten_state"]

KEY = "gradient_surgery"
PREFIX = f"{KEY}."


def flatten_state(state: Mapping[str, Any]) -> tuple[dict[str, Tensor], dict[str, str]]:
    """`Surgery.state_dict()` as tensors on the CPU and metadata: the two that `safetensors.torch.save_file` takes.

    The tensors are called `"gradient_surgery.target"` and so on, the metadata has one entry, `"gradient_surgery"`:
    both can stand in one file with other tensors. The entry holds the rest as JSON, and a checksum over all of it,
    which such files lack.
    """
    text = json.dumps({name: value for name, value in state.items() if name != "tensors"}, sort_keys=True)
    tensors = {
        PREFIX + name: x.detach().cpu().contiguous().clone() for name, x in state.get("tensors", {}).items()
    }  # clone: such files refuse tensors that share memory
    return tensors, {KEY: json.dumps({"state": text, "sha256": _checksum(text, tensors)})}


def unflatten_state(tensors: Mapping[str, Tensor], metadata: Mapping[str, str] | None) -> dict[str, Any]:
    """What `Surgery.load_state_dict` takes, from what `flatten_state` gave; other tensors and metadata may be there.

    Raises:
        ValueError: no state of a surgery is there, or a damaged one.
    """
    if not metadata or KEY not in metadata:
        raise ValueError(f"there is no state of a surgery: the metadata must have the entry {KEY!r}")
    own = {name: x for name, x in tensors.items() if name.startswith(PREFIX)}
    try:
        entry = json.loads(metadata[KEY])
        text, expected = entry["state"], entry["sha256"]
        state: dict[str, Any] = dict(json.loads(text))
    except (ValueError, TypeError, KeyError) as error:
        raise ValueError(f"the surgery state is damaged: its metadata cannot be read ({error})") from error
    if _checksum(text, own) != expected:
        raise ValueError("the surgery state is damaged: its checksum does not fit its content")
    return {**state, "tensors": {name.removeprefix(PREFIX): x for name, x in own.items()}} if own else state


def _checksum(text: str, tensors: Mapping[str, Tensor]) -> str:
    digest = hashlib.sha256(text.encode())
    for name in sorted(tensors):
        x = tensors[name].detach().cpu().contiguous()
        digest.update(f"{name} {x.dtype} {list(x.shape)} ".encode())
        digest.update(x.reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
