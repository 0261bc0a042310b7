"""What has to be known of torch's DistributedDataParallel, and what of it is refused."""

from __future__ import annotations

import gc
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from gradsim.distributed.processes import Processes


def ddp_of(model: nn.Module | None) -> DistributedDataParallel | None:
    """The DistributedDataParallel that the model is, also behind torch.compile."""
    inner: object = getattr(model, "_orig_mod", model)
    return inner if isinstance(inner, DistributedDataParallel) else None


def unwrapped(model: nn.Module) -> nn.Module:
    """The model without DistributedDataParallel, which puts "module." before every name."""
    ddp = ddp_of(model)
    inner: nn.Module = model if ddp is None else ddp.module
    return inner


def check_ddp(ddp: DistributedDataParallel) -> None:
    """Refuse settings under which rows would be lost, or be others than those of the plain training (RuntimeError)."""
    if ddp.gradient_as_bucket_view:
        raise RuntimeError(
            "model is a DistributedDataParallel with gradient_as_bucket_view=True, which overwrites the gradients of "
            "one task with those of the next; build it with gradient_as_bucket_view=False"
        )
    if ddp.static_graph:
        raise RuntimeError(
            "model is a DistributedDataParallel with static_graph=True, which torch cannot combine with no_sync(); "
            "build it without"
        )
    if getattr(ddp, "mixed_precision", None) is not None:
        raise RuntimeError(
            "model is a DistributedDataParallel with mixed_precision=, whose hooks cast gradients when it reduces them "
            "itself; use torch.autocast"
        )
    if getattr(ddp, "_comm_hooks", None):
        raise RuntimeError(
            "model is a DistributedDataParallel with a communication hook, which would never run: the optimizer "
            "reduces the gradients of all tasks itself; build the model without register_comm_hook()"
        )
    if getattr(ddp, "_delay_all_reduce_params", None):
        raise RuntimeError(
            "model is a DistributedDataParallel with delay_all_reduce_named_params=, whose reduction cannot be "
            "replaced; build it without"
        )


def check_ignored(ddp: DistributedDataParallel, parameters: Sequence[Tensor], names: Sequence[str]) -> None:
    """Refuse to train parameters that DistributedDataParallel was told to leave alone (RuntimeError)."""
    reduced = {id(p) for p in ddp.parameters()}
    ignored = set(getattr(ddp, "parameters_to_ignore", ()))
    left_alone = {id(p) for name, p in ddp.module.named_parameters() if name in ignored}
    for p, name in zip(parameters, names, strict=True):
        if p.requires_grad and (id(p) not in reduced or id(p) in left_alone):
            raise RuntimeError(
                f"parameter {name} is in the optimizer, but DistributedDataParallel does not reduce its gradient; "
                "give it an optimizer of its own or let DistributedDataParallel have it"
            )


def wrapper_of(parameters: Sequence[Tensor]) -> DistributedDataParallel | None:
    """A DistributedDataParallel somewhere in this process that has one of the parameters."""
    wanted = {id(p) for p in parameters}
    for x in gc.get_objects():
        if issubclass(type(x), DistributedDataParallel) and any(id(p) in wanted for p in x.parameters()):
            found: DistributedDataParallel = x
            return found
    return None


class Forwards:
    """Whether the forward of a DistributedDataParallel runs where it should: inside the blocks that capture.

    It keeps an attribute, `require_forward_param_sync`: True after a forward that is followed by a reduction, False
    after one under `no_sync`. Left at 0, which it takes for False, it tells whether there was any.
    """

    def __init__(self, ddp: DistributedDataParallel) -> None:
        self._ddp, self._is_known = ddp, False

    @contextmanager
    def inside(self, what: str) -> Iterator[None]:
        """No reduction, and no broadcast of buffers: not every process has every task.

        Raises:
            RuntimeError: a forward that will be reduced ran outside, or none ran inside; the join context.
        """
        ddp = self._ddp
        if getattr(getattr(ddp, "_join_config", None), "enable", False):
            raise RuntimeError(
                f"{what} was opened inside join() of DistributedDataParallel; leave join() out: a process "
                "without batches calls finish() and step() as often as the others, which is enough"
            )
        if DistributedDataParallel._get_active_ddp_module() is ddp and not ddp.require_backward_grad_sync:
            yield  # inside a forward of it that is not followed by a reduction, as Lightning runs its steps
            return
        before = ddp.require_forward_param_sync
        if before and self._is_known:
            raise RuntimeError(
                f"a forward of the DistributedDataParallel model ran outside of {what}; its backward would average the "
                "gradients of whatever task comes next: run it inside, under torch.no_grad() or under no_sync()"
            )
        ddp.require_forward_param_sync = 0  # type: ignore[assignment]
        with ddp.no_sync():
            yield
        if before and ddp.require_forward_param_sync is not False and any(p.grad is not None for p in ddp.parameters()):
            ddp.require_forward_param_sync = before
            raise RuntimeError(
                f"gradients came in {what}, but the forward of the DistributedDataParallel model ran outside of it, "
                "where the gradients of several tasks are mixed; forward and backward go inside"
            )
        ddp.require_forward_param_sync, self._is_known = False, True

    def share_buffers(self, processes: Processes) -> None:
        """Give all processes the buffers of the first, as DistributedDataParallel does at the next forward."""
        ddp = self._ddp
        wanted = getattr(ddp, "forward_sync_buffers", None)
        if wanted is None:  # before torch 2.13
            wanted = ddp.broadcast_buffers
        buffers = [x for x in getattr(ddp, "modules_buffers", []) if x.numel()]
        if wanted and buffers:
            processes.from_first_(buffers)
