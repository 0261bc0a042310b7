"""A training in which one process goes wrong in its third step: `dying.py HOW STACK`, under torchrun."""

from __future__ import annotations

import os
import sys
import time

import torch
import torch.distributed as dist
from torch.distributed.fsdp import fully_shard
from torch.nn.parallel import DistributedDataParallel as DDP

from distributed.net import make, micro
from distributed.setting import Setting, Stack
from distributed.stage import one_step, optimizer

how, kind = sys.argv[1:]
torch.set_num_threads(1)
dist.init_process_group("gloo")
net = make()
if kind == "ddp":
    stack = Stack(DDP(net))
elif kind == "group":
    stack = Stack(net, {"process_group": dist.group.WORLD})
else:
    stack = Stack(fully_shard(net))
opt = optimizer(Setting(), stack)
for step in range(4):
    if step == 2:
        print(f"rank {dist.get_rank()} reached step 2", flush=True)
        if dist.get_rank() == 1:
            time.sleep(0.5)  # so that the others wait for it in finish()
            if how == "exit":
                os._exit(1)
            if how == "raise":
                raise ValueError("a broken batch")
            if how == "kill":
                os.kill(os.getpid(), 9)
            sys.exit(0)  # ends early, as a loader with fewer batches would
    one_step(opt, stack, [micro(t, step, dist.get_rank()) for t in "abc"])
    opt.step()
    opt.zero_grad()
print(f"rank {dist.get_rank()} reached the end", flush=True)
dist.barrier()
os._exit(0)
