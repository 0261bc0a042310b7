"""What the name of a parameter says about its place in the model."""

from __future__ import annotations

import re
from collections.abc import Sequence

# What the big model libraries call their list of Transformer layers: BERT and ViT, Llama and BART, GPT-2, T5, Swin,
# CLIP, ALBERT.
LAYER_LISTS = ("layer", "layers", "h", "block", "blocks", "resblocks", "albert_layer_groups")

# torch.compile, activation checkpointing and FSDP put these components into the names of what they wrap.
_WRAPPERS = re.compile(r"(?<![^.])(?:_orig_mod|_checkpoint_wrapped_module|_fsdp_wrapped_module)\.")


def unwrapped(name: str) -> str:
    """The name without the components that wrappers have put into it."""
    return _WRAPPERS.sub("", name)


def top_level(name: str) -> str:
    """The first component of the name: the child of the model that the parameter is in."""
    return name.split(".", 1)[0]


def within(name: str, prefix: str) -> bool:
    """Whether `prefix` is the name itself or a module that contains the parameter."""
    return name == prefix or name.startswith(prefix + ".")


def encoder_or_decoder(name: str) -> str | None:
    """The outermost component that is called encoder or decoder; None where there is none."""
    return next((part for part in name.split(".") if part in ("encoder", "decoder")), None)


def layer_prefixes(names: Sequence[str]) -> list[str | None]:
    """For each parameter the prefix of the whole Transformer layer it is in, such as `encoder.layer.3`, or None.

    The layer is the outermost `<list>.<digits>` with a list of `LAYER_LISTS` (in T5, `block.3.layer.0` is in the layer
    `block.3`). In hierarchical models such as Swin, `layers.1` is a stage and its `blocks.0` is the layer. A numbered
    entry counts as a layer only if some parameter lies deeper than directly in it: `layers.0.weight` is a linear layer
    of a perceptron, not a Transformer layer.
    """
    prefixes = [_layer_prefix(name) for name in names]
    stages = {prefix.rsplit(".", 2)[0] for prefix in prefixes if prefix is not None and _is_in_stage(prefix)}
    deep = {prefix for name, prefix in zip(names, prefixes, strict=True) if prefix and "." in name[len(prefix) + 1 :]}
    return [prefix if prefix in deep and prefix not in stages else None for prefix in prefixes]


def _layer_prefix(name: str) -> str | None:
    parts = name.split(".")
    for i in range(len(parts) - 2):  # at least one component must follow the number
        if not _is_entry(parts, i):
            continue
        if parts[i] == "layers" and i + 4 < len(parts) and parts[i + 2] == "blocks" and _is_entry(parts, i + 2):
            return ".".join(parts[: i + 4])
        return ".".join(parts[: i + 2])
    return None


def _is_entry(parts: list[str], i: int) -> bool:
    return parts[i] in LAYER_LISTS and parts[i + 1].isdigit()


def _is_in_stage(prefix: str) -> bool:
    parts = prefix.split(".")
    return len(parts) >= 4 and parts[-2] == "blocks" and parts[-4] == "layers" and parts[-3].isdigit()
