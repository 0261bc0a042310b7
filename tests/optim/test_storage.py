"""Rows on the CPU, in bfloat16, or both: the same surgery, and what rounding may change."""

from __future__ import annotations

import copy
import math
import pickle
from typing import Any

import pytest
import torch
from optim.expected import assert_matches
from optim.stage import TASKS, capture, gradients, loss, model, task_gradients, train, wrapped
from torch import Tensor, nn

from gradsim import GradVac, PCGrad, Surgery
from gradsim.optim import SurgeryOptimizer, held

CPU: dict[str, Any] = {"storage": "cpu"}
ROUNDED: list[dict[str, Any]] = [
    {"storage": storage, "rows_dtype": torch.bfloat16} for storage in ("autograd", "flat", "cpu")
]
ALL = [CPU, *ROUNDED]
UNIT = 2.0**-8  # what rounding to bfloat16 changes at most, relative to each element


@pytest.fixture(params=[1, held.UPLOAD_BYTES], ids=["group by group", "together"])
def upload_bytes(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(held, "UPLOAD_BYTES", request.param)


def same_state(one: SurgeryOptimizer, other: SurgeryOptimizer, rtol: float = 1e-9) -> None:
    tensors = [opt.surgery.state_dict()["tensors"] for opt in (one, other)]
    for name, x in tensors[0].items():
        torch.testing.assert_close(x, tensors[1][name], rtol=rtol, atol=rtol, msg=name)


@pytest.mark.parametrize(
    "options",
    [
        {"beta": 0.3},
        {"granularity": "all_matrix", "reduction": "mean", "exclude": "embedding"},
        {"granularity": "whole_model", "monitor": True},
        {"order": "ascending", "vaccinate": ["sw"], "exclude": ["output", "embedding"]},
    ],
    ids=str,
)
def test_rows_on_the_cpu_change_nothing(options: dict[str, Any], upload_bytes: None) -> None:
    nets = model(), model()
    opts = [wrapped(net, **how, **options) for net, how in zip(nets, ({}, CPU), strict=True)]
    for step, tasks in enumerate((TASKS, ["am"], ["sw", "de", "sw"], TASKS)):
        for opt, net in zip(opts, nets, strict=True):
            capture(opt, net, step, tasks)
            opt.finish()
        assert_matches(gradients(nets[1]), gradients(nets[0]), 1e-9)
        for opt in opts:
            opt.step()
            opt.zero_grad(set_to_none=step % 2 == 0)
    same_state(*opts)
    assert opts[1].statistics()["ms"] > 0


@pytest.mark.parametrize("how", ROUNDED, ids=str)
@pytest.mark.parametrize("kind", ["gradvac", "pcgrad", "mean"])
def test_the_surgery_of_the_rounded_rows(how: dict[str, Any], kind: str, upload_bytes: None) -> None:
    """Correct to float32 for what the rows have become, and rounded once more; p.grad keeps its dtype."""
    net = model(torch.float32)
    method = "pcgrad" if kind == "pcgrad" else "gradvac"
    options: dict[str, Any] = {"reduction": "mean" if kind == "mean" else "sum", "exclude": "output"}
    surgery = Surgery(method, tasks=TASKS, model=net, **options)
    opt = wrapped(net, PCGrad if method == "pcgrad" else GradVac, **how, **options)
    for step, tasks in enumerate((TASKS, ["sw", "am"], TASKS)):
        own = [
            row if t in tasks else [None] * len(row) for t, row in zip(TASKS, task_gradients(net, step), strict=True)
        ]
        rows = [[None if x is None else x.bfloat16().double() for x in row] for row in own]
        expected = surgery(rows)
        capture(opt, net, step, tasks)
        opt.finish()
        for found, right in zip(gradients(net), expected, strict=True):
            assert found is not None and right is not None and found.dtype == torch.float32
            torch.testing.assert_close(found.double(), right, rtol=1.001 * UNIT, atol=1e-5 * float(right.abs().max()))
        opt.step()
        opt.zero_grad(set_to_none=step % 2 == 0)
    torch.testing.assert_close(
        opt.surgery.state_dict()["tensors"]["target"], surgery.state_dict()["tensors"]["target"], rtol=0, atol=1e-6
    )


class Two(nn.Module):
    def __init__(self, size: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(size))


def cosine(rows: list[Tensor], how: dict[str, Any]) -> tuple[float, float]:
    """The cosine of two gradients (float64) as the optimizer measures it, and as it is."""
    net = Two(rows[0].numel()).double()
    opt = GradVac(torch.optim.SGD(net.parameters(), lr=1.0), tasks=["a", "b"], model=net, monitor=True, **how)
    for task, row in zip(("a", "b"), rows, strict=True):
        with opt.task(task):
            (net.weight * row).sum().backward()
    opt.step()
    x, y = (row / row.norm() for row in rows)
    return float(opt.similarity().cosine[0, 0, 1]), float(x @ y)


BOUND = 2 * math.asin(UNIT)  # rounding turns a vector by no more than asin(2^-8), and a cosine follows the angle


@pytest.mark.parametrize("how", ROUNDED, ids=str)
def test_cosines_of_rounded_rows_are_within_their_bound(how: dict[str, Any]) -> None:
    worst = 0.0
    for seed in range(20):
        generator = torch.Generator().manual_seed(seed)
        size = [1, 2, 5, 64, 4096][seed % 5]
        rows = list(torch.randn(2, size, generator=generator, dtype=torch.float64).exp())
        rows[1] *= torch.randn(size, generator=generator, dtype=torch.float64).sign() if seed % 2 else 1.0
        rows = [row * scale for row, scale in zip(rows, (1e-9, 1e9), strict=True)]
        found, right = cosine(rows, how)
        worst = max(worst, abs(found - right))
    assert 1e-7 < worst <= BOUND


def test_the_bound_is_nearly_reached() -> None:
    """All elements sit half way between two bfloat16, and the rows are turned to each other: no smaller bound holds."""
    low, high = 1 + UNIT, 1 + 3 * UNIT  # to 1, and to 1 + 4 / 256
    rows = [torch.tensor([low, high], dtype=torch.float64), torch.tensor([-low, high], dtype=torch.float64)]
    found, right = cosine(rows, ROUNDED[0])
    assert 0.95 * BOUND < abs(found - right) <= BOUND
    assert cosine(rows, CPU)[0] == pytest.approx(right, abs=1e-15)


@pytest.mark.parametrize("how", ALL, ids=str)
def test_one_task_is_rounded_and_nothing_else(how: dict[str, Any]) -> None:
    net = model()
    opt = wrapped(net, reduction="mean", **how)
    capture(opt, net, 0, ["sw"])
    capture(opt, net, 1, ["sw"])
    opt.finish()
    one, two = (task_gradients(net, step, ["sw"])[0] for step in range(2))
    for p, x, y in zip(net.parameters(), one, two, strict=True):
        assert x is not None and y is not None and p.grad is not None and p.grad.dtype == torch.float64
        expected = x + y if how is CPU else (x.bfloat16().double() + y).bfloat16().double()
        assert torch.equal(p.grad, expected)


@pytest.mark.parametrize("how", ALL, ids=str)
def test_a_block_that_fails_and_tasks_that_reach_nothing(how: dict[str, Any]) -> None:
    net, fresh = model(), model()
    opt, reference = wrapped(net, **how), wrapped(fresh, **how)
    for each in (opt, reference):
        each.finish()  # nothing was captured
        assert all(p.grad is None for p in each.buffer.parameters)
    capture(opt, net, 0, ["de", "am"])
    capture(opt, net, 1, ["sw"])
    with pytest.raises(ZeroDivisionError), opt.task("sw"):
        loss(net, "sw").backward()
        raise ZeroDivisionError
    with opt.task("de"):
        net.embedding.weight.sum().backward()
    capture(reference, fresh, 0, ["de", "am"])
    with reference.task("de"):
        fresh.embedding.weight.sum().backward()
    opt.finish()
    reference.finish()
    for x, y in zip(gradients(net), gradients(fresh), strict=True):
        assert x is not None and y is not None and torch.equal(x, y)


@pytest.mark.parametrize("how", ALL, ids=str)
def test_an_overflow_leaves_no_trace(how: dict[str, Any]) -> None:
    net = model(torch.float32)
    opt = wrapped(net, beta=0.3, **how)
    train(opt, net, range(1))
    before = opt.surgery.state_dict()["tensors"]
    capture(opt, net, 1)
    with opt.task("sw"):
        (net.output.bias * math.inf).sum().backward()
    opt.finish()
    assert net.output.bias.grad is not None and not net.output.bias.grad.isfinite().all()
    opt.zero_grad()
    after = opt.surgery.state_dict()["tensors"]
    assert all(torch.equal(after[name], x) for name, x in before.items() if name != "skipped")
    assert opt.statistics()["skipped"] == 1


@pytest.mark.parametrize("how", ALL, ids=str)
def test_copies_and_new_groups_keep_the_choice(how: dict[str, Any]) -> None:
    net = model()
    opt = wrapped(net, **how)
    train(opt, net, range(1))
    for each in (copy.deepcopy(opt), pickle.loads(pickle.dumps(opt))):
        assert (each.buffer.storage, each.buffer.rows_dtype) == (how["storage"], how.get("rows_dtype"))
        assert each.buffer.captured == [False] * 3
    net.more = nn.Linear(4, 2).double()
    opt.add_param_group({"params": list(net.more.parameters())})
    assert (opt.buffer.storage, opt.buffer.rows_dtype) == (how["storage"], how.get("rows_dtype"))
    assert len(opt.buffer.parameters) == len(list(net.parameters()))
    train(opt, net, range(1, 2))
    assert opt.statistics()["steps"] == 2


def test_gradients_in_another_dtype_than_their_parameters_keep_it() -> None:
    """`grad_dtype`: float32 gradients of bfloat16 parameters."""
    net = model(torch.bfloat16)
    for p in net.parameters():
        p.grad_dtype = torch.float32
    for how in ALL:
        opt = wrapped(net, **how)
        capture(opt, net)
        opt.finish()
        assert all(p.grad is not None and p.grad.dtype == torch.float32 for p in net.parameters())
        opt.zero_grad()


def test_wrong_values() -> None:
    net = model()
    with pytest.raises(ValueError, match=r"rows_dtype must be torch.bfloat16 or None .* not torch.float16"):
        wrapped(net, rows_dtype=torch.float16)
    with pytest.raises(ValueError, match="storage must be 'autograd', 'flat' or 'cpu', not 'gpu'"):
        wrapped(net, storage="gpu")
