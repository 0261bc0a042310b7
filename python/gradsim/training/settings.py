"""What a training belongs to: the words by which a run folder knows its own again."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from gradsim.data.tasks import TaskSet
from gradsim.gradients.granularity import Expression, Granularity, Spec
from gradsim.models.model import TextModel
from gradsim.training.checkpoint import differences
from gradsim.training.files import write_json
from gradsim_kernels import __version__

__all__ = ["describe_data", "describe_model", "described", "keep_settings", "plain", "versions"]

_ADDRESS = re.compile(r" at 0x[0-9a-f]+")


def versions() -> dict[str, str]:
    """The versions of what computes."""
    return {"gradsim-kernels": __version__, "torch": str(torch.__version__)}


def described(granularity: Granularity | Spec, exclude: Expression | Sequence[Expression] = ()) -> str:
    """A granularity in words that are the same in every process; raises what `Granularity` raises."""
    whole = Granularity.of(granularity, exclude)
    spec = whole.spec
    name = getattr(spec, "__qualname__", type(spec).__name__) if callable(spec) else _ADDRESS.sub("", repr(spec))
    return f"{name}, exclude={list(whole.exclude)!r}" if whole.exclude else name


def plain(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Settings as they come back from a file. Raises `TypeError` for what JSON cannot hold."""
    try:
        result: dict[str, Any] = json.loads(json.dumps(settings, allow_nan=False))
    except (TypeError, ValueError) as error:
        raise TypeError(f"settings must hold only what JSON can: {error}") from error
    return result


def describe_data(tasks: TaskSet) -> dict[str, Any]:
    """The names, the problem, and a fingerprint of all examples. Not the source: a folder may move."""
    return {"problem": tasks.problem, "tasks": tasks.names, "fingerprint": tasks.fingerprint()}


def describe_model(model: TextModel, tasks: TaskSet) -> dict[str, Any]:
    """The name, the number of parameters, and a fingerprint.

    The fingerprint is a SHA-256 over the module that seed 0 gives (structure and weights: another checkpoint under the
    same path shows, and so does another dropout) and over what the model makes of the longest training example of each
    task (another tokenizer or length limit shows). One module is built for it.
    """
    module = model.build(0)
    digest = hashlib.sha256(_ADDRESS.sub("", str(module)).encode())
    tensors = {name: value for name, value in module.state_dict().items() if isinstance(value, Tensor)}
    for name, data in tasks.tasks.items():
        batch = model.batch([max(data.train, key=lambda example: len(example.text))])
        tensors |= {f"batch of {name}: {key}": value for key, value in batch.items()}
    for name, value in tensors.items():
        value = value.detach().cpu().contiguous()
        digest.update(f"{name} {value.dtype} {list(value.shape)} ".encode())
        digest.update(value.reshape(-1).view(torch.uint8).numpy().tobytes())
    return {
        "name": model.name,
        "parameters": sum(p.numel() for p in module.parameters()),
        "fingerprint": digest.hexdigest(),
    }


def keep_settings(path: Path, settings: Mapping[str, Any], about: Mapping[str, Any]) -> None:
    """Write the settings of a run where there are none yet, with `about` for the reader.

    Raises `ValueError` where there are others already, naming what differs, or where the file holds none.
    """
    if not path.exists():
        write_json(path, {"settings": dict(settings), "about": dict(about)})
        return
    try:
        held = json.loads(path.read_text(encoding="utf-8"))["settings"]
        if not isinstance(held, dict):
            raise TypeError("its settings are no dict")
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{path} does not hold the settings of a run: {error}") from error
    other = differences(held, settings)
    if other:
        more = f" (and {len(other) - 1} more)" if len(other) > 1 else ""
        raise ValueError(f"{path.parent} holds a run with other settings: {other[0]}{more}; use another folder")
