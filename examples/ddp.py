"""GradVac under DistributedDataParallel: the result is that of one process with the batches of all of them.

torchrun --nproc-per-node 2 examples/ddp.py
"""

import os

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch.nn.parallel import DistributedDataParallel

import gradsim

TASKS = ["de", "sw", "am"]


def batch(task: str) -> tuple[torch.Tensor, torch.Tensor]:
    """Samples of a task whose teacher agrees in part with those of the others."""
    generator = torch.Generator().manual_seed(0)
    shared, *own = (torch.randn(20, 5, generator=generator) for _ in range(1 + len(TASKS)))
    x = torch.randn(64, 20)
    return x, (x @ (shared + 0.7 * own[TASKS.index(task)])).argmax(1)


cuda = torch.cuda.is_available()
dist.init_process_group("nccl" if cuda else "gloo")
rank = dist.get_rank()
device = torch.device("cuda", int(os.environ["LOCAL_RANK"])) if cuda else torch.device("cpu")
torch.manual_seed(0)
model = torch.nn.Sequential(torch.nn.Linear(20, 64), torch.nn.GELU(), torch.nn.Linear(64, 5)).to(device)
ddp = DistributedDataParallel(model, device_ids=[device.index] if cuda else None)
opt = gradsim.GradVac(torch.optim.AdamW(ddp.parameters(), lr=3e-3), tasks=TASKS, model=ddp)  # model= is the DDP module

torch.manual_seed(rank)  # each process has samples of its own
losses = torch.zeros(len(TASKS), device=device)
for step in range(100):
    mine = TASKS if step % 2 else [task for task in TASKS if task != "am" or rank == 0]  # a process may lack a task
    for task in mine:
        x, y = batch(task)
        with opt.task(task):  # no reduction here: forward and backward of one task
            loss = F.cross_entropy(ddp(x.to(device)), y.to(device))
            loss.backward()
        losses[TASKS.index(task)] = loss.detach()
    opt.finish()  # every process calls it: now the gradients are exchanged, corrected and combined
    torch.nn.utils.clip_grad_norm_(ddp.parameters(), 1.0)  # the same norm everywhere
    opt.step()
    opt.zero_grad()
    if step % 25 == 24:
        means = losses.clone()
        dist.all_reduce(means)
        told = opt.statistics()  # the same everywhere
        if rank == 0:
            values = "  ".join(
                f"{t} {x:.3f}" for t, x in zip(TASKS, (means / dist.get_world_size()).tolist(), strict=True)
            )
            print(f"step {step + 1:3}: loss {values}   corrected {told['corrections']:.0%}", flush=True)
dist.barrier()
dist.destroy_process_group()
