"""The specification: each op in eager PyTorch, float64 inside, for any device (Yu et al. 2020; Wang et al. 2021).

Signatures are those of `ops.SCHEMAS`. Slow and plain on purpose; the other backends are tested against it, and it
itself against brute force over vectors.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from gradsim_kernels import philox

CHUNK = 1 << 12  # columns turned into float64 at a time: no temporary of size N, and short chains of additions

NEGLIGIBLE = 64.0  # |g'_i|^2 below this many rounding errors of its own sum counts as zero


def gramian(J: Tensor, offsets: Tensor) -> Tensor:
    return _symmetric(cross_gramian(J, J, offsets))


def gramian_list(gradients: Sequence[Tensor], num_tasks: int, num_groups: int, group_of: Tensor) -> Tensor:
    return _symmetric(cross_gramian_list(gradients, num_tasks, gradients, num_tasks, num_groups, group_of))


def cross_gramian(A: Tensor, B: Tensor, offsets: Tensor) -> Tensor:
    bounds = offsets.tolist()
    M = torch.zeros(len(bounds) - 1, A.shape[0], B.shape[0], dtype=torch.float64, device=A.device)
    for k, (start, end) in enumerate(zip(bounds[:-1], bounds[1:], strict=True)):
        for a, b in _chunks(start, end):
            M[k] += A[:, a:b].double() @ B[:, a:b].double().mT
    return M


def cross_gramian_list(
    A: Sequence[Tensor], num_tasks_a: int, B: Sequence[Tensor], num_tasks_b: int, num_groups: int, group_of: Tensor
) -> Tensor:
    P = group_of.shape[0]
    M = torch.zeros(num_groups, num_tasks_a, num_tasks_b, dtype=torch.float64, device=_device(A, group_of))
    for p, k in enumerate(group_of.tolist()):
        size = max((x.numel() for x in [*A[p::P], *B[p::P]]), default=0)
        if k < 0:
            continue
        for a, b in _chunks(0, size):
            M[k] += _rows(A[p::P], a, b, M) @ _rows(B[p::P], a, b, M).mT
    return M


def random_order(num_groups: int, num_tasks: int, seed: int, step: Tensor) -> Tensor:
    return philox.random_order(num_groups, num_tasks, seed, step)


def order_is_valid(order: Tensor) -> bool:
    T = order.shape[1]
    others = torch.arange(T * T, device=order.device).reshape(T, T)[
        ~torch.eye(T, dtype=torch.bool, device=order.device)
    ]
    return bool((order.sort(dim=-1).values == (others % T).reshape(T, T - 1)).all())


def pcgrad_weights(M: Tensor, order: Tensor | None, seed: int, step: Tensor | None, eps: float) -> Tensor:
    target = torch.zeros_like(M)  # PCGrad is GradVac with a target that stays 0
    return gradvac_weights(M, target, order, seed, step, None, 0.0, 1.0, eps, None)


def gradvac_weights(
    M: Tensor,
    target: Tensor,
    order: Tensor | None,
    seed: int,
    step: Tensor | None,
    vaccinate: Tensor | None,
    beta: float,
    max_target: float,
    eps: float,
    corrections: Tensor | None,
) -> Tensor:
    """Algorithm 1 of GradVac on coefficients: g'_i = c_i J, so |g'_i|^2 = c_i M c_i^T and g'_i . g_j = (c_i M)_j."""
    G, T, _ = M.shape
    if order is None:
        if step is None:
            raise RuntimeError("without an order there must be a step")
        order = random_order(G, T, seed, step.to(M.device))
    finite = M.isfinite().all(dim=(1, 2), keepdim=True)
    M = torch.where(finite, M, 0.0)  # a group without gradients: nothing is visited, no target changes
    norm = M.diagonal(dim1=1, dim2=2).clamp(min=0).sqrt()  # |g_j|: [G, T]
    c = torch.eye(T, dtype=torch.float64, device=M.device).repeat(G, 1, 1)
    chosen = torch.ones(T, dtype=torch.bool, device=M.device) if vaccinate is None else vaccinate
    count = torch.zeros(G, T, dtype=torch.int64, device=M.device)
    for s in range(T - 1):
        j = order[:, :, s : s + 1]  # [G, T, 1]
        cM = c @ M
        squared = (c * cM).sum(-1, keepdim=True)  # |g'_i|^2
        scale = (c.abs() @ norm.unsqueeze(-1)).square()  # sum_jk |c_j c_k| |g_j| |g_k|
        norm_j = norm.unsqueeze(1).expand(G, T, T).gather(2, j)
        visited = (squared > NEGLIGIBLE * eps * scale) & (norm_j > 0) & chosen[:, None]
        length = torch.where(visited, squared, 1.0).sqrt()
        norm_j = torch.where(visited, norm_j, 1.0)
        phi = (cM.gather(2, j) / (length * norm_j)).clamp(-1.0, 1.0)
        phi_hat = target.gather(2, j)
        wanted = phi_hat.clamp(max=max_target)
        corrected = visited & (phi < wanted)
        sine = (1 - wanted.square()).sqrt()
        a = length * (wanted * (1 - phi.square()).sqrt() - phi * sine) / (norm_j * sine)
        c.scatter_add_(2, j, torch.where(corrected, a, 0.0))
        target.scatter_(2, j, torch.where(visited, (1 - beta) * phi_hat + beta * phi, phi_hat))
        count += corrected.squeeze(-1)
    if corrections is not None:
        corrections.copy_(count)
    return torch.where(finite.squeeze(-1), c.sum(1), torch.nan)


def combine(J: Tensor, weights: Tensor, offsets: Tensor, out: Tensor) -> None:
    bounds = offsets.tolist()
    for k, (start, end) in enumerate(zip(bounds[:-1], bounds[1:], strict=True)):
        for a, b in _chunks(start, end):
            out[a:b] = weights[k] @ J[:, a:b].double()


def combine_list(gradients: Sequence[Tensor], weights: Tensor, group_of: Tensor, out: Sequence[Tensor]) -> None:
    P = group_of.shape[0]
    for p, k in enumerate(group_of.tolist()):
        for a, b in _chunks(0, out[p].numel()):
            out[p].view(-1)[a:b] = weights[k] @ _rows(gradients[p::P], a, b, weights)


def gradvac_(
    J: Tensor,
    target: Tensor,
    order: Tensor | None,
    seed: int,
    step: Tensor | None,
    offsets: Tensor,
    vaccinate: Tensor | None,
    beta: float,
    max_target: float,
    scale: float,
    corrections: Tensor | None,
    out: Tensor,
) -> tuple[Tensor, Tensor]:
    M = gramian(J, offsets)
    eps = accuracy([J])
    weights = scale * gradvac_weights(M, target, order, seed, step, vaccinate, beta, max_target, eps, corrections)
    combine(J, weights, offsets, out)
    return weights, M


def gradvac_list_(
    gradients: Sequence[Tensor],
    target: Tensor,
    order: Tensor | None,
    seed: int,
    step: Tensor | None,
    group_of: Tensor,
    vaccinate: Tensor | None,
    beta: float,
    max_target: float,
    scale: float,
    corrections: Tensor | None,
    out: Sequence[Tensor],
) -> tuple[Tensor, Tensor]:
    G, T, _ = target.shape
    M = gramian_list(gradients, T, G, group_of)
    eps = accuracy([x for x in gradients if x.numel()])
    weights = scale * gradvac_weights(M, target, order, seed, step, vaccinate, beta, max_target, eps, corrections)
    combine_list(gradients, weights, group_of, out)
    return weights, M


def accuracy(gradients: Sequence[Tensor]) -> float:
    """eps_M, the relative accuracy of a Gramian of these gradients: 2^-52 where all are float64, 2^-23 otherwise."""
    return 2.0**-52 if all(x.dtype == torch.float64 for x in gradients) else 2.0**-23


def _symmetric(M: Tensor) -> Tensor:
    return M.tril() + M.tril(-1).mT  # a matrix product need not be symmetric to the bit


def _chunks(start: int, end: int) -> Iterator[tuple[int, int]]:
    return ((a, min(a + CHUNK, end)) for a in range(start, end, CHUNK))


def _rows(column: Sequence[Tensor], a: int, b: int, like: Tensor) -> Tensor:
    """[T, b - a] float64 rows of one parameter, zeros where a task lacks it."""
    zeros = like.new_zeros(b - a)
    return torch.stack([x.view(-1)[a:b].double() if x.numel() else zeros for x in column])


def _device(gradients: Sequence[Tensor], group_of: Tensor) -> torch.device:
    return gradients[0].device if gradients else group_of.device
