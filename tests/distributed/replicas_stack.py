"""Cases of DDP beside what else a training has: buffers, checkpointing, compilation, plain DDP's own result."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel as DDP
from torch.utils.checkpoint import checkpoint

from distributed import plans
from distributed.comparing import compare, identical, plain_name
from distributed.net import Micro, make, micro
from distributed.setting import Setting, Stack, adamw, sgd
from distributed.stage import check, one_step, optimizer


class Joint(nn.Module):
    """All micro-batches of a step in one forward, as plain DDP wants them."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, micros: Sequence[Micro]) -> Tensor:
        return torch.stack([m.loss(self.net) for m in micros]).sum()


def monitoring() -> None:
    """With `monitor=True`, p.grad is what plain DDP leaves for the sum of the losses."""
    for plan in (plans.lacking, plans.uneven, plans.dealt):
        plain = Joint(make())
        micros = plan(0, dist.get_rank(), dist.get_world_size())
        ddp = DDP(plain, find_unused_parameters=True)
        ddp(micros).backward()
        setting = Setting(plan, tasks="abcde", options={"monitor": True})
        stack = Stack(DDP(setting.make()))
        opt = optimizer(setting, stack)
        one_step(opt, stack, micros)
        theirs = {n.removeprefix("net."): p.grad for n, p in plain.named_parameters()}
        for name, p in stack.module.named_parameters():
            compare(p.grad, theirs[plain_name(name)], 1e-12, name)
        assert not opt.state_dict()["gradient_surgery"]["tensors"]["target"].any()
        assert opt.similarity().count.sum() > 0


def ways_to_build_ddp() -> None:
    """No choice of DDP's changes the result; a second step is taken, as DDP then knows its buckets."""
    for options in (
        {"find_unused_parameters": True},
        {"gradient_as_bucket_view": False},
        {"broadcast_buffers": False},
        {"bucket_cap_mb": 0.0001},
        {"init_sync": False},
    ):
        check(Setting(plans.lacking, steps=2), Stack(DDP(make(), **options)))


class Normed(nn.Module):
    """A batch norm, whose running statistics DDP takes from rank 0."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(2)
        self.words = nn.Embedding(11, 6)
        self.norm = nn.BatchNorm1d(6)
        self.out = nn.Linear(6, 11)
        self.double()

    def forward(self, words: Tensor, labels: Tensor, task: str) -> Tensor:
        return nn.functional.cross_entropy(self.out(self.norm(self.words(words).mean(1))), labels)


def buffers_of_rank_0() -> None:
    """The first forward of each step starts from the buffers of rank 0, as after a plain step of DDP."""
    net = Normed()
    seen: list[Tensor] = []
    net.norm.register_forward_pre_hook(lambda module, _: seen.append(module.running_mean.clone()))
    stack = Stack(DDP(net))
    opt = optimizer(Setting(base=sgd), stack)
    for step in range(3):
        one_step(opt, stack, [micro(t, step, dist.get_rank()) for t in "abc"])
        opt.step()
        opt.zero_grad()
    assert len(seen) == 9 and not torch.equal(seen[0], seen[6])
    identical([seen[0], seen[3], seen[6]])


class Checkpointed(nn.Module):
    """The small net with its layers run anew in the backward pass."""

    def __init__(self, reentrant: bool) -> None:
        super().__init__()
        self.net = make()
        for layer in self.net.layers:
            layer.forward = partial(checkpoint, layer.forward, use_reentrant=reentrant)  # type: ignore[method-assign]

    def forward(self, words: Tensor, labels: Tensor, task: str) -> Tensor:
        loss: Tensor = self.net(words, labels, task)
        return loss


def gradient_checkpointing() -> None:
    for reentrant in (False, True):
        build = partial(Checkpointed, reentrant)
        check(Setting(plans.uneven, make=build, steps=2), Stack(DDP(build())))


def frozen_later() -> None:
    """A parameter that is frozen after DDP was built keeps no gradient; the rest goes on."""
    stack = Stack(DDP(make()))
    opt = optimizer(Setting(base=adamw), stack)
    one_step(opt, stack, [micro(t, 0, dist.get_rank()) for t in "abc"])
    opt.step()
    opt.zero_grad()
    frozen = stack.module.module.layers[0].up.weight
    frozen.requires_grad_(False)
    one_step(opt, stack, [micro(t, 1, dist.get_rank()) for t in "abc"])
    assert frozen.grad is None
    identical([p.grad for p in stack.module.parameters() if p.grad is not None])


def evaluation_between() -> None:
    """A forward without gradients between two steps, on one rank only, hurts nothing."""
    stack = Stack(DDP(make(), broadcast_buffers=False))
    opt = optimizer(Setting(), stack)
    for step in range(2):
        one_step(opt, stack, [micro(t, step, dist.get_rank()) for t in "abc"])
        opt.step()
        opt.zero_grad()
        if dist.get_rank() == 0:
            stack.module.eval()
            with torch.no_grad():
                micro("a", 9, 0).loss(stack.module)
            stack.module.train()
    identical(list(stack.module.parameters()))
    identical(opt.state_dict())


def losses_of_ready_forwards() -> None:
    """With a process group and no DDP, `opt.backward` takes losses whose forwards have been run."""
    setting = Setting(plans.lacking)
    one, other = (Stack(make(), {"process_group": dist.group.WORLD}) for _ in range(2))
    micros = plans.lacking(0, dist.get_rank(), dist.get_world_size())
    opt = optimizer(setting, one)
    opt.backward({m.task: m.loss(one.module) for m in micros})
    opt.finish()
    one_step(optimizer(setting, other), other, micros)
    for p, q in zip(one.module.parameters(), other.module.parameters(), strict=True):
        compare(p.grad, q.grad, 1e-12, "a gradient")


def several_on_one_model() -> None:
    """A GradVac, then a PCGrad on the same DDP module: nothing is left on it."""
    setting = Setting()
    stack = Stack(DDP(make()))
    for method in ("gradvac", "pcgrad"):
        opt = optimizer(Setting(method=method), stack)
        one_step(opt, stack, setting.plan(0, dist.get_rank(), dist.get_world_size()))
        opt.step()
        opt.zero_grad()
    identical(list(stack.module.parameters()))
