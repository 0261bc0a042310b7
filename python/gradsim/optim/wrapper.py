"""An optimizer around another one: it collects the gradients task by task, corrects them, lets the base step."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from gradsim.distributed import AVERAGES, EXCHANGES, Group
from gradsim.gradients.buffer import GradientBuffer
from gradsim.gradients.granularity import Expression, Granularity, Spec
from gradsim.one_backward import Pool
from gradsim.optim import arguments, checks
from gradsim.optim.losses import BackwardFn, Losses, by_task, run_backward
from gradsim.optim.memory_costs import plan_for
from gradsim.optim.memory_plan import MemoryPlan
from gradsim.optim.mixed_batch import MixedBatches
from gradsim.optim.parameters import Layout, flattened, layout_of, with_group
from gradsim.optim.spreading import Spreading, check_ready_losses
from gradsim.optim.surgery import Surgery
from gradsim.optim.untraced import leave_untraced, untraced

if TYPE_CHECKING:
    from gradsim.similarity import Similarity

STATE_KEY = "gradient_surgery"


class SurgeryOptimizer(MixedBatches):
    """What `GradVac` and `PCGrad` share; the arguments are theirs.

    Attributes:
        base: the base optimizer; `param_groups`, `state` and `defaults` are always its own.
        surgery: the `Surgery` that corrects; its `state_dict` can be saved apart, for frameworks that drop unknown
            keys.
        tasks: the names of the tasks.
        buffer: the `GradientBuffer` with what has been captured.
    """

    def __init__(
        self,
        base: torch.optim.Optimizer,
        *,
        method: str,
        tasks: Sequence[str],
        model: nn.Module | None = None,
        granularity: Granularity | Spec = "all_layer",
        exclude: Expression | Sequence[Expression] = (),
        storage: str = "autograd",
        rows_dtype: torch.dtype | None = None,
        process_group: Group | None = None,
        average: str = "world",
        exchange: str = "auto",
        **options: Any,
    ) -> None:
        if not isinstance(base, torch.optim.Optimizer):
            raise TypeError(f"base must be a torch.optim.Optimizer, not {type(base).__name__}")
        if isinstance(base, SurgeryOptimizer):
            raise TypeError(f"base must be a plain optimizer, not a {type(base).__name__}")
        if model is not None:
            checks.check_model(model)
        granularity = Granularity.of(granularity, exclude)
        tasks = arguments.task_names(tasks)
        arguments.one_of("average", average, AVERAGES)
        arguments.one_of("exchange", exchange, EXCHANGES)
        layout = layout_of(base.param_groups, granularity, model)
        surgery = Surgery(method, tasks=tasks, names=layout.names, granularity=granularity, **options)
        self._set_up(base, surgery, GradientBuffer(layout.parameters, len(tasks), storage, rows_dtype), model, layout)
        self._processes = Spreading(process_group, average, exchange)

    def _set_up(
        self,
        base: torch.optim.Optimizer,
        surgery: Surgery,
        buffer: GradientBuffer,
        model: nn.Module | None,
        layout: Layout,
    ) -> None:
        leave_untraced()
        self._delegate_to(base)
        self.surgery, self.buffer = surgery, buffer
        self._model, self._layout = model, layout
        self._processes = Spreading()
        self._open = None
        self._is_used = False  # a task has been captured, or a warning has said that none was
        self._streamed, self._plain, self._verified = None, {}, False
        self._pool = Pool()
        self._zeroed: dict[int, tuple[Tensor, int]] = {}  # what zero_grad(set_to_none=False) left, with its version

    def __repr__(self) -> str:
        return f"{type(self).__name__}(tasks={self.tasks}, base={self.base!r})"

    @property
    def model(self) -> nn.Module | None:
        """The model; set it to what a framework has made of it (DistributedDataParallel, torch.compile, FSDP2).

        How the gradients are spread over processes is found out anew at the next capture. Parameters keep the names
        they have; new ones get theirs from the new model.

        Raises:
            RuntimeError: in the middle of a step; wrappers that are refused. TypeError: no module.
        """
        return self._model

    @model.setter
    def model(self, model: nn.Module) -> None:
        if self._open is not None or self._in_step():
            raise RuntimeError("model was set in the middle of a step; call finish() or zero_grad() first")
        checks.check_model(model)
        if model is not self._model:
            self._model = model
            self._processes.forget()

    @contextmanager
    def task(self, name: str) -> Iterator[None]:
        """Capture the gradients of one task: forward and backward go inside. Several micro-batches of a task
        accumulate.

        Raises:
            ValueError: an unknown task.
            RuntimeError: a task inside another; gradients in `p.grad` that were not captured (call `zero_grad()`
                first); gradients that require grad. TypeError: sparse, complex or float8 gradients. Whatever is raised
                inside the block passes through; the gradients of this task are then dropped for this step, those of the
                other tasks stay.
        """
        if name not in self.tasks:
            raise ValueError(f"unknown task {name!r}; the tasks are {self.tasks}")
        if self._open is not None:
            raise RuntimeError(f"task({name!r}) was opened inside {self._open}; close that first")
        self._begin(f"task({name!r})")
        t = self.tasks.index(name)
        self.buffer.open(t)
        self._open = f"task({name!r})"
        try:
            with self._processes.capturing(self._model, self._open):
                yield
            checks.check_gradients([p.grad for p in self.buffer.parameters], self._layout.names, name)
        except BaseException:
            self.buffer.discard(t)
            raise
        else:
            self.buffer.close(t)
            self._processes.blocks.append(t)
        finally:
            self._open = None

    def backward(self, losses: Losses, backward_fn: BackwardFn | None = None) -> None:
        """Capture all tasks at once, from losses whose forwards have been run.

        Args:
            losses: a dict from task to loss, or a list with one loss per task; None: the task is absent.
            backward_fn: what to call instead of `loss.backward`, such as `accelerator.backward`. It gets
                `retain_graph=True` for all losses but the last, if it takes such an argument.

        Raises:
            ValueError, TypeError: unknown tasks, a list of another length, no tensor. And what `task` raises.
            RuntimeError: a DistributedDataParallel or FSDP2 model, whose forwards must be in the blocks of the tasks.
        """
        check_ready_losses(self._model)
        pairs = by_task(losses, self.tasks)
        for i, (name, loss) in enumerate(pairs):
            with self.task(name):
                run_backward(loss, backward_fn, retain_graph=i < len(pairs) - 1)

    def pc_backward(self, losses: Losses, backward_fn: BackwardFn | None = None) -> None:
        """Another name of `backward`, known from other packages."""
        self.backward(losses, backward_fn)

    @untraced
    @torch.no_grad()
    def finish(self) -> None:
        """Correct and combine what was captured and leave the result in `p.grad`; clip and unscale after it, before
        `step`.

        A second call does nothing. A parameter that no task reached keeps the `p.grad` it had.

        Raises:
            RuntimeError: inside a task; or a gradient came into `p.grad` outside of all tasks.
        """
        if self._open is not None:
            raise RuntimeError(f"finish() was called inside {self._open}; leave it first")
        if not self._in_step() and not self._is_awaited():
            return
        self._processes.check_lost()
        self._check_grads("after the last task")
        try:
            combined = self._combined()
        except BaseException:
            if self._processes.replicas is not None:
                self._forget()  # rows have been given up on the way
            raise
        for p, gradient in zip(self.buffer.parameters, combined, strict=True):
            if gradient is not None:
                p.grad = gradient
        self._forget()
        self._zeroed = {}
        self._processes.is_finished = True

    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """`finish()` and the step of the base optimizer; a plain base step if nothing was captured.

        With a closure, `finish()` follows each of its evaluations. A plain step with gradients in p.grad, before any
        task was ever captured, warns once.
        """
        self._warn_of_plain_steps()
        if closure is None:
            self.finish()  # else what was captured before belongs to the same step as what the closure captures
        result = self._step_base(closure, self.finish)
        self._processes.is_finished = False
        return result

    def zero_grad(self, set_to_none: bool = True) -> None:
        """The base optimizer's, and what has been captured for the step is dropped.

        Raises:
            RuntimeError: inside a task.
        """
        if self._open is not None:
            raise RuntimeError(f"zero_grad() was called inside {self._open}; leave it first")
        self._forget()
        self._processes.is_finished = False
        self.base.zero_grad(set_to_none=set_to_none)
        kept = {} if set_to_none else {id(p): p.grad for p in self.buffer.parameters if p.grad is not None}
        self._zeroed = {key: (gradient, gradient._version) for key, gradient in kept.items()}

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add a group to the base optimizer; targets are carried over by the names of the granularity's groups.

        Raises:
            RuntimeError: between the first task of a step and `finish()`. ValueError, TypeError: as in the constructor;
                nothing is changed then.
        """
        if self._open is not None or self._in_step():
            raise RuntimeError(
                "add_param_group() was called in the middle of a step; call finish() or zero_grad() first"
            )
        if not isinstance(param_group, dict) or "params" not in param_group:
            raise TypeError("param_group must be a dict with the key 'params'")
        params = param_group["params"]
        param_group = {**param_group, "params": [params] if isinstance(params, Tensor) else list(params)}
        layout = self._layout_of(with_group(self.base.param_groups, param_group))
        self.base.add_param_group(param_group)
        self._regroup(layout)

    def similarity(self) -> Similarity:
        """The running mean of the cosines between the task gradients, per group: see `Surgery.similarity`."""
        return self.surgery.similarity()

    def memory_plan(self, world: int | None = None) -> MemoryPlan:
        """What gradients will take with the present storage and with every other, before anything has run: print it.

        It is an estimate for steps in which all tasks reach all parameters. The world: so many processes; None: those
        that are there.
        """
        return plan_for(self.buffer, self._layout.groups, world or self._processes.size(self._model))

    def statistics(self) -> dict[str, Any]:
        """Share of corrections, mean cosines, time: see `Surgery.statistics`."""
        return self.surgery.statistics()

    def state_dict(self) -> dict[str, Any]:
        """The base optimizer's with one more key, `"gradient_surgery"`; a plain base optimizer loads it too."""
        return self._state_dict_with(STATE_KEY, self.surgery.state_dict)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Load what `state_dict` gave; the state of a plain base optimizer leaves the surgery as it is.

        Raises:
            ValueError, TypeError: as `Surgery.load_state_dict` and the base optimizer; nothing is changed then.
        """
        surgery = self.surgery
        self._load_state_dict_with(STATE_KEY, state_dict, surgery.check_state_dict, surgery.load_state_dict)
        self._processes.doubt()

    def __getstate__(self) -> dict[str, Any]:
        # As torch's optimizers: no hooks and no gradients, so nothing that was captured; and not the model, only its
        # names.
        return {
            "base": self.base,
            "surgery": self.surgery,
            "names": self._layout.names,
            "storage": self.buffer.storage,
            "rows_dtype": self.buffer.rows_dtype,
            "processes": self._processes,
        }

    def __setstate__(self, state: dict[str, Any]) -> None:
        base, surgery = state["base"], state["surgery"]
        parameters = flattened(base.param_groups)
        layout = Layout(parameters, state["names"], surgery.groups)
        buffer = GradientBuffer(parameters, len(surgery.tasks), state["storage"], state.get("rows_dtype"))
        self._set_up(base, surgery, buffer, None, layout)
        self._processes = state["processes"]

    @untraced
    def _begin(self, what: str) -> None:
        """Before a capture: what must hold, for a first one of a step and for a further one."""
        self._refuse_after_last(what)
        self._processes.check_lost()
        self._is_used = True
        started = self._in_step()
        if not started:
            self._refresh()
            self._processes.find(self._model, self._layout, self.buffer)
        self._check_grads("between two tasks" if started else "before the first task of the step")

    def _warn_of_plain_steps(self) -> None:
        """Say once that a training that never opened a task is one without surgery: it would go unnoticed."""
        if self._is_used or self._is_initializing() or not self._has_uncaptured():
            return
        self._is_used = True
        warnings.warn(
            f"step() found gradients that no task has captured, so this is a plain step of {type(self.base).__name__}; "
            "run forward and backward inside task() or mixed_batch()",
            stacklevel=3,
        )

    def _is_awaited(self) -> bool:
        """Whether other processes may have captured something, and wait for this one in `finish`."""
        if self._processes.is_finished and any(p.grad is not None for p in self.buffer.parameters):
            return False
        if self._is_initializing():
            return False
        if not self._processes.may_be_several(self._model):
            return False
        self._refresh()
        self._processes.find(self._model, self._layout, self.buffer)
        return self._processes.replicas is not None

    def _is_initializing(self) -> bool:
        """Whether torch's distributed checkpoint is making the state of the base optimizer.

        It does so by a step with learning rates of 0 and gradients that no task has captured, perhaps on one rank only.
        """
        return all(float(group.get("lr", 1.0)) == 0.0 for group in self.param_groups) and self._has_uncaptured()

    def _has_uncaptured(self) -> bool:
        """Whether p.grad holds more than what `zero_grad` has left there."""
        kept = {id(gradient) for gradient, _ in self._zeroed.values()}
        return any(p.grad is not None and id(p.grad) not in kept for p in self.buffer.parameters)

    def _check_grads(self, when: str) -> None:
        """Refuse a gradient in p.grad that no task has captured: it would be lost, or counted for the wrong task."""
        for p, name in zip(self.buffer.parameters, self._layout.names, strict=True):
            gradient = p.grad
            if gradient is None:
                continue
            zero, version = self._zeroed.get(id(p), (None, 0))
            if gradient is not zero or gradient._version != version:
                raise RuntimeError(
                    f"{name} has a gradient in p.grad that no task has captured ({when}); call zero_grad() after each "
                    "step and run every backward inside task()"
                )

    def _refresh(self) -> None:
        """Follow frameworks that have replaced the parameters of the base optimizer, and look for new hooks."""
        parameters = flattened(self.base.param_groups)
        if [id(p) for p in parameters] != [id(p) for p in self.buffer.parameters]:
            self._regroup(self._layout_of(self.base.param_groups))
        for p, name in zip(self.buffer.parameters, self._layout.names, strict=True):
            checks.check_hooks(p, name)

    def _layout_of(self, param_groups: Sequence[Any]) -> Layout:
        known = {id(p): name for p, name in zip(self._layout.parameters, self._layout.names, strict=True)}
        return layout_of(param_groups, self.surgery.granularity, self._model, known)

    def _regroup(self, layout: Layout) -> None:
        self.buffer = self.buffer.renewed(layout.parameters)
        self._processes.forget()
        self.surgery.regroup(layout.names, layout.groups)
        self._layout = layout
        self._zeroed, self._verified = {}, False
