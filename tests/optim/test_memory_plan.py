"""The memory plan against what is really allocated, and what it says."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable
from typing import Any

import pytest
import torch
from one_backward.live_bytes import Bytes
from torch import nn

from gradsim import GradVac, PCGrad
from gradsim.optim import SurgeryOptimizer, held, streamed
from gradsim.optim.memory_plan import in_units

Step = Callable[[SurgeryOptimizer, nn.Module], None]
STORED: list[dict[str, Any]] = [
    {"storage": storage, "rows_dtype": dtype}
    for storage in ("autograd", "flat", "cpu")
    for dtype in (None, torch.bfloat16)
]
SHAPES = {"wide": (6, [96] * 6 + [200]), "narrow, many tasks": (30, [8] * 9), "one large": (5, [8, 8, 3000, 8])}


def built(shape: str, dtype: torch.dtype = torch.float32, **options: Any) -> tuple[SurgeryOptimizer, nn.Module]:
    """Linear layers: batches of one sample, so that activations are small next to the weights."""
    T, widths = SHAPES[shape]
    torch.manual_seed(0)
    layers = (nn.Linear(n, m, bias=False, dtype=dtype) for n, m in itertools.pairwise(widths))
    model = nn.Sequential(*layers)
    tasks = [str(t) for t in range(T)]
    return GradVac(torch.optim.SGD(model.parameters(), lr=0.1), tasks=tasks, model=model, **options), model


def inputs(opt: SurgeryOptimizer, model: nn.Module) -> torch.Tensor:
    weight = next(model.parameters())
    return torch.randn(len(opt.tasks), weight.shape[1], dtype=weight.dtype)


def blocks(opt: SurgeryOptimizer, model: nn.Module) -> None:
    for task, x in zip(opt.tasks, inputs(opt, model), strict=True):
        with opt.task(task):
            model(x[None]).square().sum().backward()


def batch(**options: Any) -> Step:
    def step(opt: SurgeryOptimizer, model: nn.Module) -> None:
        with opt.mixed_batch(list(range(len(opt.tasks))), **options):
            model(inputs(opt, model)).square().sum().backward()

    return step


def two_batches(opt: SurgeryOptimizer, model: nn.Module) -> None:
    batch(last=False)(opt, model)
    batch()(opt, model)


def measured(step: Step, opt: SurgeryOptimizer, model: nn.Module) -> Bytes:
    """Of two steps: in the second, what stays from step to step is there. The state of the surgery is not counted."""
    with Bytes() as counted:
        for _ in range(2):
            step(opt, model)
            opt.finish()
            opt.zero_grad()
    return counted


@pytest.fixture
def one_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """No group waits for another. (In these models all of them would.)"""
    monkeypatch.setattr(held, "UPLOAD_BYTES", 1)
    monkeypatch.setattr(streamed, "READY_BYTES", 1)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("how", STORED, ids=str)
def test_blocks_of_tasks_take_what_the_plan_says(how: dict[str, Any], shape: str, one_by_one: None) -> None:
    opt, model = built(shape, granularity="all_matrix", **how)
    plan = opt.memory_plan()
    choice = plan[plan.present]
    found = measured(blocks, opt, model)
    assert found.peak == pytest.approx(choice.peak - plan.state + choice.host, rel=0.03)
    assert found.live == pytest.approx(choice.kept + choice.host, rel=0.001)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(
    ("name", "step"),
    [
        ("mixed_batch()", batch()),
        ("mixed_batch(second_pass=True)", batch(second_pass=True)),
        ("mixed_batch(last=False), then mixed_batch()", two_batches),
    ],
)
def test_mixed_batches_take_what_the_plan_says(name: str, step: Step, shape: str, one_by_one: None) -> None:
    opt, model = built(shape, granularity="all_matrix")
    plan = opt.memory_plan()
    found = measured(step, opt, model)
    activations = 8 * sum(len(opt.tasks) * 4 * width for width in SHAPES[shape][1])  # forward, backward, gathered
    planned = plan[name].peak - plan.state
    assert 0.97 * planned <= found.peak <= 1.03 * planned + activations
    assert found.live == pytest.approx(plan[name].kept, rel=0.02, abs=4096)


@pytest.mark.parametrize(
    ("name", "step", "how"),
    [
        ("storage='cpu', rows_dtype=torch.bfloat16", blocks, {"storage": "cpu", "rows_dtype": torch.bfloat16}),
        ("mixed_batch()", batch(), {}),
    ],
)
def test_small_groups_that_wait_for_each_other(name: str, step: Step, how: dict[str, Any]) -> None:
    opt, model = built("wide", granularity="all_matrix", **how)
    choice = opt.memory_plan()[name]
    found = measured(step, opt, model)
    assert found.peak == pytest.approx(choice.peak - opt.memory_plan().state + choice.host, rel=0.03)
    (rows,) = (n for part, n in choice.parts.items() if part.endswith(("rows of one group", "memory of rows")))
    assert rows == len(opt.tasks) * opt.memory_plan().gradient / (2 if how else 1)


def test_plain_training_is_the_first_line() -> None:
    opt, model = built("wide")
    plan = opt.memory_plan()
    with Bytes() as counted:
        model(inputs(opt, model)[:1]).square().sum().backward()
    assert counted.live == pytest.approx(plan["plain training"].peak, rel=0.01)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16])
def test_the_dtype_of_the_gradients_counts(dtype: torch.dtype) -> None:
    opt, model = built("wide", dtype)
    plan = opt.memory_plan()
    N = sum(p.numel() for p in model.parameters())
    assert plan.gradient == N * dtype.itemsize and plan.dtypes == [str(dtype).removeprefix("torch.")]
    names = {choice.name for choice in plan.choices}
    assert ("storage='cpu', rows_dtype=torch.bfloat16" in names) == (dtype is torch.float64)  # nothing to be gained
    for p in model.parameters():
        p.grad_dtype = torch.float32
    assert opt.memory_plan().gradient == 4 * N


def test_what_is_frozen_takes_nothing() -> None:
    opt, model = built("wide")
    before = opt.memory_plan()
    model[0].weight.requires_grad_(False)
    plan = opt.memory_plan()
    size = model[0].weight.numel()
    assert plan.num_parameters == before.num_parameters - size and plan.gradient == before.gradient - 4 * size


def test_json_and_the_table() -> None:
    opt = built("wide", storage="flat", rows_dtype=torch.bfloat16)[0]
    plan = opt.memory_plan(world=4)
    told = json.loads(json.dumps(plan.to_dict()))
    assert (told["num_tasks"], told["num_groups"], told["world"], told["device"]) == (6, 6, 4, "cpu")
    assert told["largest_group"] == {"name": "5", "bytes": 4 * 96 * 200}
    assert told["present"] == "storage='flat', rows_dtype=torch.bfloat16"
    for choice, each in zip(plan.choices, told["choices"], strict=True):
        assert each["peak"] == choice.peak == sum(each["parts"].values()) and choice.name == each["name"]
    text = str(plan)
    assert all(choice.name in text and in_units(choice.peak) in text for choice in plan.choices)
    (marked,) = [line for line in text.splitlines() if line.startswith("* storage")]
    assert marked.split()[1:3] == ["storage='flat',", "rows_dtype=torch.bfloat16"]
    assert "65,280 parameters in 6 groups (largest: 5, 76.8 kB), 6 tasks, float32 on cpu" in text
    with pytest.raises(KeyError):
        plan["storage='disk'"]


def test_a_plan_changes_nothing() -> None:
    opt, model = built("wide")
    with Bytes() as counted:
        opt.memory_plan(world=3)
    assert counted.total == 0 and all(p.grad is None for p in model.parameters()) and not any(opt.buffer.captured)


def test_more_processes_hold_smaller_slices() -> None:
    opt, _ = built("wide")
    N, T = opt.memory_plan().gradient, len(opt.tasks)
    for world in (2, 8):
        choice = opt.memory_plan(world=world)[f"{world} processes, exchange='reduce_scatter'"]
        assert choice.parts["rows"] == T * N  # all in one bucket here
        assert choice.parts["slices of the mean rows"] == pytest.approx(T * N / world, rel=0.01)
    assert not any("processes" in choice.name for choice in opt.memory_plan().choices)


def test_hundreds_of_tasks_are_the_state() -> None:
    """LoRA-like: many tasks, small parameters; the pairs of tasks take more than the gradients."""
    model = nn.Sequential(*(nn.Linear(8, 8) for _ in range(50)))
    tasks = [str(t) for t in range(300)]
    opt = PCGrad(torch.optim.SGD(model.parameters()), tasks=tasks, model=model, granularity="all_matrix")
    plan = opt.memory_plan()
    tensors = opt.surgery.state_dict()["tensors"].values()
    assert plan.state == sum(x.nbytes for x in tensors) > 10 * plan["storage='autograd'"].parts["rows"]


@pytest.mark.parametrize(
    ("nbytes", "text"),
    [(0, "0 B"), (999, "999 B"), (1000, "1 kB"), (1536, "1.54 kB"), (999_600, "1 MB"), (25 * 10**12, "25 TB")],
)
def test_units(nbytes: int, text: str) -> None:
    assert in_units(nbytes) == text
