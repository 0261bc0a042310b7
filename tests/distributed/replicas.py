"""Cases of replicated parameters: DDP, and a process group without DDP. Each function runs on every rank."""

from __future__ import annotations

from functools import partial

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel as DDP

from distributed import plans
from distributed.cases import slow
from distributed.comparing import identical
from distributed.net import make, micro
from distributed.setting import Setting, Stack, adamw, sgd
from distributed.stage import check, one_step, optimizer

EXCHANGES = ("reduce_scatter", "all_reduce", "all_to_all")
RARE = partial(make, scalar=True, rare=True)


def _ddp(net: nn.Module, **options: object) -> Stack:
    return Stack(DDP(net, **options))


def _group(net: nn.Module, **options: object) -> Stack:
    return Stack(net, {"process_group": dist.group.WORLD, **options})


def _both(setting: Setting) -> None:
    """By DDP and by a process group."""
    check(setting, _ddp(setting.make()))
    check(setting, _group(setting.make()))


def every_task_everywhere() -> None:
    check(Setting(make=RARE, steps=5), _ddp(RARE()))
    check(Setting(make=RARE, steps=2), _group(RARE()))


def exchanges() -> None:
    for exchange in EXCHANGES:
        check(Setting(plans.lacking, make=RARE, options={"exchange": exchange}), _ddp(RARE()))
        check(Setting(plans.uneven, make=RARE, options={"exchange": exchange}), _group(RARE()))


def granularities() -> None:
    spec = {r"^layers\.0": "low", r"^layers\.1": "high", "embedding": "words"}
    for granularity in ("whole_model", "all_layer", spec):
        check(Setting(options={"granularity": granularity}, steps=2), _ddp(make()))
    # In a group with fewer elements than tasks, rounding would decide.
    check(Setting(options={"granularity": "all_matrix", "exclude": [r"\.gain", r"heads"]}, steps=2), _ddp(make()))


def averages() -> None:
    for average in ("world", "present"):
        options = {"average": average, "reduction": "mean"}
        check(Setting(plans.lacking, make=RARE, steps=2, options=options), _ddp(RARE()))
        check(Setting(plans.first_has_all, make=RARE, steps=2, options=options), _group(RARE()))


@slow
def averages_of_any_plan() -> None:
    for average in ("world", "present"):
        for plan in (plans.lacking, plans.first_has_all, plans.one_each, plans.vanishing):
            _both(Setting(plan, tasks="abcd", make=RARE, options={"average": average, "reduction": "mean"}))


def a_task_per_rank() -> None:
    for exchange in EXCHANGES:
        options = {"exchange": exchange, "average": "present"}
        check(Setting(plans.one_each, tasks="abcd", options=options, steps=2), _group(make()))
        check(Setting(plans.pairs, tasks="ab", options=options, steps=2), _group(make()))
        check(Setting(plans.dealt, tasks="abcde", options=options, steps=2), _group(make()))


def uneven_micro_batches() -> None:
    _both(Setting(plans.uneven, make=RARE))


def tasks_and_ranks_without_anything() -> None:
    _both(Setting(plans.vanishing, make=RARE, steps=6, base=sgd))


def options_of_the_surgery() -> None:
    options = {"vaccinate": ["a", "c"], "exclude": ["embedding", r"\.norm\."], "reduction": "mean", "beta": 0.3}
    check(Setting(plans.lacking, options={**options, "max_target": 0.4, "seed": 11}), _ddp(make()))
    check(Setting(options={"order": "ascending", "beta": 1.0}), _group(make()))
    check(Setting(plans.uneven, method="pcgrad"), _ddp(make()))


def flat_storage() -> None:
    for exchange in EXCHANGES:
        check(Setting(plans.uneven, options={"exchange": exchange, "storage": "flat"}), _ddp(make()))


def rows_elsewhere() -> None:
    """Rows that are kept on the CPU, or in another dtype, in which they travel."""
    for exchange in EXCHANGES:
        options = {"exchange": exchange, "storage": "cpu"}
        check(Setting(plans.uneven, steps=2, options=options), _ddp(make()))
        options = {"exchange": exchange, "rows_dtype": torch.bfloat16, "beta": 1.0}
        check(Setting(base=sgd, steps=1, rtol=3e-2, options=options), _ddp(make()))


def trainings_beside_each_other() -> None:
    """Two halves of the job, each with a process group of its own (of one process where there are two)."""
    rank, half = dist.get_rank(), dist.get_world_size() // 2
    groups = [dist.new_group(list(range(h * half, (h + 1) * half))) for h in range(2)]
    mine = groups[rank // half]
    check(Setting(plans.lacking), Stack(make(), {"process_group": mine}, data=(rank % half, half)))
    check(Setting(plans.uneven), Stack(DDP(make(), process_group=mine), data=(rank % half, half)))


def single_precision() -> None:
    single = partial(make, torch.float32, rare=True)
    for exchange in EXCHANGES:
        setting = Setting(make=single, base=sgd, steps=1, rtol=1e-6, options={"exchange": exchange, "beta": 1.0})
        check(setting, _ddp(single()))


def two_precisions() -> None:
    """bfloat16 layers between float32 ones: means are taken in the precision of the gradients or better."""

    def mixed() -> nn.Module:
        net = Mixed()
        net.low.to(torch.bfloat16)
        return net

    for exchange in EXCHANGES:
        setting = Setting(make=mixed, base=sgd, steps=1, rtol=2e-2, options={"exchange": exchange})
        trace = check(setting, _ddp(mixed()))
        assert trace.gradients[0]["low.weight"].dtype == torch.bfloat16
        assert trace.gradients[0]["high.weight"].dtype == torch.float32


class Mixed(nn.Module):
    """A bfloat16 layer and float32 ones."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.words = nn.Embedding(11, 9)
        self.low = nn.Linear(9, 9)
        self.high = nn.Linear(9, 11)

    def forward(self, words: torch.Tensor, labels: torch.Tensor, task: str) -> torch.Tensor:
        x = self.low(self.words(words).mean(1).bfloat16())
        return nn.functional.cross_entropy(self.high(x.float()), labels)


def clipping() -> None:
    """The norm of the combined gradient is the same on all ranks, and so is what clipping leaves."""
    setting = Setting(plans.lacking)
    stack = _ddp(make())
    opt = optimizer(setting, stack)
    one_step(opt, stack, setting.plan(0, dist.get_rank(), dist.get_world_size()))
    parameters = [p for p in stack.module.parameters() if p.grad is not None]
    alone = torch.cat([p.grad.flatten() for p in parameters]).norm()
    norm = torch.nn.utils.clip_grad_norm_(parameters, 0.1)
    assert abs(float(norm / alone) - 1) < 1e-12 and norm > 0.1
    identical([norm, [p.grad for p in parameters]])


def an_overflow_on_one_rank() -> None:
    """On every rank targets and counters stay, and the gradient is not finite; training goes on."""
    for stack in (_ddp(make()), _group(make()), _group(make(), exchange="all_to_all")):
        setting = Setting(base=adamw)
        opt, rank = optimizer(setting, stack), dist.get_rank()
        one_step(opt, stack, setting.plan(0, rank, dist.get_world_size()))
        opt.zero_grad()
        before = opt.state_dict()["gradient_surgery"]
        with opt.task("a"):
            (micro("a", 1, rank).loss(stack.module) * (torch.inf if rank == 1 else 1.0)).backward()
        with opt.task("b"):
            micro("b", 1, rank).loss(stack.module).backward()
        opt.finish()
        reached = [p.grad for n, p in stack.module.named_parameters() if p.grad is not None and "heads" not in n]
        assert len(reached) > 8 and not any(gradient.isfinite().all() for gradient in reached)
        opt.zero_grad()
        after = opt.state_dict()["gradient_surgery"]
        assert after["tensors"].pop("skipped") == before["tensors"].pop("skipped") + 1
        for name, x in before["tensors"].items():
            assert torch.equal(after["tensors"][name], x), name
        one_step(opt, stack, setting.plan(2, rank, dist.get_world_size()))
        identical([opt.state_dict(), [p.grad for p in stack.module.parameters() if p.grad is not None]])
