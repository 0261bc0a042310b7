"""Functions that couple the samples of a batch, and those whose targets are counted."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from gradsim.one_backward.follow import Follow, name_of


def batch_norm(f: Follow, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    """Refuse F.batch_norm(..., training=True)."""
    training = kwargs.get("training", args[5] if len(args) > 5 else False)
    if training:
        f.refuse(
            func,
            args,
            kwargs,
            "training=True, which normalises over the samples of all tasks; use eval mode, GroupNorm or LayerNorm",
        )


def embedding_bag(f: Follow, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    """Refuse F.embedding_bag with offsets."""
    if kwargs.get("offsets", args[2] if len(args) > 2 else None) is not None:
        f.refuse(func, args, kwargs, "offsets, which hide the samples; give it indices of the shape [batch, bag]")


def product_of_samples(f: Follow, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    """Refuse x @ y^T of two matrices with one row per sample, as contrastive losses compute it."""
    x, y = args[0], args[1] if len(args) > 1 else kwargs.get("other", kwargs.get("mat2"))
    if (
        isinstance(x, Tensor)
        and isinstance(y, Tensor)
        and x.dim() == y.dim() == 2
        and (x.requires_grad and y.requires_grad)
    ):
        B = f.samples.size
        if (x.shape[0] == B and y.shape[1] == B) or x.shape[1] == y.shape[0] == B:
            raise RuntimeError(
                f"mixed_batch cannot split a loss that couples the samples: {name_of(func)} multiplies matrices of the "
                f"shapes {list(x.shape)} and {list(y.shape)}, with {B} samples on both sides (in-batch negatives?); "
                "use one task() block per task"
            )


def distance_of_samples(f: Follow, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    """Refuse torch.cdist between samples."""
    x, y = (*args, kwargs.get("x2"))[:2]
    if (
        x.dim() == 2
        and x.shape[0] == f.samples.size
        and torch.is_grad_enabled()
        and (x.requires_grad or y.requires_grad)
    ):
        raise RuntimeError(
            f"mixed_batch cannot split a loss that couples the samples: {name_of(func)} compares each of the "
            f"{x.shape[0]} samples with others; use one task() block per task"
        )
