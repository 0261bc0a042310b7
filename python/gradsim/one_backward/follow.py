"""Follows the parameters through the model, to the places where they meet the samples."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode, resolve_name

from gradsim.one_backward.collector import Collector
from gradsim.one_backward.nodes import Expand, Fork, Tap
from gradsim.one_backward.reach import reachable_uses
from gradsim.one_backward.uses import RowsOf, TotalsOf, Use, per_sample, per_task
from gradsim.one_backward.whereabouts import CREATING, LOST, UNKNOWN, Place, moved, remember_range

_FROM = "_gradsim_from"  # on a tensor that was computed from parameters without samples: (whose, their numbers)
_PLACE = "_gradsim_place"  # on a tensor that was computed in the block: (whose, where it has its samples)

Rule = Callable[["Follow", Callable[..., Any], "tuple[Any, ...]", "dict[str, Any]"], Any]
Watch = Callable[["Follow", Callable[..., Any], "tuple[Any, ...]", "dict[str, Any]"], None]


class Follow(TorchFunctionMode):
    """Sees every torch function of the block and treats those that parameters go into.

    Functions of parameters alone run as they are; their results are followed further. A function of parameters and
    samples is handed to its rule, which runs it with the parameters detached and puts a node (`nodes`) where their
    gradient, still one per sample or task, passes by.

    Args:
        parameters: P parameters, `names` theirs; `skipped` the numbers of those that are left to autograd.
        constants: tensors that have no samples whatever their shape, such as the buffers of the model.
        rules: for a function with parameters and samples what to do; `otherwise` for those that have no rule.
        watched: called before a function without parameters, to refuse or to count.
    """

    def __init__(
        self,
        collector: Collector,
        skipped: Iterable[int],
        constants: Iterable[Tensor],
        rules: dict[Callable[..., Any], Rule],
        otherwise: Rule,
        watched: dict[Callable[..., Any], Watch],
    ) -> None:
        super().__init__()
        self.collector, self.samples = collector, collector.samples
        left = set(skipped)
        self._numbers = {id(p): i for i, p in enumerate(collector.parameters) if p.requires_grad and i not in left}
        self._constants = {id(x) for x in constants}
        self._rules, self._otherwise, self._watched = rules, otherwise, watched
        self._mark = object()
        self._anchors: dict[torch.device, Tensor] = {}
        self._cast: dict[tuple[int, torch.dtype], Tensor] = {}

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if func is Tensor.backward:
            return self._backward_of(*args, **kwargs)
        if func is torch.autograd.backward:
            return self._backward(*args, **kwargs)
        inputs = tensors_in(args, kwargs)
        if torch.is_grad_enabled() and any(self.roots(x) for x in inputs):
            return self._rules.get(func, self._otherwise)(self, func, args, kwargs)
        watch = self._watched.get(func)
        if watch is not None:
            watch(self, func, args, kwargs)
        result = func(*args, **kwargs)
        if isinstance(result, Tensor | tuple | list):
            self._locate(func, args, kwargs, inputs, result)
        return result

    def _locate(
        self, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any], inputs: list[Tensor], result: Any
    ) -> None:
        """Note where the samples are in what a function without parameters returned."""
        if torch._C._functorch.peek_interpreter_stack() is not None:
            return  # inside vmap, which hides a dimension
        remember_range(func, args, kwargs, result)
        # What needs a gradient decides: a mask or an index beside it does not move the samples.
        counted = [x for x in inputs if x.requires_grad] or inputs
        for number, x in enumerate(result if isinstance(result, tuple | list) else (result,)):
            if not isinstance(x, Tensor):
                continue
            place: Place | None
            if not inputs or func in CREATING:
                place = UNKNOWN if x.dim() > 1 else None  # made inside the block: data, or positions
            elif all(self.is_constant(y) for y in inputs):
                place = None
            else:
                place = moved(func, args, kwargs, self.place_of, counted, x, number, self.samples.size)
            if place is not UNKNOWN and not (place != LOST and any(x is y for y in inputs)):
                self.put(x, place)

    def is_constant(self, x: Tensor) -> bool:
        """Whether a tensor is known to have no samples: a buffer, or made of numbers alone."""
        return id(x) in self._constants or getattr(x, _PLACE, None) == (self._mark, None)

    def put(self, x: Tensor, place: Place | None) -> None:
        """Note where a tensor has its samples; None: it has none."""
        setattr(x, _PLACE, (self._mark, place))

    def place_of(self, x: Tensor) -> Place | None:
        """Where a tensor has its samples: what was noted, or what its shape says. None: it has none."""
        if id(x) in self._constants or self.roots(x):
            return None
        whose, place = getattr(x, _PLACE, (None, None))
        if whose is self._mark:
            return place
        dim = self.samples.dim_of(x)
        return None if dim is None else (dim, x.shape[dim] // self.samples.size)

    def _backward_of(
        self,
        loss: Tensor,
        gradient: Tensor | None = None,
        retain_graph: bool | None = None,
        create_graph: bool = False,
        inputs: Any = None,
    ) -> None:
        self._backward(loss, gradient, retain_graph, create_graph, inputs=inputs)

    def _backward(
        self,
        tensors: Tensor | Sequence[Tensor],
        grad_tensors: Any = None,
        retain_graph: bool | None = None,
        create_graph: bool = False,
        grad_variables: Any = None,
        inputs: Any = None,
    ) -> None:
        if create_graph:
            raise RuntimeError(
                "gradient surgery is not differentiable: run backward without create_graph=True in a mixed_batch block"
            )
        if inputs is not None or grad_variables is not None:
            raise RuntimeError("backward(inputs=...) leaves parameters out: use exclude= to leave them to autograd")
        losses = [tensors] if isinstance(tensors, Tensor) else list(tensors)
        if (
            torch._C._current_graph_task_id() == -1
        ):  # not for a reentrant checkpoint, inside of which more backwards run
            self.collector.expect(reachable_uses(losses))
        # No mode takes an edge for itself: this one stays active, for a checkpointed part is computed again inside.
        edges = [torch.autograd.graph.get_gradient_edge(loss) for loss in losses]
        with self:
            torch.autograd.backward(edges, grad_tensors, retain_graph)

    def roots(self, x: Any) -> tuple[int, ...]:
        """The numbers of the parameters that a tensor is, or was computed from without samples; empty: none."""
        number = self._numbers.get(id(x))
        if number is not None:
            return (number,)
        whose, roots = getattr(x, _FROM, (None, ()))
        return roots if whose is self._mark else ()

    def dim_of(self, x: Any, features: int = 0) -> int | None:
        """The dimension of the samples in an argument of a function with parameters; None: it has no samples.

        Raises:
            RuntimeError: it has been computed from samples that cannot be told apart in it any more.
        """
        if not isinstance(x, Tensor) or id(x) in self._constants or self.roots(x):
            return None
        whose, place = getattr(x, _PLACE, (None, None))
        if whose is not self._mark:
            return self.samples.dim_of(x, features)
        if place is None or (place == LOST and not x.dim()):
            return None
        if place == LOST or place[0] >= x.dim() - features:
            raise RuntimeError(
                f"mixed_batch cannot tell apart the {self.samples.size} samples of the batch in a tensor of the shape "
                f"{list(x.shape)} that meets a parameter: it was selected, reordered, merged or summed over samples"
            )
        return place[0]  # type: ignore[no-any-return]

    def plain(self, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Run a function of parameters without samples, and follow its results.

        Raises:
            RuntimeError: an input depends on the samples, and it cannot be told where it has them.
        """
        roots: set[int] = set()
        for x in tensors_in(args, kwargs):
            own = self.roots(x)
            if not own and x.requires_grad:
                self.refuse(
                    func,
                    args,
                    kwargs,
                    f"a tensor of the shape {list(x.shape)}, in which the "
                    f"{self.samples.size} samples of the batch cannot be told apart",
                )
            roots.update(own)
        result = func(*args, **kwargs)
        for x in tensors_in((result,), {}):
            if x.requires_grad and id(x) not in self._numbers:
                setattr(x, _FROM, (self._mark, tuple(sorted(roots))))
        return result

    def tap(
        self, y: Tensor, targets: Sequence[Tensor], rows: RowsOf, totals: TotalsOf | None, dim: int, *saved: Tensor
    ) -> Tensor:
        """Put a node on the output of a function whose parameters were detached."""
        use = Use(self.collector, targets, [self.roots(t) for t in targets], rows, totals, dim)
        return self.tap_with(use, dim, y, *saved)

    def tap_with(self, use: Use, dim: int, y: Tensor, *saved: Tensor) -> Tensor:
        """The same for a use that is made already."""
        return self.located(Tap.apply(y, self._anchor(y), use, *saved), dim)  # type: ignore[no-untyped-call]

    def located(self, x: Tensor, dim: int) -> Tensor:
        """Note that a result has its samples in this dimension."""
        times, rest = divmod(x.shape[dim], self.samples.size)
        self.put(x, LOST if rest else (dim, times))
        return x

    def expand(self, x: Tensor, shape: Sequence[int], dim: int, size: int) -> Tensor:
        """A followed tensor in this shape, with `size` instead of 1 in the dimension of the samples."""
        shape = torch.Size(shape)
        use = Use(self.collector, [x], [self.roots(x)], per_sample(self.samples, dim, shape, x.shape))
        return Expand.apply(x.detach().reshape(shape), self._anchor(x), use, dim, size)  # type: ignore[no-any-return, no-untyped-call]

    def fork(self, x: Tensor) -> tuple[Tensor, ...]:
        """A followed tensor once for each present task."""
        use = Use(self.collector, [x], [self.roots(x)], per_task(x.shape, x.dtype, x.device))
        return Fork.apply(x.detach(), self._anchor(x), use, len(self.samples.present))  # type: ignore[no-any-return, no-untyped-call]

    def lowered(self, weight: Tensor) -> Tensor:
        """A weight without its gradient, in the dtype that autocast wants; cast once a block, as autocast does it."""
        device = weight.device.type
        if not self.roots(weight):
            return weight
        if not torch.is_autocast_enabled(device):
            return weight.detach()
        dtype = torch.get_autocast_dtype(device)
        if id(weight) not in self._numbers:
            return weight.detach().to(dtype)
        if (id(weight), dtype) not in self._cast:
            self._cast[id(weight), dtype] = weight.detach().to(dtype)
        return self._cast[id(weight), dtype]

    def refuse(self, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any], why: str) -> None:
        """Raise a RuntimeError that names the parameter and the function."""
        numbers = sorted({i for x in tensors_in(args, kwargs) for i in self.roots(x)})
        names = ", ".join(self.collector.names[i] for i in numbers[:3]) or "no parameter"
        raise RuntimeError(
            f"mixed_batch cannot split the gradient of {names} by task: {name_of(func)} got {why}; leave it out with "
            f"exclude={self.collector.names[numbers[0]] if numbers else ''!r}, or use one task() block per task"
        )

    def _anchor(self, like: Tensor) -> Tensor:
        if like.device not in self._anchors:
            # So that autograd visits our nodes even where nothing else before them needs a gradient.
            self._anchors[like.device] = torch.zeros((), device=like.device, requires_grad=True)
        return self._anchors[like.device]


def tensors_in(args: Iterable[Any], kwargs: dict[str, Any]) -> list[Tensor]:
    """The tensors among arguments, and in the lists and tuples among them."""
    found: list[Tensor] = []
    for x in (*args, *kwargs.values()):
        if isinstance(x, Tensor):
            found.append(x)
        elif isinstance(x, list | tuple):
            found.extend(tensors_in(x, {}))
    return found


def replaced(x: Any, change: Callable[[Tensor], Any]) -> Any:
    """The argument with every tensor in it changed."""
    if isinstance(x, Tensor):
        return change(x)
    if isinstance(x, list):
        return [replaced(y, change) for y in x]
    if isinstance(x, tuple) and type(x) is tuple:
        return tuple(replaced(y, change) for y in x)
    return x


def name_of(func: Callable[..., Any]) -> str:
    return str(resolve_name(func) or getattr(func, "__name__", func))
