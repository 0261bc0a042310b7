"""Gradient surgery with Accelerate: accumulation, clipping, a scheduler.

python examples/with_accelerate.py
accelerate launch --cpu --num_processes 2 examples/with_accelerate.py
"""

import torch
import torch.nn.functional as F
from accelerate import Accelerator
from torch.utils.data import DataLoader

import gradsim
from gradsim.integrations.accelerate import prepare

TASKS = ["de", "sw", "am"]
torch.manual_seed(0)
teachers = torch.randn(20, 5) + 0.7 * torch.randn(len(TASKS), 20, 5)  # they agree in part


def sample(i: int) -> dict[str, tuple[torch.Tensor, torch.Tensor]]:
    """One sample of each task; a batch then is a dict from task to its inputs and labels."""
    x = torch.randn(len(TASKS), 20, generator=torch.Generator().manual_seed(i))
    y = torch.einsum("td,tdc->tc", x, teachers).argmax(1)
    return {task: (x[t], y[t]) for t, task in enumerate(TASKS)}


accelerator = Accelerator(cpu=True, gradient_accumulation_steps=2)
model = torch.nn.Sequential(torch.nn.Linear(20, 64), torch.nn.GELU(), torch.nn.Linear(64, 5))
opt = gradsim.GradVac(torch.optim.AdamW(model.parameters(), lr=3e-3), tasks=TASKS, model=model)
scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(opt, 40)
loader = DataLoader([sample(i) for i in range(1280)], batch_size=32, shuffle=True)
model, opt, loader, scheduler = prepare(accelerator, model, opt, loader, scheduler)

for epoch in range(2):
    for batches in loader:
        with accelerator.accumulate(model):
            losses = {}
            for task, (x, y) in batches.items():
                with opt.task(task):
                    loss = F.cross_entropy(model(x), y)
                    accelerator.backward(loss)
                losses[task] = loss.item()
            opt.finish()  # before the clip; nothing while gradients accumulate
            if accelerator.sync_gradients:
                accelerator.clip_grad_norm_(model.parameters(), 1.0)
            opt.step()
            scheduler.step()
            opt.zero_grad()
    told = opt.statistics()
    shown = ", ".join(f"{task} {loss:.3f}" for task, loss in losses.items())
    accelerator.print(f"epoch {epoch + 1}, step {told['steps']}: loss {shown}; ", end="")
    accelerator.print(f"mean cosine {told['cosine_mean']:.3f}, {told['corrections']:.0%} corrected")
# accelerator.save_state(folder) and load_state(folder) keep what the surgery has learned, too
accelerator.print("cosines of the gradients, averaged over the steps and the groups of parameters:")
for task, row in zip(TASKS, opt.similarity().mean().tolist(), strict=True):
    accelerator.print(f"  {task}  " + "  ".join(f"{x:6.3f}" for x in row))
accelerator.end_training()
