"""From the name that a user gives to a model."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from gradsim.data.tasks import TaskSet
from gradsim.models.builtin import CharacterModel
from gradsim.models.builtin_text import ByteModel
from gradsim.models.model import TextModel
from gradsim.models.options import Options

__all__ = ["make_model"]


def make_model(
    name: str,
    tasks: TaskSet,
    *,
    max_length: int | None = None,
    options: Mapping[str, Any] | None = None,
    objective: str | None = None,
) -> TextModel:
    """A model for the problem of `tasks`.

    Args:
        name: `"builtin"`; the name or the path of a Hugging Face checkpoint; or, for random weights, `"config:TYPE"` or
            `"config:PATH"`, with overrides as in `"config:bert?hidden_size=64,num_hidden_layers=2"`.
        tasks: what it must solve: the problem and the labels count.
        max_length: what is longer is cut: pieces of words (builtin; 64), bytes (builtin, plain text; 256), tokens
            (Hugging Face; 128, or what the model takes at most).
        options: `"builtin"`: `width`, `layers`, `heads`, `buckets`, `dropout`; Hugging Face: `tokenizer`, a name or a
            path.
        objective: for plain text `"masked"` or `"causal"`; None for what the checkpoint was made for.

    Raises `ValueError` for a name, an option or an objective that cannot be had, and `ImportError` for a Hugging Face
    model without transformers.
    """
    if not isinstance(name, str):
        raise TypeError(f"name must be a string, not {type(name).__name__}")
    if max_length is not None:
        if isinstance(max_length, bool) or not isinstance(max_length, int):
            raise TypeError(f"max_length must be an int, not {type(max_length).__name__}")
        if max_length < 1:
            raise ValueError(f"max_length must be at least 1, not {max_length}")
    if objective is not None:
        if objective not in ("masked", "causal"):
            raise ValueError(f"objective must be 'masked' or 'causal', not {objective!r}")
        if tasks.problem != "text":
            raise ValueError(f"objective is for plain text, and the examples of {tasks.source} have labels")
    if name != "builtin":
        from gradsim.models.hugging_face import HuggingFaceModel

        return HuggingFaceModel(name, tasks, max_length=max_length, options=options, objective=objective)
    size = Options.of(options)
    if tasks.problem == "text":
        if objective == "masked":
            raise ValueError("the built-in model is causal: objective='masked' needs a Hugging Face model")
        return ByteModel(max_length=max_length or 256, options=size)
    return CharacterModel(
        len(tasks.labels), tagging=tasks.problem == "tagging", max_length=max_length or 64, options=size
    )
