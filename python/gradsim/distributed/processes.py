"""A group of processes, as far as the surgery talks to it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

Work = Any  # dist.Work, which torch does not export for type checkers
Group = Any  # dist.ProcessGroup

# torch 2.13 renamed them; the older names warn there, the newer ones are not in older versions.
_reduce_scatter: Callable[..., Work] = getattr(dist, "reduce_scatter_single", None) or dist.reduce_scatter_tensor
_all_gather: Callable[..., Work] = getattr(dist, "all_gather_single", None) or dist.all_gather_into_tensor


class Processes:
    """W processes with the ranks 0..W-1.

    What the host says goes over a backend that takes CPU tensors, so that nobody waits for a GPU: over the group
    itself, or over a gloo group of the same processes where the group takes GPU tensors only.
    """

    def __init__(self, group: Group | None = None) -> None:
        self.group: Group = dist.group.WORLD if group is None else group
        self.rank, self.size = dist.get_rank(self.group), dist.get_world_size(self.group)
        self._host: Group | None = None
        backends = dist.get_backend_config(self.group)
        self._devices = [part.split(":")[0] for part in backends.split(",")] if ":" in backends else ["cpu", "cuda"]

    def say(self, numbers: Sequence[int]) -> list[list[int]]:
        """What every process says: W lists of int64, all of the same length."""
        mine = torch.tensor(numbers, dtype=torch.int64)
        everybody = torch.empty(self.size * len(numbers), dtype=torch.int64)
        _all_gather(everybody, mine, group=self._talk())
        return everybody.view(self.size, len(numbers)).tolist()

    def device(self, device: torch.device) -> torch.device:
        """Where tensors of this device have to be to go from process to process."""
        if device.type in self._devices:
            return device
        kind = self._devices[0]
        return torch.device(kind, torch.cuda.current_device()) if kind == "cuda" else torch.device(kind)

    def sum_(self, x: Tensor) -> Tensor:
        """The sum of the x of all processes, the same to the bit in each of them; x itself may be written to.

        What is on the CPU goes over a backend for it.
        """
        if x.device.type == "cpu":
            dist.all_reduce(x, group=self._talk())
            return x
        there = x.to(self.device(x.device))
        dist.all_reduce(there, group=self.group)
        return there.to(x.device)

    def from_first_(self, tensors: Sequence[Tensor]) -> None:
        """Overwrite the tensors with those of rank 0."""
        source = dist.get_global_rank(self.group, 0)
        for kind in sorted({(str(x.dtype), str(x.device)) for x in tensors}):
            chosen = [x for x in tensors if (str(x.dtype), str(x.device)) == kind]
            flat = torch.cat([x.detach().reshape(-1) for x in chosen])
            there = flat.to(self.device(flat.device))
            dist.broadcast(there, source, group=self.group)
            parts = there.to(flat.device).split([x.numel() for x in chosen])
            for x, part in zip(chosen, parts, strict=True):
                x.detach().copy_(part.view(x.shape))

    def reduce_scatter(self, out: Tensor, x: Tensor) -> Work:
        """out: the sum over all processes of the part of x [W * n] that belongs to this one, [n]."""
        return _reduce_scatter(out, x, group=self.group, async_op=True)

    def all_reduce(self, x: Tensor) -> Work:
        return dist.all_reduce(x, group=self.group, async_op=True)

    def all_to_all(self, out: Tensor, x: Tensor, received: Sequence[int], sent: Sequence[int]) -> Work:
        """The first sent[0] elements of x go to process 0, the next to process 1, ...; received likewise."""
        return dist.all_to_all_single(out, x, list(received), list(sent), group=self.group, async_op=True)

    def all_gather(self, out: Tensor, x: Tensor) -> Work:
        """out [W * n]: the x [n] of all processes."""
        return _all_gather(out, x, group=self.group, async_op=True)

    def _talk(self) -> Group:
        if "cpu" in self._devices:
            return self.group
        if self._host is None:
            ranks = dist.get_process_group_ranks(self.group)
            self._host = dist.new_group(ranks, backend="gloo", use_local_synchronization=True)
        return self._host
