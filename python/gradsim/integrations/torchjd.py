"""GradVac and PCGrad where TorchJD takes an aggregator or a weighting, with targets that last.

    from gradsim.integrations.torchjd import GradVac
    aggregator = GradVac()
    torchjd.autojac.backward(losses)
    torchjd.autojac.jac_to_grad(model.parameters(), aggregator)

The other way round, `gradsim.GradVac(..., weighting=UPGradWeighting())` takes TorchJD's weightings.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

import gradsim_kernels as gk
from gradsim.optim import arguments

try:
    from torchjd import Stateful
    from torchjd.aggregation import GramianWeightedAggregator, Weighting
except ImportError as error:
    raise ImportError("gradsim.integrations.torchjd needs TorchJD 0.18 or later: pip install torchjd") from error

__all__ = ["GradVac", "GradVacWeighting", "PCGrad", "PCGradWeighting"]

_FLOAT32 = 2.0**-23


class _SurgeryWeighting(Weighting[Tensor], Stateful):
    """What the two weightings share: who visits whom, and the step, on which a random order depends."""

    step: Tensor

    def __init__(self, order: str, seed: int) -> None:
        super().__init__()
        self.order = arguments.one_of("order", order, arguments.ORDERS)
        self.seed = arguments.seed(seed)
        self.register_buffer("step", torch.zeros((), dtype=torch.int64))

    def __call__(self, gramian: Tensor, /, accuracy: float | None = None) -> Tensor:
        """The weights [m] of the gradients with this Gramian [m, m], in its dtype.

        A Gramian that is not finite gets NaN, and changes nothing here. `accuracy`: its relative accuracy; None: that
        of its dtype.

        Raises:
            ValueError: no square matrix; another number of tasks than the targets are for.
        """
        return nn.Module.__call__(self, gramian, accuracy)  # type: ignore[no-any-return]

    @torch.no_grad()
    def forward(self, gramian: Tensor, accuracy: float | None = None, /) -> Tensor:
        if gramian.dim() != 2 or gramian.shape[0] != gramian.shape[1]:
            raise ValueError(f"the Gramian must be a matrix [m, m], not {list(gramian.shape)}")
        if accuracy is None:
            accuracy = 2.0**-52 if gramian.dtype == torch.float64 else _FLOAT32
        if self.step.device != gramian.device:
            self.to(gramian.device)
        m = len(gramian)
        others = [[j for j in range(m) if j != i] for i in range(m)]
        ascending = torch.tensor(others, dtype=torch.int64, device=gramian.device).reshape(1, m, m - 1)
        visits = {"order": ascending if self.order == "ascending" else None, "seed": self.seed, "step": self.step}
        M = gramian.to(torch.float64)[None]
        weights = self._weights(M, visits, accuracy)[0]
        self.step += M.isfinite().all()
        return weights.to(gramian.dtype)

    def reset(self) -> None:
        """Start anew, with any number of tasks."""
        self.step.zero_()

    def _weights(self, M: Tensor, visits: dict[str, Any], eps: float) -> Tensor:
        raise NotImplementedError


class PCGradWeighting(_SurgeryWeighting):
    """The weights of PCGrad (Yu et al., NeurIPS 2020, Algorithm 1) from a Gramian, for TorchJD.

    Args:
        order: `"random"` (the paper; by seed and step, not by torch's generator) or `"ascending"` (j = 0, 1, 2, ...).
        seed: of the random orders.
    """

    def __init__(self, *, order: str = "random", seed: int = 0) -> None:
        super().__init__(order, seed)

    def _weights(self, M: Tensor, visits: dict[str, Any], eps: float) -> Tensor:
        return gk.pcgrad_weights(M, eps=eps, **visits)


class GradVacWeighting(_SurgeryWeighting):
    """The weights of GradVac (Wang et al., ICLR 2021, Algorithm 1) from a Gramian, for TorchJD.

    The targets are float64 whatever the model is cast to, are part of `state_dict`, and load into a fresh object. The
    first call tells the number of tasks. A task that a step lacks gets a row of zeros in the Jacobian: its targets
    stay.

    Args:
        beta: the decay of the targets, in [0, 1]. order, seed: as for `PCGradWeighting`.
        max_target: what a target counts as at most, in (0, 1]; 1.0 gives the paper's.

    Raises:
        ValueError, TypeError: a value that is unknown or out of range.
    """

    target: Tensor  # [m, m]; [0, 0] before the first call

    def __init__(self, *, beta: float = 1e-2, order: str = "random", seed: int = 0, max_target: float = 0.999) -> None:
        super().__init__(order, seed)
        self.beta = arguments.number("beta", beta, 0.0, 1.0)
        self.max_target = arguments.number("max_target", max_target, 0.0, 1.0, open_below=True)
        self.register_buffer("target", torch.zeros(0, 0, dtype=torch.float64))

    def reset(self) -> None:
        """Forget the targets; the next call may have another number of tasks."""
        super().reset()
        self.target = self.target.new_zeros(0, 0)

    def _weights(self, M: Tensor, visits: dict[str, Any], eps: float) -> Tensor:
        m = M.shape[1]
        if not len(self.target):
            self.target = M.new_zeros(m, m)
        if len(self.target) != m:
            raise ValueError(
                f"the targets are those of {len(self.target)} tasks, but there are {m}; give a missing task a row of "
                "zeros, or call reset() to start anew"
            )
        return gk.gradvac_weights(M, self.target[None], beta=self.beta, max_target=self.max_target, eps=eps, **visits)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> GradVacWeighting:
        target = self.target
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        self.target = target.to(self.target.device)  # moved, but never cast
        return self

    def _load_from_state_dict(self, state_dict: Mapping[str, Any], prefix: str, *args: Any, **kwargs: Any) -> None:
        saved = state_dict.get(f"{prefix}target")
        if isinstance(saved, Tensor) and saved.dim() == 2 and saved.shape[0] == saved.shape[1]:
            self.target = self.target.new_zeros(saved.shape)
        super()._load_from_state_dict(state_dict, prefix, *args, **kwargs)


class _OfMatrix(Weighting[Tensor]):
    """A weighting of Gramians as one of matrices [m, n]: the Gramian is float64, however the gradients are stored."""

    def __init__(self, weighting: _SurgeryWeighting) -> None:
        super().__init__()
        self.weighting = weighting

    @torch.no_grad()
    def forward(self, matrix: Tensor, /) -> Tensor:
        accuracy = None if matrix.dtype == torch.float64 else _FLOAT32
        return self.weighting(gk.gramian(matrix.detach())[0], accuracy)


class _Aggregator(GramianWeightedAggregator):
    """One of our weightings as an aggregator: [m, n] -> [n]."""

    def __init__(self, weighting: _SurgeryWeighting) -> None:
        super().__init__(weighting)
        self.weighting = _OfMatrix(weighting)

    @torch.no_grad()
    def forward(self, matrix: Tensor, /) -> Tensor:
        matrix = matrix.detach().contiguous()
        return gk.combine(matrix, self.weighting(matrix)[None].to(torch.float64))


class PCGrad(_Aggregator, Stateful):
    """PCGrad as a TorchJD aggregator; the arguments are those of `PCGradWeighting`."""

    gramian_weighting: PCGradWeighting

    def __init__(self, *, order: str = "random", seed: int = 0) -> None:
        super().__init__(PCGradWeighting(order=order, seed=seed))

    def reset(self) -> None:
        """Start anew."""
        self.gramian_weighting.reset()


class GradVac(_Aggregator, Stateful):
    """GradVac as a TorchJD aggregator; the arguments are those of `GradVacWeighting`.

    One for each group of parameters, as TorchJD's guide to groupings says; `gradsim.Surgery` corrects all groups in one
    call, from the same Jacobians.
    """

    gramian_weighting: GradVacWeighting

    def __init__(self, *, beta: float = 1e-2, order: str = "random", seed: int = 0, max_target: float = 0.999) -> None:
        super().__init__(GradVacWeighting(beta=beta, order=order, seed=seed, max_target=max_target))

    def reset(self) -> None:
        """Forget the targets."""
        self.gramian_weighting.reset()
