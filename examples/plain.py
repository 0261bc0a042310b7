"""Gradient surgery in a plain PyTorch loop: three tasks that agree in part, with GradVac and without.

python examples/plain.py
"""

import torch
import torch.nn.functional as F

import gradsim

TASKS = ["de", "sw", "am"]


def teachers() -> dict[str, torch.Tensor]:
    """What each task wants of the same inputs: something that they share, and something of its own."""
    generator = torch.Generator().manual_seed(0)
    shared = torch.randn(20, 5, generator=generator)
    return {task: shared + 0.7 * torch.randn(20, 5, generator=generator) for task in TASKS}


def train(monitor: bool) -> None:
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(20, 64), torch.nn.GELU(), torch.nn.Linear(64, 5))
    opt = gradsim.GradVac(
        torch.optim.AdamW(model.parameters(), lr=3e-3),
        tasks=TASKS,
        model=model,
        monitor=monitor,  # True: measure only, and train on the plain sum
    )
    print("\nstep    " + "  ".join(f"loss {task}" for task in TASKS) + "   mean cosine   corrected")
    for step in range(100):
        losses = {}
        for task, teacher in teachers().items():
            x = torch.randn(64, 20)
            with opt.task(task):  # forward and backward of one task
                loss = F.cross_entropy(model(x), (x @ teacher).argmax(1))
                loss.backward()
            losses[task] = loss.item()
        opt.finish()  # the combined gradient is in p.grad now
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        opt.step()
        opt.zero_grad()
        if step % 25 == 24:
            told = opt.statistics()
            values = "  ".join(f"{losses[task]:7.3f}" for task in TASKS)
            print(f"{step + 1:4}    {values}   {told['cosine_mean']:11.3f}   {told['corrections']:9.0%}")
    print("cosines of the gradients, averaged over the steps and the groups of parameters:")
    for task, row in zip(TASKS, opt.similarity().mean().tolist(), strict=True):
        print(f"  {task}  " + "  ".join(f"{x:6.3f}" for x in row))


for monitor in (True, False):
    print("\nplain sum of the gradients:" if monitor else "\nGradVac:", end="")
    train(monitor)
