"""How the gradients of a model are spread over processes."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import TYPE_CHECKING, Any, Protocol

import torch.distributed as dist
from torch import Tensor, nn

from gradsim.distributed.ddp import check_ddp, check_ignored, ddp_of, wrapper_of
from gradsim.distributed.processes import Group, Processes
from gradsim.distributed.replicas import Replicas

if TYPE_CHECKING:
    from gradsim.distributed.shards import Shards


class Spread(Protocol):
    """What the surgery asks about gradients of which a process has only a part."""

    def parts(self, parameters: Sequence[int], positions: list[int]) -> dict[Hashable, list[int]]:
        """By the processes that share them, the positions of the parameters that count here.

        Every process gets the same keys in the same order.
        """

    def added_up(self, key: Hashable, M: Tensor) -> Tensor:
        """The Gramians of all processes that share these parameters together: float64 [G, T, T], as new memory."""

    def same(self, weights: Tensor) -> Tensor:
        """Those of one process in all of them: what came from outside may differ in its last bits."""


def is_sharded(x: object) -> bool:
    """Whether x is a DTensor."""
    return any(kind.__name__ == "DTensor" for kind in type(x).__mro__)


def check_model(model: nn.Module) -> None:
    """Refuse wrappers whose gradients cannot be told apart by task (RuntimeError)."""
    ddp = ddp_of(model)
    if ddp is not None:
        check_ddp(ddp)
    for name, module in model.named_modules():
        kinds = {kind.__name__ for kind in type(module).__mro__}
        if "FullyShardedDataParallel" in kinds:
            raise RuntimeError(
                f"{name or 'the model'} is a FullyShardedDataParallel (FSDP1), whose flat parameters have no layers; "
                "use FSDP2: torch.distributed.fsdp.fully_shard"
            )
        if "DistributedDataParallel" in kinds and module is not ddp:
            raise RuntimeError(
                f"{name} inside the model is a DistributedDataParallel, but model= must be that module itself: "
                "nobody would reduce the gradients of the rest"
            )
        if "DeepSpeedEngine" in kinds:
            raise RuntimeError(
                "the model is a DeepSpeedEngine, which reduces and partitions gradients during backward; use FSDP2"
            )


def find_spread(
    model: nn.Module | None,
    parameters: Sequence[Tensor],
    names: Sequence[str],
    process_group: Group | None,
    **settings: Any,
) -> Replicas | Shards | None:
    """How these parameters are spread; None: they belong to this process alone.

    Args:
        settings: of `Replicas`.

    Raises:
        RuntimeError: setups that would train on wrong gradients without a word.
        ValueError: `process_group` for DTensors, or a second one beside that of DistributedDataParallel.
    """
    if any(is_sharded(p) for p in parameters):
        return _shards(model, parameters, names, process_group, settings)
    if not dist.is_available() or not dist.is_initialized():
        if process_group is not None:
            raise RuntimeError("process_group= was given, but torch.distributed is not initialised")
        return None
    ddp = ddp_of(model)
    if ddp is not None:
        check_ddp(ddp)  # once more: hooks may have been registered since
        check_ignored(ddp, parameters, names)
        if process_group is not None and process_group is not ddp.process_group:
            raise ValueError("process_group= is not that of the DistributedDataParallel model; leave it out")
        processes = Processes(ddp.process_group)
    elif dist.get_world_size() == 1 and process_group is None:
        return None
    else:
        wrapper = wrapper_of(parameters)
        if wrapper is not None:
            raise RuntimeError(
                "the parameters belong to a DistributedDataParallel, but model= is not that module: it would average "
                "the gradients of some tasks only; give model= the DistributedDataParallel, or set opt.model to it"
            )
        if process_group is None:
            raise RuntimeError(
                f"this is one of {dist.get_world_size()} processes, and each would train on gradients of its own: give "
                "model= the DistributedDataParallel or FSDP2 module, or process_group= for a model that all processes "
                "have alike"
            )
        processes = Processes(process_group)
    return Replicas(processes, parameters, **settings)


def _shards(
    model: nn.Module | None,
    parameters: Sequence[Tensor],
    names: Sequence[str],
    process_group: Group | None,
    settings: dict[str, Any],
) -> Shards:
    if process_group is not None:
        raise ValueError("process_group= is for plain parameters; DTensors have a mesh of their own")
    if settings.get("average", "world") != "world":
        raise ValueError("average='present' is not to be had for DTensors: the framework has averaged already")
    if settings.get("exchange", "auto") != "auto":
        raise ValueError("exchange= is for parameters that every process has whole; DTensors are exchanged by FSDP")
    if ddp_of(model) is not None:
        raise RuntimeError(
            "the model is a DistributedDataParallel over DTensors; use fully_shard on a 2-D mesh instead"
        )
    plain = [name for p, name in zip(parameters, names, strict=True) if p.requires_grad and not is_sharded(p)]
    is_fsdp = any("FSDPModule" in {k.__name__ for k in type(m).__mro__} for m in model.modules()) if model else False
    if plain and is_fsdp:
        raise RuntimeError(
            f"parameter {plain[0]} is not sharded while others are, so that FSDP does not average its gradient; let "
            "fully_shard have it, or give it an optimizer of its own"
        )
    if not is_fsdp:
        _check_rest(parameters)
    from gradsim.distributed.shards import Shards  # torch.distributed.tensor takes seconds to import

    return Shards(parameters, names)


def _check_rest(parameters: Sequence[Any]) -> None:
    """Refuse a tensor-parallel part of a larger mesh, over the rest of which nobody averages (RuntimeError)."""
    for mesh in {id(p.device_mesh): p.device_mesh for p in parameters if is_sharded(p)}.values():
        root = getattr(mesh, "_get_root_mesh", lambda mesh=mesh: mesh)()
        if root.size() > mesh.size():
            raise RuntimeError(
                f"the parameters are on the dimensions {mesh.mesh_dim_names} of a mesh with {root.mesh_dim_names}, and "
                "nothing averages gradients over the rest; apply fully_shard over it, or build the mesh of tensor "
                "parallelism by itself"
            )


def fsdp_groups(module: nn.Module) -> list[Any]:
    """The parameters that FSDP2 gathers together with a module: torch's own objects; empty: none."""
    state = getattr(module, "_get_fsdp_state", lambda: None)()
    groups = getattr(state, "_fsdp_param_groups", None)
    if groups is None:  # torch has several of them since 2.12
        groups = [group] if (group := getattr(state, "_fsdp_param_group", None)) is not None else []
    return list(groups)


def check_syncing(model: nn.Module | None) -> None:
    """Refuse FSDP2 modules that keep gradients back, where those of the next task would be added (RuntimeError)."""
    for name, module in [] if model is None else model.named_modules():
        found = [
            setting
            for group in fsdp_groups(module)
            for attribute, setting in (
                ("reduce_grads", "set_requires_gradient_sync"),
                ("all_reduce_grads", "set_requires_all_reduce"),
            )
            if not getattr(group, attribute, True)
        ]
        context = getattr(getattr(module, "_get_fsdp_state", lambda: None)(), "_state_ctx", None)
        if not getattr(context, "is_last_backward", True):
            found.append("set_is_last_backward")
        if found:
            raise RuntimeError(
                f"{name or 'the model'} has {found[0]}(False), under which FSDP adds gradients of several tasks up; "
                "leave it on: every task block is reduced by itself"
            )
