"""Task by task: what is captured, what is put back, and what is refused."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from optim.expected import assert_matches
from optim.stage import TASKS, capture, gradients, loss, model, task_gradients, train, wrapped
from torch import Tensor, nn

from gradsim import GradVac, Surgery


@pytest.fixture(params=["autograd", "flat"])
def storage(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def test_p_grad_is_swapped_in_and_out(storage: str) -> None:
    net = model()
    opt = wrapped(net, storage=storage)
    for step, task in enumerate(TASKS):
        with opt.task(task):
            assert all(p.grad is None for p in net.parameters())
            loss(net, task).backward()
            assert any(p.grad is not None for p in net.parameters())
        assert all(p.grad is None for p in net.parameters())
        assert opt.buffer.captured == [t <= step for t in range(3)]


def test_the_tensors_of_autograd_are_kept_without_a_copy() -> None:
    net = model()
    opt = wrapped(net)
    with opt.task("sw"):
        loss(net, "sw").backward()
        made = [p.grad for p in net.parameters()]
    assert all(x is y for x, y in zip(opt.buffer.rows[1], made, strict=True))
    opt.finish()
    assert all(p.grad is x for p, x in zip(net.parameters(), made, strict=True))  # one task: untouched


def test_micro_batches_of_a_task_accumulate(storage: str) -> None:
    one, many = model(), model()
    opt_one, opt_many = wrapped(one, storage=storage), wrapped(many, storage=storage)
    for task in TASKS:
        with opt_one.task(task):
            (loss(one, task, 0) + loss(one, task, 1)).backward()
    for task, step in (("sw", 0), ("de", 0), ("sw", 1), ("am", 0), ("am", 1), ("de", 1)):
        with opt_many.task(task):
            loss(many, task, step).backward()
    opt_one.finish()
    opt_many.finish()
    for x, y in zip(gradients(one), gradients(many), strict=True):
        assert x is not None and y is not None
        torch.testing.assert_close(x, y)


def test_tasks_may_be_missing(storage: str) -> None:
    net = model()
    opt = wrapped(net, storage=storage, reduction="mean")
    surgery = Surgery(tasks=TASKS, model=net, reduction="mean")
    for step, tasks in enumerate((["de", "am"], ["sw"], TASKS, ["am", "sw"])):
        rows = task_gradients(net, step)
        expected = surgery([row if t in tasks else [None] * len(row) for t, row in zip(TASKS, rows, strict=True)])
        capture(opt, net, step, tasks)
        opt.finish()
        assert_matches(gradients(net), expected)
        opt.step()
        opt.zero_grad()


def test_parameters_that_no_task_reaches_keep_none(storage: str) -> None:
    net = model()
    opt = wrapped(net, storage=storage)
    for task in TASKS[:2]:
        with opt.task(task):
            net.output(torch.ones(1, 8, dtype=torch.float64)).sum().backward()
    opt.finish()
    assert net.embedding.weight.grad is None and net.output.weight.grad is not None
    opt.zero_grad()
    with opt.task("de"):
        pass  # a task without a backward
    opt.finish()
    assert all(p.grad is None for p in net.parameters())


def test_finish_is_idempotent_and_a_capture_after_it_starts_a_new_step(storage: str) -> None:
    net = model()
    opt = wrapped(net, storage=storage)
    capture(opt, net)
    opt.finish()
    first = gradients(net)
    nn.utils.clip_grad_norm_(net.parameters(), 1e-3)
    clipped = gradients(net)
    opt.finish()
    opt.step()
    assert all(
        torch.equal(x, y) for x, y in zip(gradients(net), clipped, strict=True) if x is not None and y is not None
    )
    assert opt.statistics()["steps"] == 1
    with pytest.raises(RuntimeError, match=r"before the first task of the step.*zero_grad\(\)"), opt.task("de"):
        pass
    opt.zero_grad()
    capture(opt, net, 1)
    opt.finish()
    assert opt.statistics()["steps"] == 2
    assert any(
        not torch.equal(x, y) for x, y in zip(gradients(net), first, strict=True) if x is not None and y is not None
    )


def test_step_finishes_and_an_empty_step_is_a_plain_one() -> None:
    net, plain = model(), model()
    opt = wrapped(net)
    capture(opt, net)
    before = [p.detach().clone() for p in net.parameters()]
    opt.step()
    assert any(not torch.equal(x, p) for x, p in zip(before, net.parameters(), strict=True))
    other = wrapped(plain)
    loss(plain, "de").backward()
    other.step()  # nothing captured: the base steps with what is in p.grad
    reference = model()
    loss(reference, "de").backward()
    torch.optim.SGD(reference.parameters(), lr=0.1).step()
    assert all(torch.equal(x, y) for x, y in zip(plain.parameters(), reference.parameters(), strict=True))


def test_zero_grad_drops_what_was_captured() -> None:
    net = model()
    opt = wrapped(net)
    capture(opt, net)
    opt.zero_grad()
    opt.finish()
    assert all(p.grad is None for p in net.parameters()) and opt.statistics()["steps"] == 0


def test_zero_grad_that_keeps_zeros(storage: str) -> None:
    kept, dropped = model(), model()
    opts = wrapped(kept, storage=storage), wrapped(dropped, storage=storage)
    for step in range(3):
        for net, opt in ((kept, opts[0]), (dropped, opts[1])):
            capture(opt, net, step)
            opt.step()
            opt.zero_grad(set_to_none=net is dropped)
    assert all(torch.equal(x, y) for x, y in zip(kept.parameters(), dropped.parameters(), strict=True))
    assert kept.output.weight.grad is not None and not kept.output.weight.grad.any()
    kept.output.weight.grad.add_(1.0)  # no longer what zero_grad left
    with pytest.raises(RuntimeError, match="no task has captured"), opts[0].task("de"):
        pass


def test_flat_rows_are_never_in_p_grad_after_the_step() -> None:
    """What zero_grad(set_to_none=False) leaves must not change when the next gradients are copied."""
    net = model()
    opt = wrapped(net, storage="flat")
    for tasks in (["de"], TASKS):  # reached by one task and by several
        capture(opt, net, 0, tasks)
        opt.finish()
        flat = opt.buffer.flat
        assert flat is not None
        for p in net.parameters():
            assert p.grad is not None and p.grad.untyped_storage().data_ptr() != flat.untyped_storage().data_ptr()
        opt.zero_grad(set_to_none=False)


def test_model_zero_grad_is_enough() -> None:
    """Hugging Face's Trainer never calls the optimizer's."""
    one, other = model(), model()
    train(wrapped(one), one, range(3))
    opt = wrapped(other)
    for step in range(3):
        capture(opt, other, step)
        opt.step()
        other.zero_grad()
    assert all(torch.equal(x, y) for x, y in zip(one.parameters(), other.parameters(), strict=True))


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_an_exception_drops_its_task_only(error: type[BaseException], storage: str) -> None:
    net = model()
    opt = wrapped(net, storage=storage)
    capture(opt, net, 0, ["de", "sw"])
    with pytest.raises(error, match="broken"), opt.task("sw"):
        loss(net, "sw", 1).backward()
        raise error("broken")
    assert all(p.grad is None for p in net.parameters())
    assert opt.buffer.captured == [True, False, False] and all(x is None for x in opt.buffer.rows[1])
    capture(opt, net, 0, ["am"])
    opt.finish()
    rows = task_gradients(net)
    expected = Surgery(tasks=TASKS, model=net)([rows[0], [None] * len(rows[0]), rows[2]])
    assert_matches(gradients(net), expected)


def test_unknown_and_nested_tasks() -> None:
    net = model()
    opt = wrapped(net)
    with pytest.raises(ValueError, match=r"unknown task 'fr'; the tasks are \['de', 'sw', 'am'\]"), opt.task("fr"):
        pass
    with opt.task("de"):
        for inside in (opt.task("sw").__enter__, opt.finish, opt.step, opt.zero_grad):
            with pytest.raises(RuntimeError, match=r"inside task\('de'\)"):
                inside()
        loss(net, "de").backward()
    assert opt.buffer.captured == [True, False, False]


def test_a_backward_outside_of_all_tasks_is_refused() -> None:
    net = model()
    opt = wrapped(net)
    loss(net, "de").backward()
    with pytest.raises(RuntimeError, match=r"embedding.weight has a gradient .*before the first task.*zero_grad\(\)"):
        opt.task("de").__enter__()
    opt.zero_grad()
    capture(opt, net, 0, ["de"])
    loss(net, "sw").backward()
    with pytest.raises(RuntimeError, match="between two tasks"):
        opt.task("sw").__enter__()
    with pytest.raises(RuntimeError, match="after the last task"):
        opt.finish()


@pytest.mark.filterwarnings("ignore:Using backward.. with create_graph")
def test_gradients_that_cannot_be_corrected_are_refused() -> None:
    net = nn.Sequential(nn.Embedding(5, 3, sparse=True), nn.Linear(3, 2))
    opt = wrapped(net)
    with pytest.raises(TypeError, match=r"gradient of 0.weight for task 'de' is sparse.*sparse=False"), opt.task("de"):
        net(torch.tensor([1, 2])).sum().backward()
    assert opt.buffer.captured == [False] * 3 and all(p.grad is None for p in net.parameters())
    dense = model()
    opt = wrapped(dense)
    with pytest.raises(RuntimeError, match=r"requires grad itself.*create_graph"), opt.task("de"):
        loss(dense, "de").backward(create_graph=True)
    assert all(p.grad is None for p in dense.parameters())


@pytest.mark.parametrize("as_list", [False, True])
@pytest.mark.parametrize("name", ["backward", "pc_backward"])
def test_backward_of_all_losses_at_once(as_list: bool, name: str) -> None:
    one, other = model(), model()
    opts = wrapped(one), wrapped(other)
    for step in range(2):
        capture(opts[0], one, step, ["de", "am"])
        losses: Any = {"am": loss(other, "am", step), "de": loss(other, "de", step), "sw": None}
        getattr(opts[1], name)([losses[t] for t in TASKS] if as_list else losses)
        for opt in opts:
            opt.step()
            opt.zero_grad()
    assert all(torch.equal(x, y) for x, y in zip(one.parameters(), other.parameters(), strict=True))


def test_backward_keeps_a_shared_graph_for_all_but_the_last() -> None:
    net = model()
    opt = wrapped(net)
    shared = net.encoder(net.embedding(torch.tensor([[1, 2]]))).mean(1)
    told: list[dict[str, Any]] = []

    def with_keyword(value: Tensor, retain_graph: bool = False) -> None:
        told.append({"retain_graph": retain_graph})
        value.backward(retain_graph=retain_graph)

    def with_any(value: Tensor, **keywords: Any) -> None:
        told.append(keywords)
        value.backward(**keywords)

    for function in (None, with_keyword, with_any):
        opt.zero_grad()
        shared = net.encoder(net.embedding(torch.tensor([[1, 2]]))).mean(1)
        output = net.output(shared)
        opt.backward([output[0, t] for t in range(3)], backward_fn=function)
        with pytest.raises(RuntimeError, match="second time"):
            output[0, 3].backward()
    assert told == [{"retain_graph": True}] * 2 + [{"retain_graph": False}] + [{"retain_graph": True}] * 2 + [{}]


def test_a_backward_function_without_retain_graph_gets_the_loss_only() -> None:
    net = model()
    opt = wrapped(net)
    opt.backward({t: loss(net, t) for t in TASKS}, backward_fn=lambda value: (2 * value).backward())
    opt.finish()
    doubled = [[None if g is None else 2 * g for g in row] for row in task_gradients(net)]
    assert_matches(gradients(net), Surgery(tasks=TASKS, model=net)(doubled))


def test_wrong_losses_are_refused_before_anything_runs() -> None:
    net = model()
    opt = wrapped(net)
    good = loss(net, "de")
    wrong: list[tuple[Any, type[Exception], str]] = [
        ({"de": good, "fr": good}, ValueError, r"unknown tasks \['fr'\]"),
        ([good, good], ValueError, "one entry for each of the 3 tasks"),
        (good, TypeError, "not Tensor"),
        ({"de": 1.0}, TypeError, "the loss of task 'de' must be a tensor or None, not float"),
    ]
    for losses, error, message in wrong:
        with pytest.raises(error, match=message):
            opt.backward(losses)
        assert not any(opt.buffer.captured)


def test_monitor_leaves_the_plain_sum() -> None:
    net, plain = model(), model()
    opt = wrapped(net, monitor=True)
    train(opt, net, range(3))
    base = torch.optim.SGD(plain.parameters(), lr=0.1)
    for step in range(3):
        for task in TASKS:
            loss(plain, task, step).backward()
        base.step()
        base.zero_grad()
    for x, y in zip(net.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(x, y)
    assert opt.similarity().count[0, 0, 1] == 3 and opt.statistics()["corrections"] == 0.0


def test_similarity_and_statistics_are_those_of_the_task_gradients() -> None:
    net = model()
    opt = wrapped(net, granularity="whole_model", vaccinate=["sw"])
    cosines, norms = [], []
    for step in range(3):
        flat = torch.stack(
            [torch.cat([g.flatten() for g in row if g is not None]) for row in task_gradients(net, step)]
        )
        cosines.append(nn.functional.cosine_similarity(flat[:, None], flat[None], dim=-1))
        norms.append(flat.norm(dim=1))
        train(opt, net, range(step, step + 1))
    found, told = opt.similarity(), opt.statistics()
    expected = torch.stack(cosines)
    torch.testing.assert_close(found.cosine[0], expected.mean(0))
    assert found.std is not None and found.norms is not None
    torch.testing.assert_close(found.std[0], expected.std(0, correction=0), atol=1e-7, rtol=1e-7)
    torch.testing.assert_close(found.norms[0], torch.stack(norms).mean(0))
    assert found.tasks == TASKS and found.groups == ["whole_model"] and found.count.eq(3).all()
    others = ~torch.eye(3, dtype=torch.bool)
    assert told["cosine_mean"] == pytest.approx(float(expected[:, others].mean()))
    assert told["cosine"] == {"whole_model": told["cosine_mean"]}
    assert told["negative"] == float((expected[:, 1][:, [0, 2]] < 0).double().mean())
    assert told["steps"] == 3 and told["ms"] > 0 and 0 <= told["corrections"] <= 1


def test_several_wrappers_may_follow_one_another() -> None:
    net = model()
    for _ in range(2):
        opt = wrapped(net)
        train(opt, net, range(2))
        assert all(p.grad is None and not p._backward_hooks for p in net.parameters())
    assert isinstance(opt, GradVac)
