"""The visiting order: counter-based, hence the same on every device and rank (Salmon et al., SC 2011: Philox4x32-10).

The 32-bit key of task j in row (k, i) is word `j % 4` of Philox(counter = (step low, step high, k, i << 16 | j // 4),
key = (seed low, seed high)); row (k, i) lists the tasks j != i by increasing (key, j).
"""

from __future__ import annotations

import torch
from torch import Tensor

MAX_TASKS = 1 << 16
_WORD = 0xFFFFFFFF
_MULTIPLIERS = (0xD2511F53, 0xCD9E8D57)
_WEYL = (0x9E3779B9, 0xBB67AE85)


def random_order(num_groups: int, num_tasks: int, seed: int, step: Tensor) -> Tensor:
    """int64 [G, T, T - 1] on the device of `step` (int64, no dimension)."""
    G, T = num_groups, num_tasks
    device = step.device
    k = torch.arange(G, device=device)[:, None, None]
    i = torch.arange(T, device=device)[None, :, None]
    quarter = torch.arange((T + 3) // 4, device=device)[None, None, :]
    counter = [step & _WORD, (step >> 32) & _WORD, k, (i << 16) | quarter]
    words = torch.broadcast_tensors(*_philox(counter, (seed & _WORD, (seed >> 32) & _WORD)))
    keys = torch.stack(words, dim=-1).flatten(2)[:, :, :T]
    j = torch.arange(T, device=device)
    sortable = (keys << 16) | j  # ties of the 32-bit key fall to the smaller task
    sortable = sortable.masked_fill(torch.eye(T, dtype=torch.bool, device=device), 1 << 62)
    return sortable.sort(dim=-1).values[:, :, : T - 1] & (MAX_TASKS - 1)


def _philox(counter: list[Tensor], key: tuple[int, int]) -> list[Tensor]:
    c0, c1, c2, c3 = counter
    k0, k1 = key
    for _ in range(10):
        product0, product1 = c0 * _MULTIPLIERS[0], c2 * _MULTIPLIERS[1]  # modulo 2^64: the low 64 bits are exact
        high0, high1 = (product0 >> 32) & _WORD, (product1 >> 32) & _WORD
        c0, c1, c2, c3 = high1 ^ c1 ^ k0, product1 & _WORD, high0 ^ c3 ^ k1, product0 & _WORD
        k0, k1 = (k0 + _WEYL[0]) & _WORD, (k1 + _WEYL[1]) & _WORD
    return [c0, c1, c2, c3]
