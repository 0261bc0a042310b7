"""Whose samples they are: numbers, names, any order; and what is refused before anything happens."""

from __future__ import annotations

import pytest
import torch
from one_backward.steps import NAMES, batch, finished, mixed_step, net, optimizer, same

TASKS = [2, 0, 0, 2, 3]


@pytest.mark.parametrize(
    "given",
    [
        torch.tensor(TASKS),
        torch.tensor(TASKS, dtype=torch.int32),
        torch.tensor(TASKS, dtype=torch.uint8),
        TASKS,
        tuple(TASKS),
        [NAMES[t] for t in TASKS],
        tuple(NAMES[t] for t in TASKS),
        ["am", 0, "de", 2, "yo"],
    ],
)
def test_all_forms_mean_the_same(given: object) -> None:
    model, data = net(), batch(5)
    opt, other = optimizer(model), optimizer(model)
    mixed_step(opt, model, data, TASKS)
    with other.mixed_batch(given):  # type: ignore[arg-type]
        torch.nn.functional.cross_entropy(model(data["ids"]), data["labels"]).backward()
    same(finished(other), finished(opt))


@pytest.mark.parametrize(
    ("given", "error", "match"),
    [
        (torch.tensor([[0, 1]]), TypeError, r"int64 \[batch\].*\[1, 2\]"),
        (torch.tensor(1), TypeError, r"int64 \[batch\]"),
        (torch.tensor([0.0, 1.0]), TypeError, "float32"),
        (torch.tensor([True, False]), TypeError, "bool"),
        (torch.tensor([0j, 1]), TypeError, "complex"),
        (torch.tensor([], dtype=torch.int64), ValueError, "at least one sample"),
        ([], ValueError, "at least one sample"),
        ("de", TypeError, "not str"),
        (None, TypeError, "NoneType"),
        (3, TypeError, "not int"),
        ({"de": 1}, TypeError, "not dict"),
        (["de", "xx"], ValueError, r"unknown tasks \['xx'\].*de"),
        ([0, 4], ValueError, "between 0 and 3, not 4"),
        ([0, -1], ValueError, "between 0 and 3, not -1"),
        (torch.tensor([0, 9]), ValueError, "between 0 and 3, not 9"),
        ([0, True], TypeError, "not bool"),
        ([0, 1.0], TypeError, "not float"),
        ([0, None], TypeError, "not NoneType"),
        ([[0], [1]], TypeError, "not list"),
    ],
)
def test_what_names_no_tasks_is_refused(given: object, error: type[Exception], match: str) -> None:
    model = net()
    opt = optimizer(model)
    with pytest.raises(error, match=match), opt.mixed_batch(given):  # type: ignore[arg-type]
        pytest.fail("the block was entered")
    mixed_step(opt, model, batch(5), TASKS)
    assert all(x is not None for x in finished(opt))


@pytest.mark.parametrize("given", [TASKS[:4], [*TASKS, 1], [0], TASKS * 2])
def test_another_number_of_samples_than_the_batch_has(given: list[int]) -> None:
    """One task alone needs no samples; otherwise the sentence names both numbers."""
    model, data = net(), batch(5)
    opt = optimizer(model)
    if len(set(given)) == 1:
        return
    with pytest.raises(RuntimeError, match=rf"{len(given)}"):
        mixed_step(opt, model, data, given)
    assert all(p.grad is None for p in model.parameters()) and not any(opt.buffer.captured)
    mixed_step(opt, model, data, TASKS)
    assert all(x is not None for x in finished(opt))


@pytest.mark.parametrize(("given", "error"), [(True, TypeError), (1.0, TypeError), ("0", TypeError), (-1, ValueError)])
def test_what_is_no_dimension(given: object, error: type[Exception]) -> None:
    opt = optimizer(net())
    with pytest.raises(error, match="batch_dim"), opt.mixed_batch(TASKS, batch_dim=given):  # type: ignore[arg-type]
        pytest.fail("the block was entered")


@pytest.mark.parametrize("tasks", [(0,), (1, 1, 1), (0, 1, 2, 3), (3, 2), (0, 3, 3, 3)])
def test_absent_tasks_stay_absent(tasks: tuple[int, ...]) -> None:
    """A task without samples is missing, not zero."""
    model = net()
    opt = optimizer(model)
    mixed_step(opt, model, batch(len(tasks)), tasks, last=False)
    assert list(opt.buffer.captured) == [t in tasks for t in range(len(NAMES))]
    for t, row in enumerate(opt.buffer.rows):
        assert all((x is None) == (t not in tasks) for x in row)
