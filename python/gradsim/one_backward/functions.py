"""What is known of torch's functions: which dimensions they mix, and which elements they move."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

Function = Callable[..., Any]


def named(*owners: Any, names: str) -> list[Function]:
    """The functions of these names that the owners have."""
    return [getattr(owner, name) for owner in owners for name in names.split() if hasattr(owner, name)]


# Their result depends on the order of the elements only, not on what they are.
VIEWS: set[Function] = {
    *named(torch, Tensor, names="transpose permute movedim moveaxis swapaxes swapdims t adjoint squeeze unsqueeze"),
    *named(
        torch, Tensor, names="flatten unflatten reshape view select narrow split split_with_sizes chunk unbind ravel"
    ),
    *named(torch, Tensor, names="tensor_split hsplit vsplit diagonal unfold broadcast_to expand view_as reshape_as"),
    *named(torch, Tensor, names="expand_as __getitem__"),
    *(getattr(Tensor, name).__get__ for name in ("T", "mT", "H", "mH")),
}
EXPANDING = set(named(torch, Tensor, names="expand expand_as broadcast_to"))

# They tell something about a tensor and compute nothing.
LOOKING = {
    getattr(Tensor, name).__get__ for name in ("shape", "dtype", "device", "ndim", "requires_grad", "is_cuda", "layout")
}
LOOKING |= set(named(Tensor, names="size dim numel is_floating_point is_contiguous stride element_size"))

# Functions along a dimension that take it away (unless keepdim), with the position of that argument.
SHRINKING: dict[Function, int] = {
    **dict.fromkeys(
        named(torch, Tensor, names="sum mean logsumexp var std max min amax amin argmax argmin prod any"), 1
    ),
    **dict.fromkeys(named(torch, Tensor, names="all median nanmean nansum count_nonzero std_mean var_mean"), 1),
    **dict.fromkeys(named(torch.linalg, names="norm vector_norm"), 2),
    **dict.fromkeys(named(torch, Tensor, F, names="norm kthvalue cosine_similarity quantile"), 2),
}
# Functions along a dimension that stays, likewise.
STAYING: dict[Function, int] = {
    **dict.fromkeys(named(torch, Tensor, F, names="softmax log_softmax softmin cumsum cumprod cummax logcumsumexp"), 1),
    **dict.fromkeys(named(torch, Tensor, F, names="sort argsort msort index_select gather index_add index_copy"), 1),
    **dict.fromkeys(named(torch, Tensor, F, names="index_fill scatter scatter_add cat concat concatenate glu flip"), 1),
    **dict.fromkeys(named(torch, Tensor, F, names="topk normalize take_along_dim roll repeat_interleave diff"), 2),
    **dict.fromkeys(named(torch, names="stack"), 1),
}
ALONG = {**SHRINKING, **STAYING}
# The dimension that is meant where none is named; the others: all elements.
DEFAULTS = {
    "cat": 0, "concat": 0, "concatenate": 0, "stack": 0, "normalize": 1, "cosine_similarity": 1, "sort": -1,
    "argsort": -1, "msort": 0, "topk": -1, "kthvalue": -1, "glu": -1, "diff": -1,
}  # fmt: skip
PRODUCTS = set(named(torch, Tensor, names="matmul __matmul__ mm bmm mv"))
REPEATING = set(named(Tensor, names="repeat"))
ATTENDING = {
    F.scaled_dot_product_attention,
    torch.baddbmm,
    Tensor.baddbmm,
    torch.cdist,
}  # the last two dimensions are mixed
RECURRENT = set(named(torch, names="lstm gru rnn_tanh rnn_relu"))  # states have the samples in dimension 1
# Of two tensors with samples they make one of all pairs of samples, or sum over them.
MULTIPLYING = {*PRODUCTS, *ATTENDING, torch.einsum, F.linear, F.cosine_similarity, torch.cosine_similarity, torch.cdist}
COUPLING = set(named(torch, Tensor, F, names="softmax log_softmax softmin cumsum cumprod logcumsumexp normalize"))
ADDING = set(named(torch, Tensor, names="add sub rsub __add__ __radd__ __sub__ __rsub__ __iadd__ __isub__"))
CREATING = set(named(torch, Tensor, names="new_zeros new_ones new_empty new_full new_tensor"))


def _all_but_first(x: Tensor, args: tuple[Any, ...], kwargs: dict[str, Any]) -> int:
    return 1


def _all_but_last(x: Tensor, args: tuple[Any, ...], kwargs: dict[str, Any]) -> int:
    return x.dim() - 1


def _every(x: Tensor, args: tuple[Any, ...], kwargs: dict[str, Any]) -> int:
    return x.dim()


def _not_normalized(x: Tensor, args: tuple[Any, ...], kwargs: dict[str, Any]) -> int:
    return x.dim() - len(kwargs.get("normalized_shape", args[1] if len(args) > 1 else ()))


def _not_padded(x: Tensor, args: tuple[Any, ...], kwargs: dict[str, Any]) -> int:
    return x.dim() - len(kwargs.get("pad", args[1] if len(args) > 1 else ())) // 2


_SPATIAL = (
    "conv1d conv2d conv3d conv_transpose1d conv_transpose2d conv_transpose3d max_pool1d max_pool2d max_pool3d "
    "avg_pool1d avg_pool2d avg_pool3d adaptive_avg_pool1d adaptive_avg_pool2d adaptive_avg_pool3d adaptive_max_pool1d "
    "adaptive_max_pool2d adaptive_max_pool3d interpolate upsample group_norm instance_norm pixel_shuffle "
    "pixel_unshuffle channel_shuffle unfold fold grid_sample local_response_norm batch_norm"
)
# The first argument has the samples; for each how many of its leading dimensions are not mixed with others.
FIRST: dict[Function, Callable[[Tensor, tuple[Any, ...], dict[str, Any]], int]] = {
    **dict.fromkeys(named(F, torch, names=_SPATIAL), _all_but_first),
    **dict.fromkeys(named(F, torch, names="layer_norm rms_norm"), _not_normalized),
    F.linear: _all_but_last,
    F.pad: _not_padded,
    **dict.fromkeys(named(F, torch, names="embedding one_hot view_as_real"), _every),
    **dict.fromkeys(named(torch, names="view_as_complex"), _all_but_last),
    **dict.fromkeys(named(torch, F, names="lstm_cell gru_cell rnn_tanh_cell rnn_relu_cell bilinear"), _all_but_last),
    **dict.fromkeys(named(F, torch, names="pairwise_distance"), _all_but_last),
    # losses with reduction="none"
    **dict.fromkeys(named(F, names="cross_entropy nll_loss"), _all_but_first),
}

_POINTWISE = {
    *named(
        F, torch, names="dropout dropout1d dropout2d dropout3d alpha_dropout feature_alpha_dropout dropout_ relu relu6"
    ),
    *named(F, torch, names="elu selu celu gelu silu mish leaky_relu rrelu hardtanh hardswish hardsigmoid softplus"),
    *named(F, torch, names="softsign tanhshrink logsigmoid threshold softshrink hardshrink prelu tril triu"),
    *named(Tensor, names="clone detach contiguous to float half bfloat16 double long int bool type type_as cpu cuda"),
    *named(Tensor, names="requires_grad_ detach_ data_ptr tril triu copy_ masked_fill_ fill_ zero_ clamp_ bernoulli_"),
    *named(F, names="mse_loss l1_loss smooth_l1_loss huber_loss kl_div binary_cross_entropy poisson_nll_loss"),
    *named(F, names="binary_cross_entropy_with_logits soft_margin_loss"),  # with reduction="none"
    *named(torch, names="isin zeros_like ones_like empty_like full_like rand_like randn_like clone detach"),
    Tensor.data.__get__,  # type: ignore[attr-defined]
    Tensor.real.__get__,  # type: ignore[attr-defined]
}
_AS_OPERATOR = {
    "truediv": "div",
    "and": "bitwise_and",
    "or": "bitwise_or",
    "xor": "bitwise_xor",
    "invert": "bitwise_not",
}


@cache
def is_pointwise(func: Function) -> bool:
    """Whether each element of the result depends on the elements at the same place only, as torch's own tags say."""
    if func in _POINTWISE:
        return True
    name = getattr(func, "__name__", "")
    if name.startswith("__"):
        name = name.strip("_")
        candidates = {name, _AS_OPERATOR.get(name, name)}
        if name[:1] in "ri":
            candidates |= {name[1:], _AS_OPERATOR.get(name[1:], name[1:])}
    else:
        candidates = {name, name.rstrip("_")}
    return any(_is_tagged(candidate) for candidate in candidates)


def _is_tagged(name: str) -> bool:
    packet = getattr(torch.ops.aten, name, None) if name.isidentifier() else None
    if packet is None:
        return False
    return any(torch.Tag.pointwise in getattr(packet, overload).tags for overload in packet.overloads())


def is_in_place(func: Function) -> bool:
    """Whether a function writes into its first argument: add_, __iadd__."""
    name = getattr(func, "__name__", "")
    if name.startswith("__"):
        return name.startswith("__i") and name not in ("__invert__", "__index__", "__int__")
    return name.endswith("_")
