"""Several models, optimizers and threads; parameters that are frozen or belong to another."""

from __future__ import annotations

from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from counting import Counted
from one_backward.oracle import Work, combined
from one_backward.stack_parts import TASKS, apart, mixed, net, separate_backwards, task_ids, work, wrapped
from torch import Tensor, nn

from gradsim import GradVac, PCGrad
from gradsim.one_backward.eager import eager
from gradsim.optim import SurgeryOptimizer


def around(parameters: Iterable[Tensor], model: nn.Module) -> SurgeryOptimizer:
    return wrapped(model, base=torch.optim.SGD(list(parameters), lr=0.1))


def expected_of(opt: SurgeryOptimizer, part: Work) -> list[Tensor | None]:
    separate_backwards(opt, part)
    return combined(opt)


@pytest.mark.parametrize("frozen", ["words", "positions", "layers.0", "inner.weight", "norm", "head", "no parameter"])
@pytest.mark.parametrize("handed_over", [True, False])
def test_parameters_that_are_frozen(frozen: str, handed_over: bool) -> None:
    model = net()
    for name, p in model.named_parameters():
        p.requires_grad_(frozen not in name)
    taken = [p for p in model.parameters() if handed_over or p.requires_grad]
    opts = around(taken, model), around(taken, model)
    part = work(model)
    expected = expected_of(opts[0], part)
    mixed(opts[1], part)
    opts[1].finish()
    assert apart(combined(opts[1]), expected) < 1e-6


def test_parameters_of_another_optimizer_get_their_plain_gradient() -> None:
    """As with T backwards, autograd adds it up in p.grad; a second step does not mind that it is still there."""
    model: Any = net()
    own = [p for name, p in model.named_parameters() if "words" not in name and "layers.0" not in name]
    other = [p for p in model.parameters() if all(p is not q for q in own)]
    opts = around(own, model), around(own, model)
    part = work(model)
    separate_backwards(opts[0], part)
    expected = [p.grad for p in own], [p.grad for p in other]
    model.zero_grad()
    mixed(opts[1], part)
    opts[1].finish()
    assert apart([p.grad for p in own], expected[0]) < 1e-6
    assert apart([p.grad for p in other], expected[1]) < 1e-6
    opts[1].step()
    opts[1].zero_grad()
    mixed(opts[1], work(model, 1))


def both(first: Any, second: Any, words: Tensor, labels: Tensor) -> Tensor:
    """A loss through two models."""
    x = first.words(words) + second.words(words)
    for layer in (*first.layers, *second.layers):
        x = layer(x)
    return F.cross_entropy(second.head(x).flatten(0, 1), labels.flatten())


def test_two_models_in_one_block_one_optimizer() -> None:
    models = nn.ModuleList([net(), net()])
    words, labels = work(models[0]).batch.values()
    ids = task_ids(9)
    opts = wrapped(models), wrapped(models)
    for t, name in enumerate(TASKS):
        own = ids == t
        with opts[0].task(name):
            (both(*models, words[own], labels[own]) * float(own.float().mean())).backward()
    opts[0].finish()
    expected = combined(opts[0])
    with opts[1].mixed_batch(ids):
        both(*models, words, labels).backward()
    opts[1].finish()
    assert apart(combined(opts[1]), expected) < 1e-6


def test_two_optimizers_take_turns_on_one_model() -> None:
    """A block each, one after the other; one inside the other is refused, and neither has captured anything then."""
    model = net()
    halves = [[p for name, p in model.named_parameters() if name.startswith("layers") == inside] for inside in (0, 1)]
    part = work(model)
    expected = expected_of(wrapped(model), part)
    opts = [around(half, model) for half in halves]
    with (
        pytest.raises(RuntimeError, match="inside that of another optimizer"),
        opts[0].mixed_batch(part.task_ids),
        opts[1].mixed_batch(part.task_ids),
    ):
        part.loss.backward()
    assert all(p.grad is None for p in model.parameters())
    for opt, other in zip(opts, reversed(opts), strict=True):
        mixed(opt, part)
        opt.finish()
        other.base.zero_grad()  # the other half got its plain gradient
        own = [any(p is q for q in opt.buffer.parameters) for p in model.parameters()]
        assert apart(combined(opt), [x for x, mine in zip(expected, own, strict=True) if mine]) < 1e-6


def test_a_second_wrapper_on_the_same_model() -> None:
    """PCGrad after GradVac, on a model that GradVac has trained with mixed batches; then GradVac again."""
    model = net()
    kinds = (GradVac, PCGrad, GradVac)
    for step, kind in enumerate(kinds):
        part = work(model, step)
        expected = expected_of(wrapped(model, kind), part)
        opt = wrapped(model, kind)
        mixed(opt, part)
        opt.finish()
        assert apart([p.grad for p in model.parameters()], expected) < 1e-6
        opt.step()
        opt.zero_grad()


def refused(opt: SurgeryOptimizer, sentence: str) -> Any:
    return pytest.raises(RuntimeError, match=sentence)


def test_blocks_in_several_threads_at_once() -> None:
    def train(seed: int) -> float:
        model = net_of[seed]
        reference, opt = wrapped(model), wrapped(model)
        error = 0.0
        for step in range(4):
            part = work(model, 10 * seed + step)
            expected = expected_of(reference, part)
            mixed(opt, part)
            opt.finish()
            error = max(error, apart(combined(opt), expected))
        return error

    net_of = [net() for _ in range(4)]
    with ThreadPoolExecutor(4) as pool:
        assert max(pool.map(train, range(4))) < 1e-6


def test_blocks_that_overlap_leave_the_compiler_as_it_was() -> None:
    """The compiler has one stance for all threads: a block that is left first must not end that of another."""
    backend = Counted()
    compiled = torch.compile(lambda x: x * 2, backend=backend)
    first, second = eager(), eager()
    first.__enter__()
    second.__enter__()
    first.__exit__(None, None, None)
    compiled(torch.ones(2))
    assert not backend.runs
    second.__exit__(None, None, None)
    compiled(torch.ones(2))
    assert backend.runs
