"""Which rule belongs to which function."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from gradsim.one_backward.follow import Arguments, Follow, Function, Keywords, Rule
from gradsim.one_backward.functions import named
from gradsim.one_backward.rules import refused
from gradsim.one_backward.rules.conv import conv
from gradsim.one_backward.rules.elementwise import aligned, cat, elementwise, metadata, setitem
from gradsim.one_backward.rules.embedding import embedding
from gradsim.one_backward.rules.fallback import each_task, multi_head_attention, recurrent
from gradsim.one_backward.rules.linear import addmm, linear, matmul
from gradsim.one_backward.rules.norm import group_norm, layer_norm, rms_norm

Watch = Callable[[Follow, Function, Arguments, Keywords], None]

_ELEMENTWISE = "add sub subtract mul multiply div divide true_divide maximum minimum pow where lerp"
_IN_PLACE = "add_ sub_ subtract_ mul_ multiply_ div_ divide_ true_divide_ pow_ lerp_"
_OPERATORS = (
    "__add__ __radd__ __iadd__ __sub__ __rsub__ __isub__ __mul__ __rmul__ __imul__ __truediv__ __rtruediv__ "
    "__itruediv__ __rdiv__ __div__ __idiv__ __pow__ __rpow__"
)
_METADATA = "type_as view_as expand_as reshape_as to new_zeros new_ones new_empty new_full new_tensor"
_CONVOLUTIONS = "conv1d conv2d conv3d conv_transpose1d conv_transpose2d conv_transpose3d"
_PRODUCTS = "matmul mm __matmul__"


def _after(watch: Watch, rule: Rule) -> Rule:
    def checked(f: Follow, func: Function, args: Arguments, kwargs: Keywords) -> object:
        watch(f, func, args, kwargs)
        return rule(f, func, args, kwargs)

    return checked


RULES: dict[Function, Rule] = {
    F.linear: linear,
    F.embedding: embedding,
    F.layer_norm: layer_norm,
    F.rms_norm: rms_norm,
    F.group_norm: group_norm,
    F.multi_head_attention_forward: multi_head_attention,
    F.scaled_dot_product_attention: aligned,
    F.batch_norm: _after(refused.batch_norm, each_task),
    F.embedding_bag: _after(refused.embedding_bag, each_task),
    Tensor.__setitem__: setitem,
    **dict.fromkeys(named(torch, Tensor, names="addmm"), addmm),
    **dict.fromkeys(named(torch, Tensor, names=_PRODUCTS), matmul),
    **dict.fromkeys(named(torch, Tensor, names="bmm baddbmm"), aligned),
    **dict.fromkeys(named(torch, names="cat concat concatenate stack"), cat),
    **dict.fromkeys(named(torch, names="lstm gru rnn_tanh rnn_relu"), recurrent),
    **dict.fromkeys(named(torch, F, names="rms_norm"), rms_norm),
    **dict.fromkeys(named(torch, F, names=_CONVOLUTIONS), conv),
    **dict.fromkeys(named(torch, Tensor, names=_ELEMENTWISE), elementwise),
    **dict.fromkeys(named(Tensor, names=f"{_IN_PLACE} {_OPERATORS}"), elementwise),
    **dict.fromkeys(named(Tensor, names=_METADATA), metadata),
}

WATCHED: dict[Function, Watch] = {
    F.batch_norm: refused.batch_norm,
    **dict.fromkeys(named(torch, Tensor, names=f"{_PRODUCTS} cdist"), refused.product),
}
