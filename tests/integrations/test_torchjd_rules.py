"""What a weighting is given and when, and what is left when a step goes wrong."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from integrations.torchjd_parts import GROUPS, NAMES, SHAPES, TASKS, Momentum, asked, matrix, of_group, rows, surgery
from torch import Tensor

from gradsim import GradVac, PCGrad, Surgery


def test_it_is_given_the_gramian_of_the_tasks_present() -> None:
    weighting, given = asked()
    combined = surgery(weighting)(rows(tasks=["de", "am", "yo"]))
    assert [(x.dtype, x.device.type) for x in given] == [(torch.float64, "cpu")] * 2
    for gramian, group in zip(given, GROUPS, strict=True):
        J = matrix(rows(tasks=["de", "am", "yo"]), group)
        torch.testing.assert_close(gramian, J @ J.T)
        torch.testing.assert_close(of_group(combined, group), 0.5 * J.sum(0))


def test_a_task_that_a_group_lacks_is_absent_there_only() -> None:
    weighting, given = asked()
    rows_ = rows()
    rows_[1][2] = None  # sw does not reach group b
    rows_[2][0] = None  # am reaches group a by its bias
    surgery(weighting)(rows_)
    assert [len(gramian) for gramian in given] == [4, 3]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_zero_gradient_is_there(dtype: torch.dtype) -> None:
    weighting, given = asked(lambda M: torch.eye(len(M))[1])
    rows_ = [[x.to(dtype) for x in row if x is not None] for row in rows()]
    rows_[1] = [torch.zeros(shape, dtype=dtype) for shape in SHAPES]
    combined = surgery(weighting)(rows_)
    assert [len(gramian) for gramian in given] == [4, 4]
    assert combined[0] is not None and combined[0].dtype == dtype and not combined[0].any()


def test_a_group_of_zeros_asks_nobody() -> None:
    weighting, given = asked()
    rows_ = rows()
    for row in rows_:
        assert row[2] is not None
        row[2].zero_()
    combined = surgery(weighting)(rows_)
    assert len(given) == 1 and combined[2] is not None and not combined[2].any()


def test_a_parameter_of_one_task_passes_through() -> None:
    weighting, given = asked()
    rows_ = rows(tasks=["am"])
    combined = surgery(weighting)(rows_)
    assert given == [] and all(x is y for x, y in zip(combined, rows_[2], strict=True))


@pytest.mark.parametrize(("reduction", "factor"), [("sum", 1.0), ("mean", 0.25)])
def test_reduction_is_a_matter_of_what_is_in_no_group(reduction: str, factor: float) -> None:
    weighting, _ = asked()
    combined = surgery(weighting, reduction=reduction)(rows())
    assert combined[3] is not None
    plain = torch.stack([x for row in rows() if (x := row[3]) is not None]).sum(0)
    torch.testing.assert_close(combined[3], factor * plain)
    torch.testing.assert_close(of_group(combined, "a"), 0.5 * matrix(rows(), "a").sum(0))


def test_monitor_asks_nobody_and_measures_the_same() -> None:
    weighting, given = asked()
    one, other, plain = surgery(weighting, monitor=True), surgery(asked()[0]), surgery(None, monitor=True)
    combined = one(rows())
    other(rows())
    assert given == []
    assert all(torch.equal(x, y) for x, y in zip(combined, plain(rows()), strict=True) if x is not None)
    similarities = [each.similarity().cosine for each in (one, other, plain)]
    torch.testing.assert_close(similarities[0], similarities[2])
    torch.testing.assert_close(similarities[1], similarities[2])
    told = other.statistics()
    assert told["corrections"] == 0 and told["negative"] > 0 and told["steps"] == 1


def test_the_method_does_not_matter() -> None:
    results = [surgery(asked()[0], method=method)(rows()) for method in ("gradvac", "pcgrad")]
    assert all(torch.equal(x, y) for x, y in zip(*results, strict=True) if x is not None and y is not None)


@pytest.mark.parametrize("bad", [math.inf, math.nan, 1e200])
def test_a_step_that_is_not_finite_leaves_no_trace(bad: float) -> None:
    """1e200 is finite, its square is not."""
    struck, spared = surgery(Momentum()), surgery(Momentum())
    for each in (struck, spared):
        each(rows(0))
    before = struck.state_dict()
    broken = rows(1)
    assert broken[1][2] is not None
    broken[1][2][3] = bad
    result = struck(broken)
    assert all(not of_group(result, group).isfinite().any() for group in GROUPS)
    after = struck.state_dict()
    assert after["weighting"] == before["weighting"]
    changed = {name for name, x in before["tensors"].items() if not torch.equal(x, after["tensors"][name])}
    assert changed == {"skipped"}
    for x, y in zip(struck(rows(2)), spared(rows(2)), strict=True):
        assert x is not None and y is not None and torch.equal(x, y)


def failing(gramian: Tensor) -> Tensor:
    raise ArithmeticError("no solution")


FAULTS: dict[str, tuple[Any, str]] = {
    "raises": (failing, "the weighting failing failed on the Gramian of the tasks .* in group 'a': no solution"),
    "number": (lambda M: 1.0, "must return 4 finite weights for the tasks .* in group 'a', not float"),
    "shape": (lambda M: torch.ones(4, 1), r"must return 4 finite weights .*, not \[\[1.0\]"),
    "nan": (lambda M: torch.full((4,), torch.nan), r"must return 4 finite weights .*, not \[nan"),
}


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("storage", ["autograd", "flat"])
def test_a_failing_weighting_changes_nothing(fault: str, storage: str) -> None:
    """Not the parameters outside of the groups either: finish() may be called again."""
    parameters = [torch.nn.Parameter(torch.zeros(shape, dtype=torch.float64)) for shape in SHAPES]
    wrong: list[bool] = [True]

    def weighting(gramian: Tensor) -> Any:
        return FAULTS[fault][0](gramian) if wrong[0] else torch.ones(len(gramian))

    weighting.__name__ = FAULTS[fault][0].__name__
    opt = GradVac(
        torch.optim.SGD(zip(NAMES, parameters, strict=True), lr=1.0),
        tasks=TASKS,
        exclude="c.weight",
        weighting=weighting,
        storage=storage,
    )
    for task, row in zip(TASKS, rows(), strict=True):
        with opt.task(task):
            sum((p * x).sum() for p, x in zip(parameters, row, strict=True) if x is not None).backward()
    state = opt.surgery.state_dict()
    with pytest.raises(RuntimeError, match=FAULTS[fault][1]):
        opt.finish()
    assert all(p.grad is None for p in parameters)
    after = opt.surgery.state_dict()
    assert all(torch.equal(x, after["tensors"][name]) for name, x in state["tensors"].items())
    wrong[0] = False
    opt.step()
    for p, column in zip(parameters, zip(*rows(), strict=True), strict=True):
        torch.testing.assert_close(p.detach(), -torch.stack([x for x in column if x is not None]).sum(0))


def test_a_first_call_that_fails_has_told_nothing() -> None:
    method = Surgery(weighting=failing)
    with pytest.raises(RuntimeError, match="no solution"):
        method(rows())
    assert method.tasks is None and method.names is None


def test_a_memory_is_for_the_same_tasks() -> None:
    method = surgery(Momentum())
    method(rows(0))
    before = method.state_dict()
    expected = (
        r"Momentum remembers the tasks .*'yo'\] in group 'a', but this step has .* give it the same tasks in every"
    )
    with pytest.raises(RuntimeError, match=expected):
        method(rows(1, ["de", "sw", "am"]))
    after = method.state_dict()
    assert after["weighting"] == before["weighting"]
    assert all(torch.equal(x, after["tensors"][name]) for name, x in before["tensors"].items())
    method(rows(1))


def test_each_group_has_its_own_memory() -> None:
    together, apart = surgery(Momentum()), {group: Momentum() for group in GROUPS}
    for step in range(3):
        combined = together(rows(step))
        for group, weighting in apart.items():
            J = matrix(rows(step), group)
            torch.testing.assert_close(of_group(combined, group), weighting(J @ J.T) @ J)


class Uncopied(Momentum):
    def __deepcopy__(self, memo: object) -> None:
        raise NotImplementedError("a handle to a solver")


def test_refusals() -> None:
    def refused(error: type[Exception], **options: Any) -> str:
        parameter = torch.nn.Parameter(torch.zeros(3))
        for kind in (GradVac, PCGrad):
            with pytest.raises(error) as caught:
                kind(torch.optim.SGD([("a", parameter)]), tasks=TASKS, **options)
        return str(caught.value)

    assert refused(TypeError, weighting=3) == "weighting must be a function from a Gramian to weights, not int"
    assert refused(ValueError, weighting=torch.ones_like, vaccinate=["de"]) == (
        "give vaccinate= or weighting=, not both: a weighting weighs all tasks"
    )
    assert refused(TypeError, weighting=Uncopied()) == (
        "the weighting Uncopied may have a memory, of which each group needs its own, but cannot be copied: a handle "
        "to a solver"
    )
