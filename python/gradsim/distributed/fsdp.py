"""What has to be known of torch's FSDP2, for mixed batches: one backward makes the gradients of whole parameters."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor, Shard

from gradsim.distributed.chunks import Chunks
from gradsim.distributed.found import fsdp_groups
from gradsim.distributed.processes import Processes
from gradsim.distributed.replicas import Replicas
from gradsim.distributed.shards import Shards


class ShardedReplicas(Replicas):
    """The exchange of rows of whole parameters between processes of which each keeps its shards: [T, N / W].

    FSDP2 gathers a parameter before it is used, so each process makes rows of whole parameters from its own samples.
    They are averaged as FSDP2 averages gradients, and each process gets the rows of its shards.

    Args:
        shards: how the parameters are spread. dtypes: in which the rows travel, for each parameter. device:
            where they are made.
    """

    keeps_shards = True

    def __init__(self, shards: Shards, dtypes: Sequence[torch.dtype], device: torch.device) -> None:
        mesh = shards.mesh
        super().__init__(shards.everybody, shards.parameters, exchange="reduce_scatter")
        self.dtypes, self.device = list(dtypes), device
        self.across = Processes(mesh.get_group(mesh.ndim - 1))
        self.alike = Processes(mesh.get_group(0)) if mesh.ndim == 2 else None
        self._shards = shards

    def buckets(self, numbers: Sequence[int], num_tasks: int) -> list[Any]:
        """These parameters, by dtype."""
        kinds = dict.fromkeys(self.dtypes[i] for i in numbers)
        chosen = {kind: [i for i in numbers if self.dtypes[i] == kind] for kind in kinds}
        return [Chunks(c, [self.shapes[i] for i in c], kind, self.across.size) for kind, c in chosen.items()]

    def gather(self, bucket: Any, held: Tensor) -> Callable[[], list[Tensor]]:
        """Nothing is gathered: each process keeps its shards."""
        pieces = bucket.pieces(held, self.across.rank)
        return lambda: [self._shards.wrapped(i, x) for i, x in zip(bucket.parameters, pieces, strict=True)]

    def wrapped(self, i: int, piece: Tensor) -> Tensor:
        return self._shards.wrapped(i, piece)

    def parts(self, parameters: Sequence[int], positions: list[int]) -> dict[Hashable, list[int]]:
        return self._shards.parts(parameters, positions)

    def same(self, weights: Tensor) -> Tensor:
        return self._shards.same(weights)

    def added_up(self, key: Hashable, M: Tensor) -> Tensor:
        return self._shards.added_up(key, M)


class Gathered:
    """The parameters that FSDP2 puts into the modules while they run, in the place of the sharded ones.

    Args:
        model: a module that `fully_shard` has been applied to.
        parameters, names: the sharded parameters.

    Attributes:
        modules: those that `fully_shard` was applied to.
        parameters: for each of the sharded ones the whole one.
        dtypes: in which FSDP2 reduces their gradients.

    Raises:
        RuntimeError: parameters that are not sharded by FSDP2 along their first dimension.
    """

    def __init__(self, model: nn.Module, parameters: Sequence[Tensor], names: Sequence[str]) -> None:
        held: dict[int, tuple[Any, Any]] = {}
        self.modules = [m for m in model.modules() if hasattr(m, "_get_fsdp_state")]
        module: Any
        for module in self.modules:
            groups = fsdp_groups(module)
            if any(not hasattr(p, "_unsharded_param") for group in groups for p in group.fsdp_params):
                module.unshard()  # makes them; from then on they are the same objects in every forward
                module.reshard()
            for group in groups:
                if getattr(group, "reduce_scatter_unused_params", False):
                    raise RuntimeError(
                        "mixed_batch() leaves no gradient to FSDP2, which set_reduce_scatter_unused_params(True) would "
                        "replace by zeros; leave it off"
                    )
                for attribute in ("gradient_divide_factor", "force_sum_reduction_for_comms", "_all_reduce_hook"):
                    if getattr(group, attribute, None):
                        raise RuntimeError(
                            f"mixed_batch() averages over all processes, but FSDP2 was told otherwise ({attribute}); "
                            "leave that out, or use one task() block per task"
                        )
                held.update({id(p.sharded_param): (p, group) for p in group.fsdp_params})
        self.parameters: list[Tensor] = []
        self.dtypes: list[torch.dtype] = []
        for p, name in zip(parameters, names, strict=True):
            param, group = held.get(id(p), (None, None))
            whole = getattr(param, "_unsharded_param", None)
            is_cut = isinstance(p, DTensor) and p.placements[-1] == Shard(0)
            if whole is None or isinstance(whole, DTensor) or not is_cut:
                raise RuntimeError(
                    f"mixed_batch() cannot follow parameter {name}: it is not sharded by fully_shard along its first "
                    "dimension alone, as under tensor parallelism; use one task() block per task"
                )
            self.parameters.append(whole)
            self.dtypes.append(group.mp_policy.reduce_dtype or whole.dtype)
