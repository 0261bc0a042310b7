"""TorchJD's weightings on our Gramians: what its own aggregators make of the gradients of each group."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from integrations.torchjd_parts import GROUPS, TASKS, matrix, needs, of_group, rows, surgery

from gradsim import Surgery

aggregation: Any = pytest.importorskip("torchjd.aggregation", reason="TorchJD is not installed")
PREFERENCE = torch.tensor([0.1, 0.2, 0.3, 0.4], dtype=torch.float64)

QP, CVX, ECOS = needs("qpsolvers", "quadprog"), needs("cvxpy", "clarabel"), needs("cvxpy", "ecos")
MAKE: dict[str, Callable[[], Any]] = {
    "AlignedMTL": lambda: aggregation.AlignedMTL(),
    "AlignedMTL rmse": lambda: aggregation.AlignedMTL(PREFERENCE, scale_mode="rmse"),
    "CAGrad": lambda: aggregation.CAGrad(c=0.5),
    "Constant": lambda: aggregation.Constant(PREFERENCE),
    "CRMOGM": lambda: aggregation.GramianWeightedAggregator(
        aggregation.CRMOGMWeighting(aggregation.MGDAWeighting(), alpha=0.5)
    ),
    "CRMOGM of matrices": lambda: aggregation.WeightedAggregator(
        aggregation.CRMOGMWeighting(aggregation.MeanWeighting(), 0.5, PREFERENCE)
    ),
    "DualProj": lambda: aggregation.DualProj(),
    "FairGrad": lambda: aggregation.FairGrad(alpha=2.0),
    "IMTLG": lambda: aggregation.IMTLG(),
    "Krum": lambda: aggregation.Krum(1, 2),
    "Mean": lambda: aggregation.Mean(),
    "MGDA": lambda: aggregation.MGDA(),
    "NashMTL": lambda: aggregation.NashMTL(4, optim_niter=5),
    "NashMTL lazy": lambda: aggregation.NashMTL(4, max_norm=0.0, update_weights_every=2, optim_niter=5),
    "PCD": lambda: aggregation.PCD(beta=0.5),
    "Sum": lambda: aggregation.Sum(),
    "UPGrad": lambda: aggregation.UPGrad(),
    "UPGrad preference": lambda: aggregation.UPGrad(PREFERENCE),
}
SOLVER = {
    "CAGrad": CVX,
    "DualProj": QP,
    "FairGrad": needs("scipy"),
    "NashMTL": ECOS,
    "NashMTL lazy": ECOS,
    "UPGrad": QP,
    "UPGrad preference": QP,
}
SCALED = ("FairGrad", "NashMTL", "NashMTL lazy", "PCD")  # by their definition, or by what they remember
NAMES = [pytest.param(name, marks=[SOLVER[name]] if name in SOLVER else []) for name in MAKE]
pytestmark = pytest.mark.filterwarnings("ignore:You are solving a parameterized problem that is not DPP")


@pytest.mark.parametrize("name", NAMES)
def test_three_steps_are_those_of_one_aggregator_a_group(name: str) -> None:
    """The aggregator sees the gradients themselves, its weighting only our Gramians."""
    theirs = {group: MAKE[name]() for group in GROUPS}
    ours = surgery(MAKE[name]())  # an aggregator is taken for its weighting
    for step in range(3):
        given = rows(step)
        combined = ours(given)
        for group, aggregator in theirs.items():
            expected = aggregator(matrix(given, group))
            # The solvers stop at 1e-8 or so.
            torch.testing.assert_close(of_group(combined, group), expected, rtol=1e-6, atol=1e-6)
            assert expected.norm() > 0.05


@pytest.mark.parametrize("name", NAMES)
def test_the_weighting_of_an_aggregator_is_the_same(name: str) -> None:
    aggregator = MAKE[name]()
    weighting = getattr(aggregator, "gramian_weighting", None) or aggregator.weighting
    one, other = surgery(weighting), surgery(aggregator)
    for x, y in zip(one(rows()), other(rows()), strict=True):
        assert x is not None and y is not None and torch.equal(x, y)


@pytest.mark.parametrize("scale", [1e-6, 1e6])
@pytest.mark.parametrize("name", [p for p in NAMES if p.values[0] not in SCALED])
def test_scale_does_not_matter(name: str, scale: float) -> None:
    """TorchJD's absolute epsilons would turn UPGrad into the mean below a gradient norm of 0.01."""
    plain, scaled = surgery(MAKE[name]()), surgery(MAKE[name]())
    for step in range(2):
        expected, found = plain(rows(step)), scaled(rows(step, scale=scale))
        for x, y in zip(found, expected, strict=True):
            assert x is not None and y is not None
            torch.testing.assert_close(x / scale, y, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("scale", [1e-6, 1e6])
def test_scale_does_not_matter_to_torchjds_gradvac(scale: float) -> None:
    """Its epsilon of 1e-8 does, without us."""
    plain, scaled = (surgery(aggregation.GradVacWeighting(beta=0.3)) for _ in range(2))
    for step in range(2):
        expected, found = plain(rows(step)), scaled(rows(step, scale=scale))
        for x, y in zip(found, expected, strict=True):
            assert x is not None and y is not None
            torch.testing.assert_close(x / scale, y, rtol=1e-6, atol=1e-6)


@QP
def test_where_torchjd_itself_does_nothing() -> None:
    """The reason for the test above: its own UPGrad on small gradients is the mean, ours is not."""
    given = rows(scale=1e-6)
    mean, theirs = matrix(given, "b").mean(0), aggregation.UPGrad()(matrix(given, "b"))
    torch.testing.assert_close(theirs, mean, rtol=1e-6, atol=0)
    ours = of_group(surgery(aggregation.UPGrad())(given), "b")
    assert (ours - mean).norm() > 0.05 * mean.norm()
    assert (matrix(given, "b") @ ours).min() > -1e-3 * ours.norm() * mean.norm()  # no task gets worse


@pytest.mark.parametrize("kind", ["PCGrad", "GradVac"])
def test_two_tasks_leave_no_choice_of_order(kind: str) -> None:
    """TorchJD's PCGrad and GradVac as weightings are then our own methods."""
    make: Callable[[], Any] = {
        "PCGrad": lambda: aggregation.PCGradWeighting(),
        "GradVac": lambda: aggregation.GradVacWeighting(beta=0.3, eps=0.0),
    }[kind]
    theirs = surgery(make())
    ours = surgery(None, method=kind.lower(), beta=0.3, max_target=1.0)
    for step in range(5):
        given = rows(step, ["sw", "yo"])
        for x, y in zip(theirs(given), ours(given), strict=True):
            assert x is not None and y is not None
            torch.testing.assert_close(x, y, rtol=1e-9, atol=1e-9)


def test_what_is_drawn_depends_on_seed_step_and_group_only() -> None:
    def run(seed: int, noise: int) -> list[Any]:
        method = surgery(aggregation.RandomWeighting(), seed=seed)
        torch.manual_seed(noise)
        result = []
        for _ in range(2):
            before = torch.get_rng_state()
            result += method(rows())
            assert torch.equal(torch.get_rng_state(), before)
            torch.rand(3)
        return result

    first, again, other = run(5, 0), run(5, 1), run(6, 0)
    assert all(torch.equal(x, y) for x, y in zip(first, again, strict=True))
    assert not torch.equal(first[2], other[2])
    assert not torch.equal(first[2], first[6])  # the second step draws anew


def test_groups_draw_their_own_numbers() -> None:
    weights: list[torch.Tensor] = []

    def drawn(gramian: torch.Tensor) -> torch.Tensor:
        weights.append(torch.rand(len(gramian)))
        return weights[-1]

    surgery(drawn)(rows())
    assert len(weights) == 2 and not torch.equal(*weights)


def test_random_orders_of_pcgrad_are_drawn_anew_in_each_step() -> None:
    method = surgery(aggregation.PCGradWeighting())
    results = [of_group(method(rows()), "b") for _ in range(8)]
    assert any(not torch.equal(results[0], x) for x in results[1:])


def refused(weighting: Any) -> str:
    with pytest.raises((TypeError, ValueError)) as caught:
        Surgery(tasks=TASKS, weighting=weighting)
    return f"{caught.type.__name__}: {caught.value}"


def test_what_needs_more_than_a_gramian_is_refused() -> None:
    for weighting in (aggregation.MoDoWeighting(), aggregation.SDMGradWeighting()):
        assert refused(weighting).startswith(f"ValueError: {type(weighting).__name__} needs the inner products of")
        assert "two independent batches" in refused(aggregation.CRMOGMWeighting(weighting))
    assert refused(aggregation.ExcessMTLWeighting()).startswith("ValueError: ExcessMTLWeighting needs the gradients")
    assert "ExcessMTLWeighting needs the gradients" in refused(aggregation.ExcessMTL())
    for aggregator in (aggregation.TrimmedMean(1), aggregation.GradDrop(), aggregation.ConFIG()):
        assert refused(aggregator).startswith("TypeError: weighting=")
        assert "does not combine the gradients by weights" in refused(aggregator)
    assert refused(aggregation.MGDAWeighting) == (
        "TypeError: weighting must be an object, not the class MGDAWeighting; call it: weighting=...()"
    )


def test_the_owner_of_a_weighting_without_a_memory_may_set_it() -> None:
    weighting = aggregation.KrumWeighting(1, 1)
    method = surgery(weighting)
    one = of_group(method(rows()), "b")
    weighting.n_selected = 2
    two = of_group(method(rows()), "b")
    assert any(torch.equal(one, x) for x in matrix(rows(), "b")) and not torch.equal(one, two)
