"""TorchJD and gradsim together: its weightings on our Gramians, our GradVac in its engine.

pip install torchjd
python examples/torchjd_weighting.py
"""

import torch
import torchjd
from torchjd.aggregation import IMTLGWeighting

import gradsim
from gradsim.integrations.torchjd import GradVac

TASKS = ["de", "sw", "am", "yo"]
torch.manual_seed(0)
answers = torch.randn(4, 16, 3) + torch.randn(16, 3)  # what the tasks want of the same inputs


def make() -> torch.nn.Module:
    torch.manual_seed(1)
    return torch.nn.Sequential(torch.nn.Linear(16, 64), torch.nn.GELU(), torch.nn.Linear(64, 3))


def batch(each: int = 8) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """So many samples of each task: their task, input and target."""
    tasks = torch.arange(4).repeat(each)
    x = torch.randn(4 * each, 16)
    return tasks, x, torch.einsum("bi,bij->bj", x, answers[tasks])


def losses(model: torch.nn.Module, tasks: torch.Tensor, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """[4], one a task."""
    each = (model(x) - y).square().mean(1)
    return torch.stack([each[tasks == t].mean() for t in range(4)])


held_out = batch(100)


def told(model: torch.nn.Module) -> str:
    with torch.no_grad():
        before, after = (losses(net, *held_out).sum().item() for net in (make(), model))
    return f"loss {before:.1f} to {after:.1f}"


# A weighting of TorchJD, layer by layer, from one backward pass over the mixed batch.
model = make()
base = torch.optim.AdamW(model.parameters(), lr=1e-2)
opt = gradsim.GradVac(base, tasks=TASKS, model=model, weighting=IMTLGWeighting())
for _ in range(40):
    tasks, x, y = batch()
    with opt.mixed_batch(tasks):
        losses(model, tasks, x, y).sum().backward()
    opt.step()
    opt.zero_grad()
print(f"IMTL-G on our Gramians: {told(model)}")

# Our GradVac as an aggregator of TorchJD.
model, aggregator = make(), GradVac()
base = torch.optim.AdamW(model.parameters(), lr=1e-2)
for _ in range(40):
    torchjd.autojac.backward(losses(model, *batch()))
    torchjd.autojac.jac_to_grad(model.parameters(), aggregator)
    base.step()
    base.zero_grad()
print(f"our GradVac in TorchJD's engine: {told(model)}")

# All groups of a model in one call, on TorchJD's Jacobians.
surgery = gradsim.Surgery(tasks=TASKS, model=model, granularity="all_matrix")
torchjd.autojac.backward(losses(model, *batch()))
combined = surgery(list(zip(*(p.jac.unbind() for p in model.parameters()), strict=True)))
print(f"{len(surgery.groups.names)} groups: {', '.join(f'{x.norm():.3f}' for x in combined)}")
