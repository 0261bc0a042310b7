"""What somebody else's weighting takes: told apart by name, so that TorchJD is never imported here."""

from __future__ import annotations

import types
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

Weighting = Callable[[Tensor], Tensor]

# Their mathematics is indifferent to a common scale of all gradients, their absolute epsilons are not.
SCALE_FREE = {
    "AlignedMTLWeighting",
    "CAGradWeighting",
    "DualProjWeighting",
    "GradVacWeighting",
    "IMTLGWeighting",
    "KrumWeighting",
    "MGDAWeighting",
    "PCGradWeighting",
    "UPGradWeighting",
}
TWO_BATCHES = {"MoDoWeighting", "SDMGradWeighting"}
SHAPE_ONLY = {"ConstantWeighting", "MeanWeighting", "RandomWeighting", "SumWeighting"}
NASH = "_NashMTLWeighting"


@dataclass(frozen=True)
class Kind:
    """A weighting and how it is to be called.

    Attributes:
        weighting: from a Gramian (or a matrix) of m tasks to their weights [m].
        name: what it is called in messages and states.
        stateful: it may remember something from call to call.
        factor: it takes the gradients [m, n], but looks only at their inner products; a square root of the Gramian will
            do.
        scale_free: the Gramian may be divided by any number.
    """

    weighting: Weighting
    name: str
    stateful: bool
    factor: bool = False
    scale_free: bool = False

    def __call__(self, weighting: Weighting, gramian: Tensor) -> object:
        """What `weighting` (this one, or a copy) makes of a Gramian [m, m] that is not zero."""
        if self.scale_free:
            gramian = gramian / gramian.diagonal().mean()
        return weighting(_square_root(gramian) if self.factor else gramian)


def kind_of(weighting: object) -> Kind:
    """How to call a weighting: one of TorchJD, an aggregator of TorchJD that has one, or any function of Gramians.

    Raises:
        TypeError: nothing that can be called, a class, an aggregator without weights.
        ValueError: a weighting that needs more than a Gramian.
    """
    if isinstance(weighting, type):
        raise TypeError(f"weighting must be an object, not the class {weighting.__name__}; call it: weighting=...()")
    if not callable(weighting):
        raise TypeError(f"weighting must be a function from a Gramian to weights, not {type(weighting).__name__}")
    names = _torchjd_classes(weighting)
    name = type(weighting).__name__
    if "Aggregator" in names:
        if "WeightedAggregator" not in names:  # some of these have a `weighting` for another purpose
            raise TypeError(f"weighting={name}(...) does not combine the gradients by weights; give one that does")
        return kind_of(getattr(weighting, "gramian_weighting", None) or getattr(weighting, "weighting"))  # noqa: B009
    if not names:
        plain = isinstance(weighting, types.FunctionType | types.BuiltinFunctionType)
        return Kind(weighting, getattr(weighting, "__name__", name), stateful=not plain)
    wrapped: Any = weighting
    while type(wrapped).__name__ == "CRMOGMWeighting":  # smooths the weights of another
        wrapped = wrapped.weighting
    factor = type(wrapped).__name__ == "_Composition" and getattr(wrapped.fn, "__name__", "") == "compute_gramian"
    if factor:  # made for the gradients, but looks at their Gramian only
        wrapped = wrapped.weighting
    inner_name, inner_names = type(wrapped).__name__, _torchjd_classes(wrapped)
    if inner_name in TWO_BATCHES:
        raise ValueError(
            f"{inner_name} needs the inner products of the gradients of two independent batches, not the Gramian of "
            "one; it cannot be a weighting here"
        )
    if "_MatrixWeighting" in inner_names and not inner_names & (SHAPE_ONLY | {NASH}):
        raise ValueError(
            f"{inner_name} needs the gradients themselves, and a weighting here is given their Gramian; use one that "
            "takes a Gramian"
        )
    return Kind(
        weighting,
        name.removeprefix("_"),
        # A class of somebody else may remember something whether it says so or not.
        stateful="Stateful" in names or not type(weighting).__module__.startswith("torchjd."),
        factor=factor or NASH in inner_names,
        scale_free=bool(inner_names & SCALE_FREE),
    )


def _torchjd_classes(x: object) -> set[str]:
    return {kind.__name__ for kind in type(x).__mro__ if kind.__module__.split(".")[0] == "torchjd"}


def _square_root(gramian: Tensor) -> Tensor:
    """R [m, m] with R R^T = gramian."""
    values, vectors = torch.linalg.eigh(gramian)
    root: Tensor = vectors * values.clamp(min=0).sqrt()
    return root
