"""What is known of the tensors of a block: which come from parameters alone, and where the others have the samples."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor

from gradsim.one_backward.collector import Collector
from gradsim.one_backward.samples import Place
from gradsim.one_backward.whereabouts import LOST

_BLOCKS = itertools.count()


class Tracked:
    """Notes on tensors, which live as long as the tensors.

    Args:
        collector: of the followed parameters. skipped: the numbers of those that are left to autograd.
        constants: tensors that have no samples whatever their shape: buffers, other parameters.
    """

    def __init__(self, collector: Collector, skipped: Iterable[int], constants: Iterable[Tensor]) -> None:
        self.collector, self.samples = collector, collector.samples
        left = set(skipped)
        parameters = list(enumerate(collector.parameters))
        self._numbers = {id(p): i for i, p in parameters if p.requires_grad and i not in left}
        kept = {id(x): x for x in (*constants, *(p for _, p in parameters))}
        self._constants = {
            key: x for key, x in kept.items() if key not in self._numbers
        }  # held, so that ids stay theirs
        # On a tensor computed in the block, under a name of its own for each block: the followed parameters that it was
        # computed from without samples, and where it has its samples (None: nowhere).
        self._note = f"_gradsim_note_{next(_BLOCKS)}"

    def is_parameter(self, x: Tensor) -> bool:
        """Whether a tensor is a followed parameter itself."""
        return id(x) in self._numbers

    def roots(self, x: Any) -> tuple[int, ...]:
        """The numbers of the parameters that a tensor is, or was computed from without samples; empty: none."""
        number = self._numbers.get(id(x))
        if number is not None:
            return (number,)
        note: tuple[tuple[int, ...], Place | None] | None = getattr(x, self._note, None)
        return note[0] if note is not None else ()

    def any_followed(self, tensors: Iterable[Tensor]) -> bool:
        """Whether one of them is a followed parameter, or was computed from some without samples."""
        for x in tensors:
            if id(x) in self._numbers:
                return True
            note = getattr(x, self._note, None)
            if note is not None and note[0]:
                return True
        return False

    def derive(self, x: Tensor, roots: Iterable[int]) -> None:
        """Note that a tensor was computed from these parameters without samples."""
        setattr(x, self._note, (tuple(sorted(roots)), None))

    def is_constant(self, x: Tensor) -> bool:
        """Whether a tensor is known to have no samples, and not to come from a followed parameter."""
        return id(x) in self._constants or getattr(x, self._note, None) == ((), None)

    def put(self, x: Tensor, place: Place | None) -> None:
        """Note where a tensor has its samples; None: it has none."""
        if id(x) not in self._constants and id(x) not in self._numbers:
            setattr(x, self._note, ((), place))

    def located(self, x: Tensor, place: Place) -> Tensor:
        """Note that a result has its samples there."""
        fits = 0 <= place.dim < x.dim() and x.shape[place.dim] == self.samples.size_at(place)
        self.put(x, place if fits else LOST)
        return x

    def note(self, x: Tensor) -> object:
        """All that was noted about a tensor; None: nothing."""
        return getattr(x, self._note, None)

    def take_note(self, x: Tensor, note: object) -> None:
        """Note the same about a tensor."""
        setattr(x, self._note, note)

    def noted(self, x: Tensor) -> bool:
        """Whether something was noted about a tensor."""
        return hasattr(x, self._note)

    def place_of(self, x: Tensor, features: int = 0) -> Place | None:
        """Where a tensor has its samples, as noted or else by its shape; None: it has none."""
        note: tuple[tuple[int, ...], Place | None] | None = getattr(x, self._note, None)
        if note is not None:
            return note[1]
        if id(x) in self._constants or id(x) in self._numbers:
            return None
        return self.samples.place_by_shape(x, features)

    def place(self, x: Any, features: int = 0) -> Place | None:
        """The same for what meets a parameter; the last `features` dimensions cannot be those of the samples.

        Raises:
            RuntimeError: the samples cannot be told apart in it any more.
        """
        if not isinstance(x, Tensor):
            return None
        place = self.place_of(x, features)
        if place is None or (place == LOST and not x.dim()):
            return None
        if place == LOST or place.dim >= x.dim() - features:
            raise RuntimeError(
                f"mixed_batch cannot tell apart the {self.samples.size} samples of the batch in a tensor of the shape "
                f"{list(x.shape)} that meets a parameter: they were selected, reordered, merged or summed over; use "
                "one task() block per task"
            )
        return place


def tensors_in(args: Iterable[Any], kwargs: dict[str, Any]) -> list[Tensor]:
    """The tensors among arguments, and in the lists and tuples among them."""
    found: list[Tensor] = []
    for x in args if not kwargs else (*args, *kwargs.values()):
        if isinstance(x, Tensor):
            found.append(x)
        elif isinstance(x, list | tuple) and type(x) is not torch.Size:
            found.extend(tensors_in(x, {}))
    return found


def replaced(x: Any, change: Callable[[Tensor], Any]) -> Any:
    """The argument with every tensor in it changed."""
    if isinstance(x, Tensor):
        return change(x)
    if isinstance(x, list):
        return [replaced(y, change) for y in x]
    if type(x) is tuple:
        return tuple(replaced(y, change) for y in x)
    return x
