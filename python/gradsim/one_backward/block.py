"""One mixed batch: forward and backward inside, task gradients out."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import _get_current_function_mode_stack

from gradsim.one_backward.collector import Begun, Collector, Sink, SpaceOf
from gradsim.one_backward.eager import eager
from gradsim.one_backward.follow import Follow
from gradsim.one_backward.passed import passed_on
from gradsim.one_backward.rules import RULES, WATCHED, each_task
from gradsim.one_backward.samples import Samples
from gradsim.one_backward.scale import Scale


@contextmanager
def mixed(
    parameters: Sequence[Tensor],
    names: Sequence[str],
    samples: Samples,
    sink: Sink,
    *,
    skipped: Sequence[int] = (),
    model: nn.Module | None = None,
    scale: Scale | None = None,
    second_pass: bool = False,
    space: SpaceOf | None = None,
    passing: Sequence[nn.Module] = (),
    begun: Begun | None = None,
) -> Iterator[Collector]:
    """Run the forward and the one backward of a mixed batch inside; `sink` gets the task gradients of each parameter.

    Nothing is put on the model or its parameters. `p.grad` must be None for all parameters when the block begins.

    Args:
        parameters, names: P parameters with their names.
        samples: which sample belongs to which task.
        sink: gets the rows of each parameter once, during backward or at the end of the block.
        skipped: numbers of parameters that are left to autograd: their gradient comes into `p.grad`.
        model: its buffers are known to have no samples, and its modules are checked.
        scale: the factors of the tasks.
        second_pass: keep what `Collector.total` needs.
        space: where task gradients may be written.
        passing: see `passed_on`.
        begun: told at the beginning of the backward how often it will reach each parameter (None: not known).

    Raises:
        RuntimeError: a module or function that couples the samples, or whose gradient cannot be split; a gradient that
            came to a parameter past all functions that are followed.
    """
    collector = Collector(parameters, names, samples, sink, second_pass)
    collector.space_of, collector.begun = space, begun
    watched = dict(WATCHED)
    if scale is not None:
        collector.factors = scale.factors
        if scale.counts_tokens:
            watched[F.cross_entropy] = lambda f, func, args, kwargs: (
                None if f.collector.in_backward else scale.count(func, args, kwargs)
            )
    if len(samples.present) == 1 and (scale is None or scale.needs_no_split) and not passing:
        yield from _alone(collector, skipped)
        return
    if second_pass:
        hooked = [name for p, name in zip(parameters, names, strict=True) if p._backward_hooks]
        if hooked:
            raise RuntimeError(f"{hooked[0]} has a hook on its gradient, which second_pass=True never makes")
    constants = [] if model is None else _constants(model)
    follow = Follow(collector, skipped, constants, RULES, each_task, watched)
    with eager(), passed_on(passing, follow), follow:
        yield collector
    for i, (p, name) in enumerate(zip(parameters, names, strict=True)):
        if p.grad is not None and i not in skipped:
            raise RuntimeError(
                f"{name} received a gradient that could not be split by task: it was used in a place that is not "
                f"followed (a custom autograd function, a term of the loss without samples), or its inputs have not "
                f"the {samples.size} samples that task_ids names; leave it out with exclude={name!r}, or use "
                "one task() block per task"
            )
    if collector.uses_made and not collector.uses_seen:
        raise RuntimeError("no backward ran in the mixed_batch block; forward and backward go inside")
    collector.flush()


def _alone(collector: Collector, skipped: Sequence[int]) -> Iterator[Collector]:
    """A batch of one task: there is nothing to be split, and autograd does everything."""
    yield collector
    for i, p in enumerate(collector.parameters):
        if p.grad is not None and i not in skipped:
            gradient, p.grad = p.grad, None
            collector.add(p, (i,), gradient.unsqueeze(0), None)
    collector.flush()


def _constants(model: nn.Module) -> list[Tensor]:
    """The tensors of a model: buffers, parameters, and what modules keep as plain attributes."""
    found: list[Tensor] = []
    for module in model.modules():
        for value in vars(module).values():
            if isinstance(value, Tensor):
                found.append(value)
        found += [x for kept in (module._buffers, module._parameters) for x in kept.values() if x is not None]
    return found


def check_surroundings() -> None:
    """Refuse a block inside a compiled function or inside another block, of another optimizer (RuntimeError)."""
    if torch.compiler.is_compiling():
        raise RuntimeError("mixed_batch cannot be compiled; compile the model or the loss, and leave the step as it is")
    if any(isinstance(mode, Follow) for mode in _get_current_function_mode_stack()):
        raise RuntimeError(
            "mixed_batch was opened inside that of another optimizer; give one optimizer the parameters of both"
        )


def check_model(model: nn.Module) -> None:
    """Refuse modules that couple the samples of a batch (RuntimeError, naming the module)."""
    for name, module in model.named_modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm) and (module.training or not module.track_running_stats):
            raise RuntimeError(
                f"mixed_batch cannot split {name or 'the model'}, a {type(module).__name__} in training mode: it "
                "normalises over the samples of all tasks; call .eval() on it, use GroupNorm or LayerNorm, or use one "
                "task() block per task"
            )


def is_sequence_first(model: nn.Module) -> bool:
    """Whether some module expects the samples in the second dimension."""
    return any(getattr(module, "batch_first", None) is False for module in model.modules())
