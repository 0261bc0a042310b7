"""The comparison of `mixed_batch` with its oracle, for one model, mode and granularity."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from one_backward.oracle import (
    Row,
    Work,
    added,
    capture,
    combined,
    gradient,
    norm,
    rows_of,
    separate_rows,
    worst,
)
from one_backward.zoo import TASKS, unequal
from one_backward.zoo_case import Case

from gradsim import GradVac
from gradsim.optim import SurgeryOptimizer

TOLERANCE = 1e-5
T = len(TASKS)


def wrapped(work: Work, granularity: str = "all_layer") -> SurgeryOptimizer:
    model = work.model
    return GradVac(
        torch.optim.SGD(model.parameters(), lr=0.1),
        tasks=TASKS,
        model=model,
        granularity=granularity,
        exclude=work.case.exclude,
        order="ascending",
        beta=0.3,  # targets that count from the second step on
    )


def mixed(opt: SurgeryOptimizer, work: Work, **options: bool) -> None:
    square = any(x.ndim > 1 and x.shape[0] == x.shape[1] for x in work.batch.values())
    with opt.mixed_batch(work.task_ids, batch_dim=work.case.batch_dim if square else None, **options):
        work.loss.backward()


def steps(case: Case, mode: str, attention: str, shape: tuple[int, int]) -> Iterator[Work]:
    """Two steps with other batches and other tasks in other places, on one model."""
    model = case.make(attention, mode)
    for step in range(2):
        yield Work(case, model, case.draw(*shape, 10 + step), unequal(shape[0], step))


def names(work: Work) -> list[str]:
    return [name for name, _ in work.model.named_parameters()]


def without_excluded(row: Row, work: Work) -> Row:
    """Parameters that are left out of the surgery have no rows, only their sum."""
    kept = zip(row, names(work), strict=True)
    return [None if any(word in name for word in work.case.exclude) else x for x, name in kept]


def assert_close(found: Row, expected: Row, work: Work, what: str) -> None:
    error, name = worst(found, expected, names(work))
    assert error <= TOLERANCE, f"{what}: {name} is {error:.1e} apart"


def assert_same_decisions(found: SurgeryOptimizer, expected: SurgeryOptimizer, row: Row) -> None:
    """As many corrections in every group whose gradients are more than rounding: else a tie fell the other way."""
    groups = expected.surgery.groups
    assert groups is not None
    whole = norm(row)
    counts = [opt.surgery.state_dict()["tensors"]["corrections"] for opt in (found, expected)]
    for k, members in enumerate(groups.members):
        if norm([row[p] for p in members]) > 1e-4 * whole:
            assert torch.equal(counts[0][k], counts[1][k]), f"other corrections in {groups.names[k]}"


def prove(
    case: Case, mode: str, attention: str, shape: tuple[int, int], granularity: str = "all_layer", **options: bool
) -> None:
    """The rows, and two steps of the combined gradient, streamed (with these options of `mixed_batch`) or not."""
    for step, work in enumerate(steps(case, mode, attention, shape)):
        expected_rows = separate_rows(work, T)
        assert_close(added(expected_rows), gradient(work.model, work.loss), work, "the oracle's own rows, added up")
        if step == 0:
            reference, opt = wrapped(work, granularity), wrapped(work, granularity)
            kept = wrapped(work, granularity)
        mixed(kept, work, last=False)
        for task, (found, expected) in enumerate(zip(rows_of(kept), expected_rows, strict=True)):
            assert_close(without_excluded(found, work), without_excluded(expected, work), work, f"row {TASKS[task]}")
        kept.finish()
        from_kept = combined(kept)
        capture(reference, expected_rows)
        reference.finish()
        expected = combined(reference)
        mixed(opt, work, **options)
        opt.finish()
        assert_close(combined(opt), expected, work, f"step {step}, streamed")
        assert_close(from_kept, expected, work, f"step {step}, rows kept")
        assert_same_decisions(opt, reference, expected)
        assert_same_decisions(kept, reference, expected)
