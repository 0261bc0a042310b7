"""Follows the parameters through the model, to the places where they meet the samples."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, NoReturn

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode, resolve_name

from gradsim.one_backward.collector import Collector
from gradsim.one_backward.functions import (
    ADDING,
    COUPLING,
    CREATING,
    EXPANDING,
    LOOKING,
    MULTIPLYING,
    VIEWS,
    is_in_place,
    is_pointwise,
)
from gradsim.one_backward.nodes import Expand, Fork, Tap
from gradsim.one_backward.reach import reachable_uses
from gradsim.one_backward.samples import Place
from gradsim.one_backward.tracked import Tracked, tensors_in
from gradsim.one_backward.uses import RowsOf, TotalsOf, Use, per_sample, per_task
from gradsim.one_backward.whereabouts import LOST, UNKNOWN, after_along, moved, remember_range, written_place

Function = Callable[..., Any]
Arguments = tuple[Any, ...]
Keywords = dict[str, Any]
Rule = Callable[["Follow", Function, Arguments, Keywords], Any]


class Follow(Tracked, TorchFunctionMode):
    """Sees every torch function of the block and treats those that parameters go into.

    Functions of parameters alone run as they are; their results are followed further. A function of parameters and
    samples is handed to its rule, which runs it with the parameters detached and puts a node (`nodes`) where their
    gradient, still one per sample or task, passes by.

    Args:
        collector, skipped, constants: as for `Tracked`.
        rules: for a function with parameters and samples what to do; `otherwise` for those that have no rule.
        watched: called before a function without parameters, to refuse or to count.
    """

    def __init__(
        self,
        collector: Collector,
        skipped: Iterable[int],
        constants: Iterable[Tensor],
        rules: dict[Function, Rule],
        otherwise: Rule,
        watched: dict[Function, Callable[[Follow, Function, Arguments, Keywords], None]],
    ) -> None:
        Tracked.__init__(self, collector, skipped, constants)
        TorchFunctionMode.__init__(self)
        self._rules, self._otherwise, self._watched = rules, otherwise, watched
        self._anchors: dict[torch.device, Tensor] = {}
        self._cast: dict[tuple[int, torch.dtype], Tensor] = {}

    def __torch_function__(
        self, func: Function, types: Any, args: Arguments = (), kwargs: Keywords | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if func in LOOKING:
            return func(*args, **kwargs)
        special = _SPECIALS.get(func)
        if special is not None:
            return special(self, *args, **kwargs)
        if self.collector.in_backward and not torch.is_grad_enabled():
            return func(*args, **kwargs)  # backward itself; what a checkpoint computes again needs gradients
        inputs = tensors_in(args, kwargs)
        if torch.is_grad_enabled() and self.any_followed(inputs):
            return self._rules.get(func, self._otherwise)(self, func, args, kwargs)
        watch = self._watched.get(func)
        if watch is not None:
            watch(self, func, args, kwargs)
        result = func(*args, **kwargs)
        if func is Tensor.__setitem__:
            self._written(args)
        elif isinstance(result, Tensor | tuple | list) and type(result) is not torch.Size:
            self._locate(func, args, kwargs, inputs, result)
        return result

    def _locate(self, func: Function, args: Arguments, kwargs: Keywords, inputs: list[Tensor], result: Any) -> None:
        """Note where the samples are in what a function without parameters returned."""
        if torch._C._functorch.peek_interpreter_stack() is not None:
            return  # inside vmap, which hides a dimension
        if isinstance(result, Tensor) and self._is_alike(inputs, result) and is_pointwise(func):
            same = self.place_of(inputs[0])  # most functions are like this
            if result is not inputs[0] and (same is not None or all(self.is_constant(x) for x in inputs)):
                self.put(result, same)
            return
        remember_range(func, args, kwargs, result)
        # What needs a gradient decides: a mask or an index beside it does not move the samples.
        counted = [x for x in inputs if not self.roots(x)]
        if func is F.scaled_dot_product_attention:
            counted = counted[:3]
        if func not in MULTIPLYING:
            counted = [x for x in counted if x.requires_grad and not self.is_constant(x)] or counted
        constant = all(self.is_constant(x) for x in counted)
        unruled = not torch.is_grad_enabled() and self.any_followed(inputs)
        for number, x in enumerate((result,) if isinstance(result, Tensor) else result):
            if not isinstance(x, Tensor):
                continue
            place: Place | None
            if not inputs or func in CREATING:
                place = self._made_inside(x, func)
            elif not x.numel():
                place = None
            elif constant:
                place = self._repeated(args[0], x) if func in EXPANDING else None
            else:
                place = moved(func, args, kwargs, self.place_of, counted, x, number, self.samples.size)
                if place == LOST and unruled:
                    place = UNKNOWN  # the first forward of a reentrant checkpoint: its rules have not run
                elif place == LOST and x.requires_grad:
                    self._refuse_coupling(func, args, kwargs, counted, x)
            if place != UNKNOWN and (place == LOST or self.noted(x) or not any(x is y for y in inputs)):
                self.put(x, place)
                if place == LOST and x._base is not None and is_in_place(func):
                    self.put(x._base, LOST)

    def _made_inside(self, x: Tensor, func: Function) -> Place | None:
        """Data, or positions: one dimension is taken for positions; a table of B x B is anybody's guess."""
        if x.dim() < 2:
            return None
        square = x.shape[0] == x.shape[1] == self.samples.size and func not in CREATING
        return LOST if square else UNKNOWN

    def _is_alike(self, inputs: list[Tensor], result: Tensor) -> bool:
        """Whether one or two inputs of the shape of the result were there, with the samples in the same place."""
        if not inputs or len(inputs) > 2 or inputs[0].shape != result.shape:
            return False
        return len(inputs) == 1 or (
            inputs[1].shape == result.shape and self.place_of(inputs[0]) == self.place_of(inputs[1]) != LOST
        )

    def _repeated(self, x: Tensor, result: Tensor) -> Place | None:
        """Positions that are expanded to the samples: where they were, if that can be told."""
        new = result.dim() - x.dim()
        sizes = [1 if d < new else x.shape[d - new] for d in range(result.dim())]
        dims = [d for d, n in enumerate(sizes) if n == 1 != result.shape[d] == self.samples.size]
        return Place(dims[0]) if len(dims) == 1 else None

    def _written(self, args: Arguments) -> None:
        """x[index] = value: where its index or value has the samples elsewhere, x loses them."""
        x, index, value = args
        place, written = self.place_of(x), self.place_of(value) if isinstance(value, Tensor) else None
        if place is None and written is None:
            return
        into = LOST if place in (None, LOST) else written_place(x, index, place, self.samples.size)
        fits = into != LOST
        if fits and written is not None and isinstance(value, Tensor):
            # aligned at the last dimension, as an assignment broadcasts
            fits = into is not None and written == into._replace(dim=into.dim + value.dim())
        if not fits:
            for y in (x,) if x._base is None else (x, x._base):
                self.put(y, LOST)
            if isinstance(value, Tensor) and value.requires_grad and written == LOST and place not in (None, LOST):
                self._raise_coupling(Tensor.__setitem__, [x, value])

    def _refuse_coupling(
        self, func: Function, args: Arguments, kwargs: Keywords, inputs: Sequence[Tensor], result: Tensor
    ) -> None:
        """A result without samples is fine (a loss); one that mixes samples, or them and such a result, is not."""
        counted = inputs if func in MULTIPLYING else [x for x in inputs if x.requires_grad]
        places = [(x, place) for x in counted if (place := self.place_of(x)) is not None]
        held = [(x, place) for x, place in places if place != LOST]
        lost = any(place == LOST and (x.dim() or func not in ADDING) for x, place in places)
        several = len({place for _, place in held}) > 1 and func not in VIEWS
        product = len(held) > 1 and func in MULTIPLYING and result.dim() > 0
        along = func in COUPLING and len(held) == 1 and after_along(func, args, kwargs, *held[0])
        if (held and lost) or several or product or along:
            self._raise_coupling(func, inputs)

    def _raise_coupling(self, func: Function, inputs: Sequence[Tensor]) -> NoReturn:
        raise RuntimeError(
            f"mixed_batch cannot split what couples the samples: {name_of(func)} got the shapes "
            f"{[list(x.shape) for x in inputs]}, and its result depends on several samples (statistics over the "
            "batch, in-batch negatives?); use one task() block per task"
        )

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
        if not self.collector.in_backward:  # inside a reentrant checkpoint more backwards run
            self.collector.expect(reachable_uses(losses))
        # No mode takes an edge for itself: this one stays active, for a checkpointed part is computed again inside.
        edges = [torch.autograd.graph.get_gradient_edge(loss) for loss in losses]
        with self, self.collector.backward():
            torch.autograd.backward(edges, grad_tensors, retain_graph)

    def _grad(self, *args: Any, **kwargs: Any) -> Any:
        """torch.autograd.grad in the block, of an adversarial perturbation say: what passes belongs to no task."""
        if kwargs.get("create_graph", args[4] if len(args) > 4 else False):
            raise RuntimeError(
                "mixed_batch cannot split a gradient penalty: use torch.autograd.grad without create_graph"
            )
        with self.collector.paused():
            return torch.autograd.grad(*args, **kwargs)

    def plain(self, func: Function, args: Arguments, kwargs: Keywords) -> Any:
        """Run a function of parameters without samples, and follow its results.

        Raises:
            RuntimeError: an input depends on the samples, and it cannot be told where it has them.
        """
        roots: set[int] = set()
        for x in tensors_in(args, kwargs):
            own = self.roots(x)
            if not own and x.requires_grad and not self.is_constant(x):
                why = f"a tensor of the shape {list(x.shape)}, in which the samples of the batch cannot be told apart"
                self.refuse(func, args, kwargs, why)
            roots.update(own)
        result = func(*args, **kwargs)
        for x in tensors_in((result,), {}):
            if x.requires_grad and not self.is_parameter(x):
                self.derive(x, roots)
            else:
                self.put(x, None)  # its value, without its gradient
        return result

    def tap(
        self, y: Tensor, targets: Sequence[Tensor], rows: RowsOf, totals: TotalsOf | None, place: Place, *saved: Tensor
    ) -> Tensor:
        """Put a node on the output of a function whose parameters were detached."""
        use = Use(self.collector, targets, [self.roots(t) for t in targets], rows, totals, place)
        return self.tap_with(use, place, y, *saved)

    def tap_with(self, use: Use, place: Place, y: Tensor, *saved: Tensor) -> Tensor:
        """The same for a use that is made already."""
        return self.located(Tap.apply(y, self._anchor(y), use, *saved), place)  # type: ignore[no-untyped-call]

    def expand(self, x: Tensor, shape: Sequence[int], place: Place) -> Tensor:
        """A followed tensor in this shape, with as many elements as needed where the samples are."""
        shape = torch.Size(shape)
        use = Use(self.collector, [x], [self.roots(x)], per_sample(self.samples, place, shape, x.shape))
        expanded: Tensor = Expand.apply(  # type: ignore[no-untyped-call]
            x.detach().reshape(shape), self._anchor(x), use, place.dim, self.samples.size_at(place)
        )
        return expanded

    def fork(self, x: Tensor) -> tuple[Tensor, ...]:
        """A followed tensor once for each present task."""
        use = Use(self.collector, [x], [self.roots(x)], per_task(x.shape, x.dtype, x.device))
        copies: tuple[Tensor, ...] = Fork.apply(  # type: ignore[no-untyped-call]
            x.detach(), self._anchor(x), use, len(self.samples.present)
        )
        return copies

    def lowered(self, weight: Tensor) -> Tensor:
        """A weight without its gradient, in the dtype that autocast wants; cast once a block, as autocast does it."""
        device = weight.device.type
        if not self.roots(weight):
            return weight
        dtype = autocast_dtype(device)
        if dtype is None:
            return weight.detach()
        if not self.is_parameter(weight):
            return weight.detach().to(dtype)
        if (id(weight), dtype) not in self._cast:
            self._cast[id(weight), dtype] = weight.detach().to(dtype)
        return self._cast[id(weight), dtype]

    def without(self, x: Any) -> Any:
        """A followed tensor detached; anything else as it is."""
        return x.detach() if self.roots(x) else x

    def refuse_in_place(self, func: Function, args: Arguments, kwargs: Keywords) -> None:
        """Refuse to write samples into a tensor that was computed without."""
        if is_in_place(func) and self.roots(args[0]):
            self.refuse(func, args, kwargs, "samples to be written into a tensor that has none")

    def refuse(self, func: Function, args: Arguments, kwargs: Keywords, why: str) -> NoReturn:
        """Raise a RuntimeError that names the parameter and the function."""
        numbers = sorted({i for x in tensors_in(args, kwargs) for i in self.roots(x)})
        names = [self.collector.names[i] for i in numbers]
        of = f" the gradient of {', '.join(names[:3])}" if names else ""
        advice = f"leave it out with exclude={names[0]!r}, or use" if names else "use"
        raise RuntimeError(
            f"mixed_batch cannot split{of} by task: {name_of(func)} got {why}; {advice} one task() block per task"
        )

    def _anchor(self, like: Tensor) -> Tensor:
        if like.device not in self._anchors:
            # So that autograd visits our nodes even where nothing else before them needs a gradient.
            self._anchors[like.device] = torch.zeros((), device=like.device, requires_grad=True)
        return self._anchors[like.device]


_SPECIALS: dict[Function, Function] = {
    Tensor.backward: Follow._backward_of,
    torch.autograd.backward: Follow._backward,
    torch.autograd.grad: Follow._grad,
}


def autocast_dtype(device: str) -> torch.dtype | None:
    """What autocast turns the inputs of products into; None where it is off."""
    if torch.amp.is_autocast_available(device) and torch.is_autocast_enabled(device):
        return torch.get_autocast_dtype(device)
    return None


def name_of(func: Function) -> str:
    """torch.nn.functional.linear, say."""
    return str(resolve_name(func) or getattr(func, "__name__", func))
