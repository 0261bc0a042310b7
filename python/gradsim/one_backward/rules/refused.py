"""Functions that couple the samples of a batch, or hide them."""

from __future__ import annotations

import torch

from gradsim.one_backward.follow import Arguments, Follow, Function, Keywords, name_of


def batch_norm(f: Follow, func: Function, args: Arguments, kwargs: Keywords) -> None:
    """Refuse F.batch_norm(..., training=True)."""
    if kwargs.get("training", args[5] if len(args) > 5 else False):
        why = "training=True, which normalises over the samples of all tasks; use eval mode, GroupNorm or LayerNorm"
        f.refuse(func, args, kwargs, why)


def embedding_bag(f: Follow, func: Function, args: Arguments, kwargs: Keywords) -> None:
    """Refuse F.embedding_bag with offsets."""
    if kwargs.get("offsets", args[2] if len(args) > 2 else None) is not None:
        f.refuse(func, args, kwargs, "offsets, which hide the samples; give it indices of the shape [batch, bag]")


def product(f: Follow, func: Function, args: Arguments, kwargs: Keywords) -> None:
    """Refuse x @ y^T of two matrices with one row per sample, and torch.cdist: contrastive losses compute them."""
    x, y = (*args, *kwargs.values())[:2]
    if torch.is_grad_enabled() and x.dim() == y.dim() == 2 and x.requires_grad and y.requires_grad:
        places = f.place_of(x), f.place_of(y)
        if None not in places:
            raise RuntimeError(
                f"mixed_batch cannot split a loss that couples the samples: {name_of(func)} combines matrices of the "
                f"shapes {list(x.shape)} and {list(y.shape)} with {f.samples.size} samples in both (in-batch negatives?"
                "); use one task() block per task"
            )
