"""What holds for any batch: order, names of tasks, splitting in parts, ways of computing."""

from __future__ import annotations

import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from one_backward.steps import NAMES, batch, finished, held, loss_of, mixed_step, net, optimizer, same, separate_step

task_lists = st.lists(st.integers(0, len(NAMES) - 1), min_size=1, max_size=7)
quick = settings(max_examples=12)


@quick
@given(task_lists, st.integers(0, 5))
def test_steps_equal_separate_backwards(tasks: list[int], seed: int) -> None:
    """Three steps with targets that grow: gradients, targets and counters are those of one backward per task."""
    one, other = net(seed), net(seed)
    opt, reference = optimizer(one), optimizer(other)
    for step in range(3):
        data = batch(len(tasks), seed + step)
        chosen = tasks[step:] + tasks[:step]
        mixed_step(opt, one, data, chosen)
        separate_step(reference, other, data, chosen)
        same(finished(opt), finished(reference))
    for name, x in reference.surgery.state_dict().items():
        if isinstance(x, torch.Tensor):
            torch.testing.assert_close(opt.surgery.state_dict()[name], x, rtol=1e-9, atol=1e-9)


@quick
@given(st.data())
def test_the_order_of_the_samples_does_not_matter(data: st.DataObject) -> None:
    tasks = data.draw(task_lists)
    order = data.draw(st.permutations(range(len(tasks))))
    model, samples = net(), batch(len(tasks))
    turned = {name: x[torch.tensor(order)] for name, x in samples.items()}
    opt = optimizer(model)
    mixed_step(opt, model, samples, tasks)
    expected = finished(opt)
    opt = optimizer(model)
    mixed_step(opt, model, turned, [tasks[b] for b in order])
    same(finished(opt), expected)


@quick
@given(task_lists, st.permutations(range(len(NAMES))))
def test_other_numbers_for_the_tasks_permute_the_rows(tasks: list[int], names: list[int]) -> None:
    model, samples = net(), batch(len(tasks))
    opt = optimizer(model)
    mixed_step(opt, model, samples, tasks, last=False)
    rows = held(opt)
    opt = optimizer(model)
    mixed_step(opt, model, samples, [names[t] for t in tasks], last=False)
    for task, row in enumerate(rows):
        if task in tasks:
            same(held(opt)[names[task]], row)
        else:
            assert not opt.buffer.captured[names[task]]


@quick
@given(task_lists)
def test_rows_add_up_to_the_plain_gradient(tasks: list[int]) -> None:
    model, samples = net(), batch(len(tasks))
    expected = torch.autograd.grad(loss_of(model, samples), list(model.parameters()))
    opt = optimizer(model)
    mixed_step(opt, model, samples, tasks, last=False)
    rows = [row for task, row in enumerate(held(opt)) if task in tasks]
    same([sum(column) for column in zip(*rows, strict=True)], expected)  # type: ignore[arg-type]
    opt = optimizer(model, monitor=True)
    mixed_step(opt, model, samples, tasks)
    same(finished(opt), expected)


@quick
@given(task_lists, st.data())
def test_several_mixed_batches_equal_one(tasks: list[int], data: st.DataObject) -> None:
    cut = data.draw(st.integers(0, len(tasks) - 1))
    model, samples = net(), batch(len(tasks))
    opt = optimizer(model)
    mixed_step(opt, model, samples, tasks)
    expected = finished(opt)
    opt, size = optimizer(model), len(tasks)
    for part, last in ((range(cut), False), (range(cut, size), True)):
        if len(part):
            chosen = {name: x[torch.tensor(part)] for name, x in samples.items()}
            with opt.mixed_batch([tasks[b] for b in part], last=last):
                (loss_of(model, chosen) * (len(part) / size)).backward()
    same(finished(opt), expected)


@pytest.mark.parametrize("granularity", ["all_matrix", "all_layer", "whole_model"])
@pytest.mark.parametrize("tasks", [(2, 0, 0, 2, 3), (0, 0, 1, 1, 2, 2, 3, 3), (1, 1, 1), (3,), (0, 1, 2, 3)])
def test_all_ways_of_computing_agree(tasks: tuple[int, ...], granularity: str) -> None:
    """Streamed, stored and in two passes, over steps in which the targets move."""
    found = []
    for options in ({}, {"last": False}, {"second_pass": True}):
        model = net()
        opt = optimizer(model, granularity=granularity)
        for step in range(3):
            mixed_step(opt, model, batch(len(tasks), step), tasks, **options)
            opt.step()
            opt.zero_grad()
        found.append([p.detach().clone() for p in model.parameters()])
    same(found[1], found[0])
    same(found[2], found[0], 1e-9)


def test_task_blocks_and_mixed_batches_accumulate() -> None:
    """A `task` block before, a mixed batch after, in one step."""
    tasks, model = [2, 0, 0, 2, 3], net()
    first, second = batch(5), batch(5, 1)
    opt, reference = optimizer(model), optimizer(model)
    separate_step(opt, model, first, tasks)
    mixed_step(opt, model, second, tasks)
    separate_step(reference, model, first, tasks)
    separate_step(reference, model, second, tasks)
    same(finished(opt), finished(reference))
    mixed_step(opt, model, first, tasks, last=False)
    separate_step(opt, model, second, tasks)
    separate_step(reference, model, first, tasks)
    separate_step(reference, model, second, tasks)
    same(finished(opt), finished(reference))


def test_stored_rows_are_not_written_over_by_the_next_batch() -> None:
    """Rows of a batch with last=False are the buffer's own."""
    tasks, model = [2, 0, 0, 2, 3], net()
    opt = optimizer(model)
    mixed_step(opt, model, batch(5), tasks, last=False)
    kept, alone = opt.buffer.rows[0], held(opt)[0]
    mixed_step(opt, model, batch(3, 1), [2, 3, 3], last=False)
    same(kept, alone, 0.0)


def test_combined_gradients_are_nobody_elses() -> None:
    """p.grad of one step is not changed by the next one's block, and no two parameters share memory."""
    tasks, model = [2, 0, 0, 2, 3], net()
    opt = optimizer(model)
    mixed_step(opt, model, batch(5), tasks)
    opt.finish()
    gradients = [p.grad for p in model.parameters()]
    before = copy.deepcopy(gradients)
    assert len({g.untyped_storage().data_ptr() for g in gradients if g is not None}) == len(gradients)
    for p in model.parameters():
        p.grad = None
    mixed_step(opt, model, batch(5, 1), tasks)
    opt.finish()
    same(gradients, before, 0.0)


@pytest.mark.parametrize("ready", [0, 300, 1 << 30])
@pytest.mark.parametrize("granularity", ["all_matrix", "all_layer", "whole_model"])
def test_it_does_not_matter_when_groups_are_corrected(
    granularity: str, ready: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each group by itself as soon as it is complete, a few at a time, all at the end; in memory used again."""
    monkeypatch.setattr("gradsim.optim.streamed.READY_BYTES", ready)
    monkeypatch.setattr("gradsim.one_backward.samples.LARGE_BYTES", 0)
    one, other, tasks = net(), net(), [2, 0, 0, 2, 3]
    opt, reference = optimizer(one, granularity=granularity), optimizer(other, granularity=granularity)
    for step in range(3):
        mixed_step(opt, one, batch(5, step), tasks)
        separate_step(reference, other, batch(5, step), tasks)
        opt.finish()
        reference.finish()
        same([p.grad for p in one.parameters()], [p.grad for p in other.parameters()])
        for each in (opt, reference):
            each.step()
            each.zero_grad()
    same(list(one.parameters()), list(other.parameters()))
