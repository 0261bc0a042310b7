"""`verify=True`: what it lets pass, what it finds, and that it leaves nothing behind."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from one_backward.oracle import Work, combined
from one_backward.proof import assert_close, wrapped
from one_backward.zoo import BY_NAME, unequal
from torch import Tensor, nn

from gradsim import GradVac
from gradsim.one_backward.collector import Collector
from gradsim.optim import SurgeryOptimizer, mixed_batch

pytestmark = [
    pytest.mark.filterwarnings("ignore:enable_nested_tensor"),
    pytest.mark.filterwarnings("ignore::FutureWarning:transformers"),
]
IDS = [1, 0, 2, 0, 2, 2, 1]  # three tasks, seven samples
B, L, D, C = len(IDS), 5, 8, 3

Body = Callable[["Net", Tensor], Tensor]


class Net(nn.Module):
    """Words, two layers with something between, classes; the mean over the words of a sample is what is classified."""

    def __init__(self, between: Body | None = None, inside: bool = False, dropout: float = 0.0) -> None:
        super().__init__()
        self.words = nn.Embedding(20, D)
        self.first, self.norm, self.second = nn.Linear(D, D), nn.LayerNorm(D), nn.Linear(D, C)
        self.between, self.inside, self.dropout = between, inside, dropout
        self.register_buffer("calls", torch.zeros(()))

    def forward(self, words: Tensor, labels: Tensor | None = None) -> dict[str, Tensor]:
        self.calls += 1
        x = F.dropout(torch.tanh(self.first(self.words(words))), self.dropout, self.training)
        x = x if self.between is None else self.between(self, x)
        scores = self.second(self.norm(x)).mean(1)
        if not self.inside:
            return {"scores": scores}
        return {"scores": scores, "loss": F.cross_entropy(scores, labels)}


def data(samples: int = B) -> tuple[Tensor, Tensor]:
    return torch.randint(0, 20, (samples, L)), torch.randint(0, C, (samples,))


def loss_of(model: nn.Module, words: Tensor, labels: Tensor) -> Tensor:
    output = model(words, labels=labels)
    return output["loss"] if "loss" in output else F.cross_entropy(output["scores"], labels)


def optimizer(model: nn.Module, **options: Any) -> SurgeryOptimizer:
    base = torch.optim.SGD(model.parameters(), lr=0.1)
    return GradVac(base, tasks=["a", "b", "c"], model=model, order="ascending", **options)


def verified(opt: SurgeryOptimizer, model: nn.Module, scale: float = 1.0, **options: Any) -> None:
    words, labels = data()
    with opt.mixed_batch(IDS, verify=True, **options):
        (loss_of(model, words, labels) * scale).backward()


@pytest.mark.parametrize("name", ["bert", "gpt2", "t5", "lstm", "own-decoder-tied"])
def test_passes_and_changes_nothing(name: str) -> None:
    case = BY_NAME[name]
    if any(importlib.util.find_spec(package) is None for package in case.needs):
        pytest.skip("a package is not installed")
    work = Work(case, case.make(mode="train"), case.draw(*case.shape, 10), unequal(case.shape[0]))
    found = []
    for verify in (False, True):
        opt = wrapped(work)
        with opt.mixed_batch(work.task_ids, verify=verify, batch_dim=case.batch_dim):
            work.loss.backward()
        opt.finish()
        assert opt._verified is verify
        found.append(combined(opt))
    assert_close(found[1], found[0], work, "with verify")


@pytest.mark.parametrize("inside", [True, False])
def test_dropout(inside: bool) -> None:
    """Checked without it; random numbers, modes, buffers and hooks are as if nothing had been checked."""
    model = Net(inside=inside, dropout=0.3)
    model.first.eval()  # modules may be in different modes
    gradients = []
    for verify in (False, True):
        opt = optimizer(model)
        torch.manual_seed(3)
        model.calls.zero_()
        words, labels = data()
        with opt.mixed_batch(IDS, verify=verify):
            loss_of(model, words, labels).backward()
        opt.finish()
        gradients.append(([p.grad.clone() for p in model.parameters() if p.grad is not None], torch.rand(3)))
        opt.zero_grad()
        assert opt._verified is verify
        assert model.calls == 1
        assert model.training and model.second.training and not model.first.training
        assert not model._forward_hooks and not model._forward_pre_hooks
    for x, y in zip(gradients[0][0], gradients[1][0], strict=True):
        torch.testing.assert_close(x, y)
    assert torch.equal(gradients[0][1], gradients[1][1])


def scaled(self: Net, x: Tensor) -> Tensor:
    """A statistic of the batch as a number, which no tensor shows."""
    return torch.sin(x / float(x.detach()[:, 0].std()))


def centred(self: Net, x: Tensor) -> Tensor:
    return x - x.detach().mean(0)


def attending(self: Net, x: Tensor) -> Tensor:
    """Each sample to all others, by way of an array."""
    pooled = torch.from_numpy(x.detach().mean(1).numpy().copy())
    return x + ((pooled @ pooled.T).softmax(1) @ pooled)[:, None]


def crowded(self: Net, x: Tensor) -> Tensor:
    """Room for four samples, as experts have it."""
    return torch.where(torch.arange(len(x))[:, None, None] < 4, x, x * 0.5)


@pytest.mark.parametrize("inside", [True, False])
@pytest.mark.parametrize("between", [scaled, centred, attending, crowded])
def test_samples_that_interact(between: Body, inside: bool) -> None:
    model = Net(between, inside)
    # The engine itself may see some of these, and may refuse them.
    assert_caught(optimizer(model), model, "verify=True" if between is scaled else "verify=True|mixed_batch")


def test_negatives_from_the_batch() -> None:
    class Pairs(Net):
        def forward(self, words: Tensor, labels: Tensor | None = None) -> dict[str, Tensor]:
            x = self.second(self.norm(self.first(self.words(words)))).mean(1)
            scores = F.cosine_similarity(x[:, None], x.detach()[None], dim=-1)
            return {"loss": F.cross_entropy(scores, torch.arange(len(x)))}

    model = Pairs()
    assert_caught(optimizer(model), model, "verify=True|mixed_batch")


def assert_caught(opt: SurgeryOptimizer, model: nn.Module, match: str) -> None:
    """An error, and afterwards everything is as it was."""
    targets = opt.surgery.state_dict()["tensors"]["target"].clone()
    modes = [module.training for module in model.modules()]
    with pytest.raises(RuntimeError, match=match):
        verified(opt, model)
    assert not opt._verified
    assert all(p.grad is None for p in model.parameters())
    assert not any(opt.buffer.captured) and not opt._in_step()
    assert torch.equal(opt.surgery.state_dict()["tensors"]["target"], targets)
    assert modes == [module.training for module in model.modules()]
    assert not model._forward_hooks and not model._forward_pre_hooks
    words, labels = data()
    with opt.task("a"):
        loss_of(model, words, labels).backward()
    opt.finish()
    assert all(p.grad is not None for p in model.parameters())


def planted(monkeypatch: pytest.MonkeyPatch, parameter: Tensor, wrong: Callable[[Tensor], Tensor]) -> None:
    right = Collector.add

    def add(self: Collector, target: Tensor, roots: tuple[int, ...], values: Tensor, *rest: Any) -> None:
        right(self, target, roots, wrong(values) if target is parameter else values, *rest)

    monkeypatch.setattr(Collector, "add", add)


@pytest.mark.parametrize("inside", [True, False])
@pytest.mark.parametrize("wrong", [lambda x: x.flip(0), lambda x: x * 1.01], ids=["other rows", "one percent"])
def test_a_wrong_rule(monkeypatch: pytest.MonkeyPatch, inside: bool, wrong: Callable[[Tensor], Tensor]) -> None:
    model = Net(inside=inside)
    planted(monkeypatch, model.second.weight, wrong)
    with pytest.raises(RuntimeError, match=rf"second\.weight \(Linear\) .* and 1 of {len(list(model.parameters()))} "):
        verified(optimizer(model), model)


class TimeFirst(nn.Module):
    """[L, B] words, each predicted from the sum of those before it."""

    def __init__(self) -> None:
        super().__init__()
        self.words, self.output = nn.Embedding(20, D), nn.Linear(D, 20)

    def forward(self, words: Tensor) -> Tensor:
        x = self.words(words)
        scores: Tensor = self.output(x.cumsum(0))
        return scores


@pytest.mark.parametrize("batch_dim", [None, 0, 1])
def test_samples_in_the_second_dimension(batch_dim: int | None) -> None:
    """As many words as samples: only who says where the samples are is let pass."""
    model, words = TimeFirst(), torch.randint(0, 20, (B, B))
    opt = optimizer(model)

    def run() -> None:
        with opt.mixed_batch(IDS, verify=True, batch_dim=batch_dim):
            F.cross_entropy(model(words).flatten(0, 1), words.flatten()).backward()

    if batch_dim == 1:
        run()
        assert opt._verified
    else:
        with pytest.raises(RuntimeError, match=r"verify=True|mixed_batch"):
            run()


def test_only_the_first_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    """Later ones do not even look at the model; who takes up the work again checks again."""
    model = Net()
    opt = optimizer(model)
    verified(opt, model)
    opt.step()
    opt.zero_grad()
    assert model.calls == 1

    def never(*args: Any) -> None:
        raise AssertionError("checked again")

    with monkeypatch.context() as patch:
        patch.setattr(mixed_batch, "check", never)
        patch.setattr(model, "register_forward_hook", never)
        verified(opt, model)
        opt.finish()
    resumed = optimizer(model)
    resumed.load_state_dict(opt.state_dict())
    model.between = scaled
    with pytest.raises(RuntimeError, match="verify=True"):
        resumed.zero_grad()
        verified(resumed, model)


def test_needs_the_model() -> None:
    model = Net()
    opt = GradVac(torch.optim.SGD(model.named_parameters(), lr=0.1), tasks=["a", "b", "c"])
    with pytest.raises(ValueError, match="model="), opt.mixed_batch(IDS, verify=True):
        raise AssertionError("the block was run")


@pytest.mark.parametrize("options", [{"last": False}, {"second_pass": True}, {"task_scale": {"b": 3.0}}])
def test_every_way_of_a_block(options: dict[str, Any]) -> None:
    model = Net(inside=True)
    words, labels = data()
    found = []
    for verify in (False, True):
        opt = optimizer(model, exclude=["words"])
        with opt.mixed_batch(IDS, verify=verify, **options):
            loss_of(model, words, labels).backward()
        opt.finish()
        assert opt._verified is verify
        found.append([p.grad for p in model.parameters()])
        opt.zero_grad()
    for x, y in zip(*found, strict=True):
        torch.testing.assert_close(x, y)


def test_an_error_in_the_model() -> None:
    model = Net(inside=True)
    with pytest.raises(IndexError), optimizer(model).mixed_batch(IDS, verify=True):
        loss_of(model, torch.full((B, L), 20), torch.zeros(B, dtype=torch.long))
    assert not model._forward_hooks and not model._forward_pre_hooks


def test_another_module_was_called() -> None:
    model = Net()
    with pytest.raises(RuntimeError, match="model="), optimizer(model).mixed_batch(IDS, verify=True):
        words, labels = data()
        F.cross_entropy(model.second(model.words(words)).mean(1), labels).backward()


def test_cannot_run_a_task_alone() -> None:
    class Fixed(Net):
        def forward(self, words: Tensor, labels: Tensor | None = None) -> dict[str, Tensor]:
            return super().forward(words.view(B, L), labels)

    model = Fixed()
    with pytest.raises(RuntimeError, match=r"task 'a' alone: RuntimeError: .*\[0\] in dimension 0"):
        verified(optimizer(model), model)


def test_a_single_task_or_an_overflow_is_no_check() -> None:
    model = Net(inside=True)
    opt = optimizer(model)
    words, labels = data()
    with opt.mixed_batch([0] * B, verify=True):
        loss_of(model, words, labels).backward()
    opt.zero_grad()
    assert not opt._verified
    verified(opt, model, scale=float("inf"))
    opt.zero_grad()
    assert not opt._verified
    verified(opt, model)
    assert opt._verified


class TwoMeans(Net):
    """A loss inside that is a mean over words and one over samples; some samples have no labels for their words."""

    def forward(self, words: Tensor, labels: Tensor | None = None) -> tuple[Tensor, list[Tensor]]:
        x = torch.tanh(self.first(self.words(words)))
        scores = self.second(self.norm(x))
        each = torch.where(words % 2 == 0, words % C, -100)
        loss = 0.5 * F.cross_entropy(scores.mT, each) - F.cross_entropy(scores.mean(1), labels) / -2.0
        return loss, [x]


@pytest.mark.parametrize("task_scale", [None, "mean"])
def test_a_sum_of_means(task_scale: str | None) -> None:
    """One factor for each of the terms, and another output that the block makes a loss of."""
    model = TwoMeans()
    opt = optimizer(model, exclude=["first.bias"])
    words, labels = data()
    words[[0, 6]] |= 1  # no word of task b has a label
    with opt.mixed_batch(IDS, verify=True, task_scale=task_scale):
        loss, (hidden,) = model(words, labels)
        (loss * 3 + hidden.square().mean()).backward()
    assert opt._verified


def test_several_calls() -> None:
    """One after the other, the second with what the first gave; and one without gradients."""
    model = nn.GRU(D, D, batch_first=True)
    x, start = torch.randn(B, L, D), torch.randn(1, B, D)
    opt = optimizer(model, granularity="whole_model")
    with opt.mixed_batch(IDS, verify=True):
        with torch.no_grad():
            model(x)
        hidden, _ = model(x, start)
        hidden, last = model(hidden)
        (hidden.square().mean() + last.sin().mean()).backward()
    assert opt._verified


def test_autocast() -> None:
    """The calls are run as in the block, where autocast was on."""
    model = Net(inside=True)
    opt = optimizer(model)
    words, labels = data()
    with opt.mixed_batch(IDS, verify=True):
        with torch.autocast("cpu", torch.bfloat16):
            loss = loss_of(model, words, labels)
        loss.backward()
    assert opt._verified
    model.between = lambda self, x: torch.sin(x * len(x))
    with pytest.raises(RuntimeError, match="3e-01"), optimizer(model).mixed_batch(IDS, verify=True):
        with torch.autocast("cpu", torch.bfloat16):
            loss = loss_of(model, words, labels)
        loss.backward()
