"""Which rule belongs to which function."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from gradsim.one_backward.follow import Follow, Rule, Watch
from gradsim.one_backward.rules import refused
from gradsim.one_backward.rules.elementwise import aligned, attention, cat, elementwise, metadata, setitem
from gradsim.one_backward.rules.embedding import embedding
from gradsim.one_backward.rules.fallback import each_task, multi_head_attention, recurrent
from gradsim.one_backward.rules.linear import addmm, linear, matmul
from gradsim.one_backward.rules.norm import group_norm, layer_norm, rms_norm

_ELEMENTWISE = (
    "add",
    "sub",
    "subtract",
    "mul",
    "multiply",
    "div",
    "divide",
    "true_divide",
    "maximum",
    "minimum",
    "pow",
    "where",
    "lerp",
)
_OPERATORS = (
    "add",
    "radd",
    "iadd",
    "sub",
    "rsub",
    "isub",
    "mul",
    "rmul",
    "imul",
    "truediv",
    "rtruediv",
    "itruediv",
    "pow",
    "rpow",
)
_METADATA = (
    "type_as",
    "view_as",
    "expand_as",
    "reshape_as",
    "to",
    "new_zeros",
    "new_ones",
    "new_empty",
    "new_full",
    "new_tensor",
)


def _of(*owners: Any, names: tuple[str, ...]) -> list[Callable[..., Any]]:
    return [getattr(owner, name) for owner in owners for name in names if hasattr(owner, name)]


def _after(watch: Watch, rule: Rule) -> Rule:
    def checked(f: Follow, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        watch(f, func, args, kwargs)
        return rule(f, func, args, kwargs)

    return checked


RULES: dict[Callable[..., Any], Rule] = {
    F.linear: linear,
    F.embedding: embedding,
    F.layer_norm: layer_norm,
    F.rms_norm: rms_norm,
    torch.rms_norm: rms_norm,
    F.group_norm: group_norm,
    torch.addmm: addmm,
    Tensor.addmm: addmm,
    torch.lstm: recurrent,
    torch.gru: recurrent,
    torch.rnn_tanh: recurrent,
    torch.rnn_relu: recurrent,
    F.multi_head_attention_forward: multi_head_attention,
    F.scaled_dot_product_attention: attention,
    Tensor.__setitem__: setitem,
    F.batch_norm: _after(refused.batch_norm, each_task),
    F.embedding_bag: _after(refused.embedding_bag, each_task),
    **dict.fromkeys(_of(torch, Tensor, names=("matmul", "mm", "__matmul__")), matmul),
    **dict.fromkeys(_of(torch, Tensor, names=("bmm", "baddbmm")), aligned),
    **dict.fromkeys(_of(torch, names=("cat", "concat", "concatenate")), cat),
    **dict.fromkeys(_of(torch, Tensor, names=_ELEMENTWISE), elementwise),
    **dict.fromkeys(_of(Tensor, names=tuple(f"{name}_" for name in _ELEMENTWISE)), elementwise),
    **dict.fromkeys(_of(Tensor, names=tuple(f"__{name}__" for name in _OPERATORS)), elementwise),
    **dict.fromkeys(_of(Tensor, names=_METADATA), metadata),
}

WATCHED: dict[Callable[..., Any], Watch] = {
    F.batch_norm: refused.batch_norm,
    torch.cdist: refused.distance_of_samples,
    **dict.fromkeys(_of(torch, Tensor, names=("matmul", "mm", "__matmul__")), refused.product_of_samples),
}
