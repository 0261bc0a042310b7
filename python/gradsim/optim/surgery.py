"""The core of gradient surgery: task gradients in, one combined gradient out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from gradsim.distributed import ddp_of, is_sharded
from gradsim.gradients.granularity import Expression, Granularity, Groups, Spec
from gradsim.optim import arguments, checks
from gradsim.optim import statistics as measured
from gradsim.optim.columns import Rows
from gradsim.optim.plan import Plan
from gradsim.optim.state import VERSION, SurgeryState, check_groups, check_saved
from gradsim.optim.step import SurgeryStep
from gradsim.optim.timing import StepTimer
from gradsim.optim.weighed import GroupWeightings, WeighedStep
from gradsim.optim.weighting import Weighting

if TYPE_CHECKING:
    from gradsim.distributed import Spread
    from gradsim.similarity import Similarity


class Surgery:
    """GradVac or PCGrad on lists of gradients, for those who have their own training loop.

    GradVac (Wang, Tsvetkov, Firat and Cao, ICLR 2021, Algorithm 1) bends the gradient g'_i of every task, group by
    group, until its cosine to every other task's g_j is at least a running target phi_hat_ij; PCGrad (Yu et al.,
    NeurIPS 2020, Algorithm 1) is the case phi_hat = 0. The result is the sum of all g'_i. Nothing waits for a GPU.

    Args:
        method: `"gradvac"` or `"pcgrad"`.
        tasks: the names of the tasks, in the order of the rows; None: `"0"`, `"1"`, ... at the first call.
        names: the names of the parameters, in the order of the tensors of a row.
        model: takes the names from `model.named_parameters()` instead; the rows then have an entry for each of them.
            With neither, tensors are called `"0"`, `"1"`, ...; `"all_layer"` then means one group per tensor.
        granularity, exclude: see `gradsim.Granularity`.
        beta: the decay of the targets (Eq. 3 of GradVac), in [0, 1].
        order: `"random"` (the papers: drawn anew for each step, group and task) or `"ascending"` (j = 0, 1, 2, ...).
        seed: of the random orders, which depend on it, the step, the group and the task only.
        reduction: `"sum"` (the papers) or `"mean"`: divided by the number of tasks present.
        vaccinate: the names of the tasks to correct; None: all. The others contribute their gradients as they are.
        max_target: a target counts as at most this much when it is compared and aimed at, in (0, 1]; 1.0 gives the
            paper's.
        monitor: measure only; the result is the plain sum (or mean).
        weighting: somebody else's weights instead of the method's: for each group a function from the Gramian of the
            tasks present, float64 [m, m] on the CPU, to their weights [m], such as a weighting of TorchJD. See
            docs/optimizers.md.

    Raises:
        ValueError, TypeError: a name or value that is unknown, doubled or out of range.
        RuntimeError: a DistributedDataParallel.
    """

    def __init__(
        self,
        method: str = "gradvac",
        *,
        tasks: Sequence[str] | None = None,
        names: Sequence[str] | None = None,
        model: nn.Module | None = None,
        granularity: Granularity | Spec = "all_layer",
        exclude: Expression | Sequence[Expression] = (),
        beta: float = 1e-2,
        order: str = "random",
        seed: int = 0,
        reduction: str = "sum",
        vaccinate: Sequence[str] | None = None,
        max_target: float = 0.999,
        monitor: bool = False,
        weighting: Weighting | None = None,
    ) -> None:
        self.method = arguments.one_of("method", method, arguments.METHODS)
        self.granularity = Granularity.of(granularity, exclude)
        self.beta = arguments.number("beta", beta, 0.0, 1.0)
        self.order = arguments.one_of("order", order, arguments.ORDERS)
        self.seed = arguments.seed(seed)
        self.reduction = arguments.one_of("reduction", reduction, arguments.REDUCTIONS)
        self.max_target = arguments.number("max_target", max_target, 0.0, 1.0, open_below=True)
        self.monitor = arguments.flag("monitor", monitor)
        if weighting is not None and vaccinate is not None:
            raise ValueError("give vaccinate= or weighting=, not both: a weighting weighs all tasks")
        self.weightings = None if weighting is None else GroupWeightings(weighting)
        self.tasks = None if tasks is None else arguments.task_names(tasks)
        if self.tasks is not None:
            arguments.vaccinated(vaccinate, self.tasks)
        elif vaccinate is not None:
            arguments.strings("vaccinate", vaccinate)
        self.vaccinate = vaccinate
        if model is not None:
            if names is not None:
                raise ValueError("give names= or model=, not both")
            checks.check_model(model)
            if ddp_of(model) is not None:
                raise RuntimeError(
                    "model is a DistributedDataParallel, but a Surgery knows the gradients of this process only: "
                    "average those of each task over the processes and give model.module, or use GradVac or PCGrad"
                )
            names = [name for name, _ in model.named_parameters()]
        self.names = None if names is None else arguments.strings("names", names)
        self.groups: Groups | None = None if self.names is None else self.granularity.groups(self.names)
        self._state: SurgeryState | None = None
        self._pending: Mapping[str, Any] | None = None  # a state that was loaded before the first call
        self._timer = StepTimer()
        if self.tasks is not None and self.groups is not None:
            self.prepare(torch.device("cpu"))  # it moves to where the gradients are

    def __call__(self, gradients: Sequence[Sequence[Tensor | None]], *, in_place: bool = False) -> list[Tensor | None]:
        """Correct and combine the gradients of one step.

        Args:
            gradients: for each task a list with one tensor (float16, bfloat16, float32 or float64) or None per
                parameter. A task with nothing but None is absent: it corrects nothing and keeps its targets.
            in_place: the result may be written into the tensors of the tasks; by default they are left alone.

        Returns:
            One tensor per parameter in the dtype of its gradients; None where no task has one. Where a single task has
            one, that tensor itself, neither corrected nor divided.

        Raises:
            ValueError: rows of different lengths, another number of tasks or tensors than before, wrong shapes.
            TypeError: sparse, complex or float8 gradients. RuntimeError: gradients that require grad.
        """
        known, pending = (self.tasks, self.names, self.groups), self._pending
        tasks, names, groups = self._fitting(gradients)
        for row, task in zip(gradients, tasks, strict=True):
            checks.check_gradients(row, names, task)
            if any(is_sharded(x) for x in row):
                raise RuntimeError(
                    f"the gradients of task {task!r} are DTensors, of which a Surgery would see the parts of this "
                    "process only; use GradVac or PCGrad with model="
                )
        self.tasks, self.names, self.groups = tasks, names, groups
        try:
            return self.run(gradients, in_place=in_place)
        except (TypeError, ValueError, RuntimeError):
            if None in known:  # a first call that was refused has told nothing
                (self.tasks, self.names, self.groups), self._pending, self._state = known, pending, None
            raise

    def prepare(self, device: torch.device) -> SurgeryState:
        """Allocate the state on the device of the gradients, or move it there; names and tasks must be known."""
        if self.tasks is None or self.groups is None:
            raise RuntimeError("the surgery does not know its tasks and parameters before the first call")
        if self._state is not None and self._state.device == device:
            return self._state
        if self._state is None:
            self._state = SurgeryState(self.tasks, self.groups.names, device)
            if self._pending is not None:
                self._state.load(self._pending)
                if self.weightings is not None:
                    self.weightings.load(self._pending["weighting"], self.tasks)
                self._pending = None
        else:
            self._state.to(device)
        self._plan = Plan(self.groups, arguments.vaccinated(self.vaccinate, self.tasks), device)
        return self._state

    @torch.no_grad()
    def run(
        self,
        gradients: Rows,
        *,
        in_place: bool = False,
        out: Sequence[Tensor] | None = None,
        spread: Spread | None = None,
    ) -> list[Tensor | None]:
        """`__call__` for gradients that have been checked already, by a caller that knows tasks and names.

        `out`: contiguous tensors, one per parameter, that the result is written to. `spread`: the gradients are the
        parts of this process.
        """
        device = next((x.device for row in gradients for x in row if x is not None), None)
        if device is None:
            return [None] * len(gradients[0])
        with self.timed(device):
            step = self.begin(device, sum(any(x is not None for x in row) for row in gradients), spread)
            result = step.run(gradients, in_place=in_place, out=out)
            step.commit()  # last: gradients that are refused on the way leave no trace
        return result

    def begin(self, device: torch.device, present: int, spread: Spread | None = None) -> SurgeryStep:
        """The surgery of one step, for a caller that goes group by group; `present`: the tasks that take part."""
        return SurgeryStep(self, self.prepare(device), self._plan, present, spread)

    def weighed(self, state: SurgeryState) -> WeighedStep | None:
        """The weights of one step, where they are somebody else's."""
        if self.weightings is None or self.monitor:
            return None
        return WeighedStep(self.weightings, state.groups, state.tasks, self.seed, state.tensors["step"])

    def timed(self, device: torch.device, *, steps: int = 1) -> AbstractContextManager[None]:
        """Measure a block for `statistics`; a part of a step that is not its last counts as no step."""
        return self._timer.measure(device, steps)

    def _fitting(self, gradients: Rows) -> tuple[list[str], list[str], Groups]:
        """Check the lengths; tasks, names and groups, which the first call tells where the constructor was not told."""
        if not isinstance(gradients, Sequence) or not gradients:
            raise TypeError("gradients must be a list over tasks of lists of tensors (None: no gradient)")
        lengths = {len(row) for row in gradients}
        if len(lengths) > 1:
            raise ValueError(
                f"every task must have an entry for every parameter (None: no gradient), but the rows "
                f"have {sorted(lengths)}"
            )
        P = lengths.pop()
        tasks = [str(t) for t in range(len(gradients))] if self.tasks is None else self.tasks
        names = [str(p) for p in range(P)] if self.names is None else self.names
        if len(gradients) != len(tasks):
            raise ValueError(
                f"gradients must have one row for each of the {len(tasks)} tasks (nothing but None for an absent one), "
                f"not {len(gradients)}"
            )
        if len(names) != P:
            raise ValueError(f"each row must have one entry for each of the {len(names)} parameters, not {P}")
        if self.groups is not None and self.tasks is not None:
            return tasks, names, self.groups
        arguments.vaccinated(self.vaccinate, tasks)
        groups = self.groups or self.granularity.groups(names)
        if self._pending is not None:
            check_groups(self._pending["groups"], groups.names)
        return tasks, names, groups

    def regroup(self, names: Sequence[str], groups: Groups) -> None:
        """Take over another list of parameters; a group of the same name keeps its targets and measurements."""
        self.names, self.groups = list(names), groups
        if self._state is not None:
            self._state = self._state.with_groups(groups.names)
            self._plan = Plan(groups, arguments.vaccinated(self.vaccinate, self._state.tasks), self._state.device)

    def similarity(self) -> Similarity:
        """The cosines between the gradients of the tasks, averaged over the steps so far, on the CPU.

        `.cosine`, `.std` (of the single steps, divided by their number) and `.count` are `[G, T, T]`, `.norms` `[G,
        T]`. A pair counts in a step where both were present with a gradient that is not zero; what never counted is
        NaN. Norms carry the loss scale under a GradScaler; cosines do not.

        Raises:
            RuntimeError: before the first call, if the tasks are not known yet.
        """
        return measured.similarity(self._known_state("similarity"))

    def statistics(self) -> dict[str, Any]:
        """What happened so far, read from the device only now.

        Returns:
            `steps`: steps with something to correct; `skipped`: those among them that were not finite and left no trace
            (not in `steps`); `corrections`: share of the visits (i, j, group) in which g'_i was corrected; `negative`:
            share in which the cosine of g_i and g_j was below 0 (also with `monitor=True`: how often PCGrad would have
            had work); `cosine_mean` and `cosine` (per group): mean cosine over pairs of different tasks; `ms`: mean
            time of the surgery per step. NaN where nothing was measured. All but `ms` are part of the state. With a
            `weighting`, which does not tell whom it corrects, `corrections` is 0.
        """
        return measured.statistics(self._known_state("statistics"), self._timer.mean_ms())

    def _known_state(self, what: str) -> SurgeryState:
        if self._state is None:
            raise RuntimeError(f"{what}() has nothing to report before the first call")
        return self._state

    def state_dict(self) -> dict[str, Any]:
        """Everything a fresh object needs to go on bit for bit: tensors, numbers, strings, lists and dicts only.

        `torch.load(weights_only=True)` reads it. Tasks that were loaded but are not trained here are in it too.
        """
        head = {"version": VERSION, "method": self.method, "seed": self.seed}
        if self._state is not None:
            own = {} if self.weightings is None else {"weighting": self.weightings.save()}
            return {**head, **self._state.save(), **own}
        return {**head, **(self._pending or {})}

    def check_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Raise what `load_state_dict` would raise, and change nothing."""
        if not isinstance(state_dict, Mapping):
            raise TypeError(f"the surgery state must be a dict, not {type(state_dict).__name__}")
        if state_dict.get("version") != VERSION:
            raise ValueError(
                f"the surgery state has the version {state_dict.get('version')!r}; this package reads {VERSION}"
            )
        if state_dict.get("method") != self.method:
            raise ValueError(
                f"the surgery state is one of {state_dict.get('method')!r} and cannot go on as {self.method!r}"
            )
        arguments.seed(state_dict.get("seed"))
        if set(state_dict) == {"version", "method", "seed"}:
            return  # saved before the first call
        check_saved(state_dict)
        if self.groups is not None:
            check_groups(state_dict["groups"], self.groups.names)
        if self.weightings is not None:
            self.weightings.check(state_dict.get("weighting"), self.tasks)
        elif "weighting" in state_dict:
            name = dict(state_dict["weighting"]).get("name")
            raise ValueError(f"the surgery state is one of weighting={name} and cannot go on without it")

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Go on where `state_dict` was made, with its seed. Tasks and groups are matched by name.

        A task that is new here starts at 0; tasks that are not trained here are kept aside and saved again, with one
        warning.

        Raises:
            ValueError, TypeError: a state of another method, of other groups or shapes; nothing is changed then.
        """
        self.check_state_dict(state_dict)
        self.seed = state_dict["seed"]
        if "tensors" not in state_dict:
            self._pending = None
            if self._state is not None:
                self._state = SurgeryState(self._state.tasks, self._state.groups, self._state.device)
            if self.weightings is not None:
                self.weightings.forget()
        elif self._state is None:
            kept = ("tasks", "groups", "tensors", "weighting")
            self._pending = {key: state_dict[key] for key in kept if key in state_dict}
        else:
            self._state.load(state_dict)
            if self.weightings is not None:
                self.weightings.load(state_dict["weighting"], self._state.tasks)
