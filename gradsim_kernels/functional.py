"""The public functions: typed, documented, checking. What they mean is written here; how, in the backends.

`J` is the gradient buffer [T, N] (float16, bfloat16, float32 or float64; unit stride along N, any row stride) with
`offsets` int64 [G + 1] that cut its columns into groups; or, everywhere, a list over tasks of lists of tensors as
autograd left them (None: missing), with the groups as a list of lists of parameter indices. Without offsets there is
one group. Nothing here is differentiable. Nothing waits for a GPU, save the reference if offsets lie on one.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import overload

import torch
from torch import Tensor

from gradsim_kernels import arguments, lists, philox
from gradsim_kernels.arguments import Gradients, Groups

_ops = torch.ops.gradsim_kernels

EXACT = 2.0**-52  # the accuracy of a Gramian of float64 gradients


@torch.no_grad()
def gramian(J: Gradients, offsets: Groups = None) -> Tensor:
    """Inner products of the task gradients, group by group: M[k, i, j] = g_i,k . g_j,k.

    Args:
        J: the gradient buffer [T, N], or a list over tasks of lists of tensors.
        offsets: int64 [G + 1], on the CPU or beside J; for lists of tensors a list of lists of indices.

    Returns:
        float64 [G, T, T], symmetric to the bit. Each entry is within 4 eps |g_i| |g_j|, eps = 2^-23; that of float64
        gradients within the rounding of a blocked float64 sum (some hundred times 2^-52 at worst).

    Raises:
        ValueError, TypeError: an argument has the wrong shape, dtype or device, or offsets that do not cut N.
    """
    result: Tensor
    if isinstance(J, Tensor):
        J = arguments.buffer("J", J)
        result = _ops.gramian.default(J, arguments.offsets_of(offsets, J))
        return result
    table = lists.table("J", J)
    group_of, G = lists.group_of(offsets, len(table.templates), complete=False)
    result = _ops.gramian_list.default(table.tensors, table.num_tasks, G, group_of)
    return result


@torch.no_grad()
def cross_gramian(A: Gradients, B: Gradients, offsets: Groups = None) -> Tensor:
    """Inner products of two sets of task gradients: C[k, i, j] = a_i,k . b_j,k.

    Args:
        A: [Ta, N] or a list; B: [Tb, N] or a list, with the same columns, dtype and device as A.
        offsets: as for `gramian`.

    Returns:
        float64 [G, Ta, Tb], with the accuracy of `gramian`.

    Raises:
        ValueError, TypeError: as for `gramian`, or A and B do not fit each other.
    """
    result: Tensor
    if isinstance(A, Tensor) and isinstance(B, Tensor):
        A, B = arguments.buffer("A", A), arguments.buffer("B", B)
        if A.shape[1] != B.shape[1] or A.dtype != B.dtype or A.device != B.device:
            raise ValueError(
                f"A and B must share N, dtype and device, not {list(A.shape)} {A.dtype} on {A.device} and "
                f"{list(B.shape)} {B.dtype} on {B.device}"
            )
        result = _ops.cross_gramian.default(A, B, arguments.offsets_of(offsets, A))
        return result
    if isinstance(A, Tensor) or isinstance(B, Tensor):
        raise TypeError("A and B must both be tensors or both be lists of gradients")
    both = lists.table("A and B", [*A, *B])  # one table: the same parameters, shapes and dtypes
    cut = len(A) * len(both.templates)
    group_of, G = lists.group_of(offsets, len(both.templates), complete=False)
    result = _ops.cross_gramian_list.default(both.tensors[:cut], len(A), both.tensors[cut:], len(B), G, group_of)
    return result


@torch.no_grad()
def cosine_similarity(M: Tensor) -> Tensor:
    """Cosines from Gramians: M[i, j] / sqrt(M[i, i] M[j, j]), clamped to [-1, 1].

    Args:
        M: float64 [G, T, T] or [T, T].

    Returns:
        float64 of the same shape; the diagonal is 1; row and column are 0, the diagonal too, where a gradient is zero.

    Raises:
        ValueError, TypeError: M is not a float64 stack of square matrices.
    """
    _square("M", M.unsqueeze(0) if isinstance(M, Tensor) and M.dim() == 2 else M)
    norm = M.diagonal(dim1=-2, dim2=-1).clamp(min=0).sqrt()
    unit = torch.where(norm > 0, 1.0 / norm, torch.zeros_like(norm))
    unit = torch.where(norm.isnan(), norm, unit)
    cosine = (M * unit.unsqueeze(-1) * unit.unsqueeze(-2)).clamp(-1.0, 1.0)
    diagonal = torch.where(norm > 0, torch.ones_like(norm), norm)  # 0 stays 0, NaN stays NaN
    return torch.diagonal_scatter(cosine, diagonal, dim1=-2, dim2=-1)


@torch.no_grad()
def random_order(
    G: int, T: int, *, seed: int = 0, step: int | Tensor = 0, device: torch.device | str | None = None
) -> Tensor:
    """The order in which each task visits the others, drawn anew for every group and task (GradVac, Algorithm 1).

    Counter-based (Philox4x32-10 of seed, step, group, task): the same on every device and rank.

    Args:
        G: number of groups. T: number of tasks, at most 65,536.
        seed, step: 64-bit integers; `step` may be an int64 tensor without dimensions, so that a captured CUDA graph
            draws anew.
        device: where to draw; by default where `step` is, else the CPU.

    Returns:
        int64 [G, T, T - 1]; row (k, i) holds every j != i once.

    Raises:
        ValueError, TypeError: a negative count, too many tasks, or a step that is no int64 scalar.
    """
    if arguments.int64("G", G) < 0:
        raise ValueError(f"G must not be negative, but is {G}")
    if not 1 <= arguments.int64("T", T) <= philox.MAX_TASKS:
        raise ValueError(f"T must lie between 1 and {philox.MAX_TASKS}, not {T}")
    if isinstance(step, Tensor):
        step = _step(step) if device is None else _step(step).to(device)
    else:
        step = torch.full((), arguments.int64("step", step), dtype=torch.int64, device=device)
    result: Tensor = _ops.random_order.default(G, T, arguments.int64("seed", seed), step)
    return result


@torch.no_grad()
def pcgrad_weights(
    M: Tensor, order: Tensor | None, *, seed: int = 0, step: int | Tensor = 0, eps: float = EXACT
) -> Tensor:
    """PCGrad (Yu et al., NeurIPS 2020, Algorithm 1) on Gramians: the update of group k is weights[k] times J_k.

    Args:
        M: float64 [G, T, T].
        order: int64 [G, T, T - 1], row (k, i) the order in which task i visits the others; None: it is drawn as by
            `random_order(G, T, seed=seed, step=step)`, on a GPU inside the same kernel.
        seed, step: as for `random_order`; only read where `order` is None.
        eps: the relative accuracy of M: 2^-52 for float64 gradients (the default), 2^-23 for the others. A corrected
            gradient that is nothing but the rounding error of M counts as zero.

    Returns:
        float64 [G, T], the column sums of the coefficients c of g'_i = c_i J; NaN for a group whose M is not finite.

    Raises:
        ValueError, TypeError: a wrong shape, dtype or device; on the CPU also an order that is no permutation.
    """
    G, T = _square("M", M)
    visits = _visits(G, T, M.device, order, seed, step)
    weights: Tensor = _ops.pcgrad_weights.default(M.contiguous(), *visits, _eps(eps))
    return weights


@torch.no_grad()
def gradvac_weights(
    M: Tensor,
    target: Tensor,
    order: Tensor | None,
    *,
    seed: int = 0,
    step: int | Tensor = 0,
    beta: float = 0.01,
    max_target: float = 0.999,
    vaccinate: Tensor | None = None,
    eps: float = EXACT,
    corrections: Tensor | None = None,
) -> Tensor:
    """GradVac (Wang et al., ICLR 2021, Algorithm 1) on Gramians: the update of group k is weights[k] times J_k.

    Args:
        M: float64 [G, T, T].
        target: float64 [G, T, T], the running target similarities phi_hat, updated in place (Eq. 3 of the paper).
        order, seed, step: as for `pcgrad_weights`.
        beta: the decay of the targets.
        max_target: what a target is at most when it is compared and aimed at; 1.0 gives the paper's.
        vaccinate: bool [T], the tasks to correct; None: all.
        eps: as for `pcgrad_weights`.
        corrections: int64 [G, T], overwritten with how often each gradient was corrected.

    Returns:
        float64 [G, T]; a group whose M is not finite gets NaN and keeps its targets.

    Raises:
        ValueError, TypeError: a wrong shape, dtype, device or range; on the CPU also an order that is no permutation.
    """
    G, T = _square("M", M)
    vaccinate = _surgery_arguments(G, T, M.device, target, vaccinate, corrections)
    visits = _visits(G, T, M.device, order, seed, step)
    beta, max_target = arguments.within("beta", beta, 0, 1), arguments.within("max_target", max_target, 0, 1)
    weights: Tensor = _ops.gradvac_weights.default(
        M.contiguous(), target, *visits, vaccinate, beta, max_target, _eps(eps), corrections
    )
    return weights


@overload
def combine(J: Tensor, weights: Tensor, offsets: Groups = None, *, out: Tensor | None = None) -> Tensor: ...
@overload
def combine(
    J: Sequence[Sequence[Tensor | None]],
    weights: Tensor,
    offsets: Groups = None,
    *,
    out: Sequence[Tensor | None] | None = None,
) -> list[Tensor | None]: ...
@torch.no_grad()
def combine(
    J: Gradients, weights: Tensor, offsets: Groups = None, *, out: Tensor | Sequence[Tensor | None] | None = None
) -> Tensor | list[Tensor | None]:
    """The weighted sum of the task gradients: out[n] = sum_t weights[group(n), t] J[t, n].

    Args:
        J, offsets: as for `gramian`; each parameter of a list must be in a group.
        weights: float64 [G, T]; rounded once to float32 unless the gradients are float64.
        out: [N] in the dtype of J, may be a row of J; for lists a list, which may hold the tensors of a task.

    Returns:
        `out`, or a new tensor [N] in the dtype of J; for lists a list (None where no task has the parameter).

    Raises:
        ValueError, TypeError: as for `gramian`, or weights or out do not fit, or out lies across the rows of J.
    """
    if isinstance(J, Tensor):
        J = arguments.buffer("J", J)
        bounds = arguments.offsets_of(offsets, J)
        weights = arguments.tensor_like("weights", weights, (bounds.shape[0] - 1, J.shape[0]), J.device)
        row = _output_row(J, out)
        _ops.combine.default(J, weights, bounds, row)
        return row
    table = lists.table("J", J)
    group_of, G = lists.group_of(offsets, len(table.templates), complete=True)
    weights = arguments.tensor_like("weights", weights, (G, table.num_tasks), table.device(weights.device))
    outputs, flat = _output_list(out, table)
    _ops.combine_list.default(table.tensors, weights, group_of, flat)
    return outputs


@overload
def gradvac_(
    J: Tensor,
    target: Tensor,
    order: Tensor | None,
    offsets: Groups = None,
    *,
    seed: int = 0,
    step: int | Tensor = 0,
    beta: float = 0.01,
    max_target: float = 0.999,
    vaccinate: Tensor | None = None,
    scale: float = 1.0,
    corrections: Tensor | None = None,
    out: Tensor | None = None,
) -> tuple[Tensor, Tensor, Tensor]: ...
@overload
def gradvac_(
    J: Sequence[Sequence[Tensor | None]],
    target: Tensor,
    order: Tensor | None,
    offsets: Groups = None,
    *,
    seed: int = 0,
    step: int | Tensor = 0,
    beta: float = 0.01,
    max_target: float = 0.999,
    vaccinate: Tensor | None = None,
    scale: float = 1.0,
    corrections: Tensor | None = None,
    out: Sequence[Tensor | None] | None = None,
) -> tuple[list[Tensor | None], Tensor, Tensor]: ...
@torch.no_grad()
def gradvac_(
    J: Gradients,
    target: Tensor,
    order: Tensor | None,
    offsets: Groups = None,
    *,
    seed: int = 0,
    step: int | Tensor = 0,
    beta: float = 0.01,
    max_target: float = 0.999,
    vaccinate: Tensor | None = None,
    scale: float = 1.0,
    corrections: Tensor | None = None,
    out: Tensor | Sequence[Tensor | None] | None = None,
) -> tuple[Tensor | list[Tensor | None], Tensor, Tensor]:
    """The whole GradVac step in one call: `gramian`, `gradvac_weights` and `combine` while the rows are still in cache.

    `_` refers to `target`, which is updated in place; J is not written unless `out` is a row of it. With `target` zero
    and `beta=0` it is PCGrad.

    Args:
        J, offsets, out: as for `combine`.
        target, order, seed, step, beta, max_target, vaccinate, corrections: as for `gradvac_weights`.
        scale: multiplies the update and the returned weights (1 / number of tasks gives the mean).

    Returns:
        The update (as `combine` returns it), the weights float64 [G, T] and the Gramians float64 [G, T, T].

    Raises:
        ValueError, TypeError: as for the three calls.
    """
    beta, max_target = arguments.within("beta", beta, 0, 1), arguments.within("max_target", max_target, 0, 1)
    scale = arguments.within("scale", scale, -1e300, 1e300)
    if isinstance(J, Tensor):
        J = arguments.buffer("J", J)
        bounds = arguments.offsets_of(offsets, J)
        G, T = bounds.shape[0] - 1, J.shape[0]
        vaccinate = _surgery_arguments(G, T, J.device, target, vaccinate, corrections)
        visits = _visits(G, T, J.device, order, seed, step)
        row = _output_row(J, out)
        weights, M = _ops.gradvac_.default(
            J, target, *visits, bounds, vaccinate, beta, max_target, scale, corrections, row
        )
        return row, weights, M
    table = lists.table("J", J)
    group_of, G = lists.group_of(offsets, len(table.templates), complete=True)
    device = table.device(torch.device("cpu"))
    vaccinate = _surgery_arguments(G, table.num_tasks, device, target, vaccinate, corrections)
    visits = _visits(G, table.num_tasks, device, order, seed, step)
    outputs, flat = _output_list(out, table)
    weights, M = _ops.gradvac_list_.default(
        table.tensors, target, *visits, group_of, vaccinate, beta, max_target, scale, corrections, flat
    )
    return outputs, weights, M


def _square(name: str, M: Tensor) -> tuple[int, int]:
    if not isinstance(M, Tensor) or M.dtype != torch.float64:
        raise TypeError(
            f"{name} must be a float64 tensor, not {M.dtype if isinstance(M, Tensor) else type(M).__name__}"
        )
    if M.dim() != 3 or M.shape[1] != M.shape[2] or M.shape[1] == 0:
        raise ValueError(f"{name} must have the shape [G, T, T], not {list(M.shape)}")
    return M.shape[0], M.shape[1]


def _eps(eps: float) -> float:
    return arguments.within("eps", eps, 0, 2.0**-7)


def _surgery_arguments(
    G: int, T: int, device: torch.device, target: Tensor, vaccinate: Tensor | None, corrections: Tensor | None
) -> Tensor | None:
    """Check what is written in place; `vaccinate` as the ops take it."""
    arguments.tensor_like("target", target, (G, T, T), device, written=True)
    if corrections is not None:
        arguments.tensor_like("corrections", corrections, (G, T), device, torch.int64, written=True)
    return None if vaccinate is None else arguments.tensor_like("vaccinate", vaccinate, (T,), device, torch.bool)


def _visits(
    G: int, T: int, device: torch.device, order: Tensor | None, seed: int, step: int | Tensor
) -> tuple[Tensor | None, int, Tensor | None]:
    """The order, or the seed and the step that it is drawn from, as the ops take them."""
    if order is not None:
        return arguments.tensor_like("order", order, (G, T, T - 1), device, torch.int64), 0, None
    if T > philox.MAX_TASKS:
        raise ValueError(f"order must be given for more than {philox.MAX_TASKS} tasks, not drawn for {T}")
    if not isinstance(step, Tensor):
        step = torch.tensor(arguments.int64("step", step))
    elif _step(step).device.type != "cpu" and step.device != device:
        raise ValueError(f"step must be on the CPU or on {device} like the gradients, not on {step.device}")
    return None, arguments.int64("seed", seed), step


def _step(step: Tensor) -> Tensor:
    if step.dtype != torch.int64 or step.dim() != 0:
        was = f"{step.dtype} {list(step.shape)}"
        raise TypeError(f"step must be an integer or an int64 tensor without dimensions, not {was}")
    return step


def _output_row(J: Tensor, out: Tensor | Sequence[Tensor | None] | None) -> Tensor:
    if out is None:
        return J.new_empty(J.shape[1])
    if not isinstance(out, Tensor) or out.dtype != J.dtype or out.device != J.device:
        was = f"{out.dtype} on {out.device}" if isinstance(out, Tensor) else type(out).__name__
        raise TypeError(f"out must be a {J.dtype} tensor on {J.device} like J, not {was}")
    if tuple(out.shape) != (J.shape[1],) or (out.shape[0] > 1 and out.stride(0) != 1):
        raise ValueError(f"out must be contiguous with the shape [{J.shape[1]}], not {list(out.shape)} {out.stride()}")
    return out


def _output_list(
    out: Tensor | Sequence[Tensor | None] | None, table: lists.Table
) -> tuple[list[Tensor | None], list[Tensor]]:
    tensors = lists.outputs(out, table.templates)
    missing = torch.empty(0, device=table.device(torch.device("cpu")))
    return tensors, [missing if x is None else lists.in_memory_order(x) for x in tensors]
