"""GradVac under FSDP2: parameters, gradients and rows stay sharded, only Gramians [G, T, T] are added up.

torchrun --nproc-per-node 2 examples/fsdp2.py
"""

import os

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch.distributed.fsdp import fully_shard

import gradsim

TASKS = ["de", "sw", "am"]


def batch(task: str, step: int, rank: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Six words, of which each task is to find another one."""
    generator = torch.Generator().manual_seed(1000 * step + rank)
    words = torch.randint(12, (32, 6), generator=generator)
    return words, words[:, TASKS.index(task)]


cuda = torch.cuda.is_available()
dist.init_process_group("nccl" if cuda else "gloo")
rank = dist.get_rank()
device = torch.device("cuda", int(os.environ["LOCAL_RANK"])) if cuda else torch.device("cpu")
torch.manual_seed(0)
layers = [torch.nn.TransformerEncoderLayer(32, 4, 64, dropout=0.0, batch_first=True) for _ in range(2)]
model = torch.nn.Sequential(torch.nn.Embedding(12, 32), *layers, torch.nn.Flatten(), torch.nn.Linear(192, 12)).to(
    device
)
for layer in layers:
    fully_shard(layer)
fully_shard(model)
# After fully_shard, as for any optimizer: the parameters are DTensors now.
opt = gradsim.GradVac(torch.optim.AdamW(model.parameters(), lr=2e-3), tasks=TASKS, model=model)

for step in range(30):
    losses = {}
    for task in TASKS:  # the same tasks in the same order on every process, as FSDP reduces each backward
        x, y = batch(task, step, rank)
        with opt.task(task):
            loss = F.cross_entropy(model(x.to(device)), y.to(device))
            loss.backward()
        losses[task] = loss.item()
    opt.finish()  # p.grad is a DTensor as FSDP leaves it
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    opt.step()
    opt.zero_grad()
    if step % 10 == 9 and rank == 0:
        told = opt.statistics()
        values = "  ".join(f"{task} {x:.3f}" for task, x in losses.items())
        print(
            f"step {step + 1:3}: loss {values}   cosine {told['cosine_mean']:.3f}, corrected {told['corrections']:.0%}"
        )
dist.barrier()
dist.destroy_process_group()
