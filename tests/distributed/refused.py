"""Cases of setups that would train on wrong gradients without a word: each is refused with a sentence of its own."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.algorithms.ddp_comm_hooks.default_hooks import fp16_compress_hook
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FullyShardedDataParallel, fully_shard
from torch.distributed.tensor.parallel import ColwiseParallel, RowwiseParallel, parallelize_module
from torch.nn.parallel import DistributedDataParallel as DDP
from torch.nn.parallel.distributed import _MixedPrecision

from distributed.comparing import compare, plain_name, whole
from distributed.net import make, micro
from distributed.oracle import expected
from distributed.setting import Setting, Stack
from distributed.stage import one_step, optimizer


@contextmanager
def _untouched(stack: Stack, opt: Any = None) -> Iterator[None]:
    """Parameters, gradients and what the surgery remembers are the same afterwards."""
    before = [p.detach().clone() for p in stack.module.parameters()]
    state = None if opt is None else opt.state_dict()["gradient_surgery"]["tensors"]
    yield
    assert all(p.grad is None for p in stack.module.parameters())
    assert all(torch.equal(p, x) for p, x in zip(stack.module.parameters(), before, strict=True))
    if state is not None:
        after = opt.state_dict()["gradient_surgery"]["tensors"]
        assert all(torch.equal(after[name], x) for name, x in state.items())


def _refuse(stack: Stack, sentence: str, **options: Any) -> None:
    """The constructor or the first capture raises the sentence."""
    error = options.pop("error", RuntimeError)
    with _untouched(stack), pytest.raises(error, match=sentence):
        opt = optimizer(Setting(options=options), stack)
        one_step(opt, stack, [micro("a", 0, 0)])


def plain_module_in_a_job_of_several() -> None:
    net = make()
    _refuse(
        Stack(net), r"this is one of \d processes, and each would train on gradients of its own: give model= the Dis"
    )
    opt = optimizer(Setting(), Stack(net))  # what comes later may make it right
    opt.model = ddp = DDP(net)
    one_step(opt, Stack(ddp), [micro("a", 0, dist.get_rank())])


def plain_module_that_ddp_wraps() -> None:
    net = make()
    ddp = DDP(net)
    _refuse(Stack(ddp, model=net), "belong to a DistributedDataParallel, but model= is not that module")
    _refuse(Stack(ddp, {"process_group": dist.group.WORLD}, model=net), "but model= is not that module")


def settings_of_ddp() -> None:
    for options, sentence in (
        ({"gradient_as_bucket_view": True}, "gradient_as_bucket_view=True, which overwrites the gradients"),
        ({"static_graph": True}, "static_graph=True"),
        ({"mixed_precision": _MixedPrecision(torch.float32)}, r"with mixed_precision=, whose hooks cast"),
    ):
        _refuse(Stack(DDP(make(), **options)), sentence)
    ddp = DDP(make())
    ddp.register_comm_hook(None, fp16_compress_hook)
    _refuse(Stack(ddp), "communication hook, which would never run")
    net = make()
    late = next(net.named_parameters())
    ddp = DDP(net, delay_all_reduce_named_params=[late], param_to_hook_all_reduce=net.out.bias)
    _refuse(Stack(ddp), "delay_all_reduce_named_params=")


def parts_of_a_model() -> None:
    net = make()
    _refuse(Stack(nn.Sequential(DDP(net))), "inside the model is a DistributedDataParallel, but model= must be that")
    net = make()
    net.more = nn.Linear(2, 2).double()
    DDP._set_params_and_buffers_to_ignore_for_model(net, ["more.weight"])
    _refuse(Stack(DDP(net)), r"more\.weight is in the optimizer, but DistributedDataParallel does not reduce")


def fsdp1() -> None:
    net = FullyShardedDataParallel(make(), device_id=torch.device("cpu"), use_orig_params=True)
    _refuse(Stack(net), r"FullyShardedDataParallel \(FSDP1\).*use FSDP2")


def arguments_that_do_not_fit() -> None:
    net = make()
    fully_shard(net)
    for options, sentence in (
        ({"process_group": dist.group.WORLD}, "process_group= is for plain parameters"),
        ({"average": "present"}, "average='present' is not to be had for DTensors"),
        ({"exchange": "all_to_all"}, "exchange= is for parameters that every process has whole"),
        ({"storage": "flat"}, "the rows of DTensors stay as FSDP makes them"),
        ({"storage": "cpu"}, "the rows of DTensors stay as FSDP makes them"),
        ({"rows_dtype": torch.bfloat16}, "the rows of DTensors stay as FSDP makes them"),
    ):
        _refuse(Stack(net), sentence, error=ValueError, **options)
    other = dist.new_group(list(range(dist.get_world_size())))
    _refuse(Stack(DDP(make())), "process_group= is not that of the Dist", error=ValueError, process_group=other)
    for options, sentence in (
        ({"average": "median"}, "average must be 'world' or"),
        ({"exchange": "x"}, "exchange must"),
    ):
        _refuse(Stack(DDP(make())), sentence, error=ValueError, **options)


def ddp_over_dtensors() -> None:
    mesh = init_device_mesh("cpu", (dist.get_world_size(),), mesh_dim_names=("tp",))
    net = make()
    for layer in net.layers:
        parallelize_module(layer, mesh, {"up": ColwiseParallel(use_local_output=False), "down": RowwiseParallel()})
    try:
        ddp = DDP(net)
    except (RuntimeError, TypeError, AttributeError, AssertionError):
        return  # torch itself refuses it
    _refuse(Stack(ddp), "DistributedDataParallel over DTensors")


def parameters_beside_fsdp() -> None:
    net = make()
    for layer in net.layers:
        fully_shard(layer)
    _refuse(Stack(net), "parameter never is not sharded while others are, so that FSDP does not average")


def losses_that_are_ready() -> None:
    net = make()
    fully_shard(net)
    for stack, kind in ((Stack(DDP(make())), "a DistributedDataParallel"), (Stack(net), "an FSDP2 module")):
        opt = optimizer(Setting(), stack)
        losses = {t: micro(t, 0, dist.get_rank()).loss(stack.module) for t in "ab"}
        sentence = f"losses whose forwards ran already, but the model is {kind}"
        for call in (opt.backward, opt.pc_backward):
            with _untouched(stack, opt), pytest.raises(RuntimeError, match=sentence):
                call(losses)


def forwards_outside() -> None:
    """In the first step, and in a later one; with one forward and with two."""
    for steps in (0, 1):
        for tasks in ("a", "ab"):
            stack = Stack(DDP(make()))
            opt = optimizer(Setting(), stack)
            for step in range(steps):
                one_step(opt, stack, [micro(t, step, dist.get_rank()) for t in "abc"])
                opt.zero_grad()
            losses = {t: micro(t, 5, dist.get_rank()).loss(stack.module) for t in tasks}
            with _untouched(stack, opt), pytest.raises(RuntimeError, match=r"forward.*outside"), opt.task("a"):
                losses["a"].backward()


def a_stray_forward_outside() -> None:
    """It arms the reducer of DDP, whose average would hit the next task, although the block itself is as it should."""
    stack = Stack(DDP(make()))
    opt = optimizer(Setting(), stack)
    one_step(opt, stack, [micro(t, 0, dist.get_rank()) for t in "abc"])
    opt.zero_grad()
    stray = micro("b", 1, dist.get_rank()).loss(stack.module)
    with _untouched(stack, opt), pytest.raises(RuntimeError, match=r"ran outside of task\('a'\); its backward would"):
        one_step(opt, stack, [micro("a", 1, dist.get_rank())])
    assert stray.requires_grad


def forwards_and_backwards_outside() -> None:
    stack = Stack(DDP(make()))
    opt = optimizer(Setting(), stack)
    one_step(opt, stack, [micro(t, 0, dist.get_rank()) for t in "abc"])
    opt.zero_grad()
    with opt.task("a"):
        micro("a", 1, 0).loss(stack.module).backward()
    micro("b", 1, 0).loss(stack.module.module).backward()
    with pytest.raises(RuntimeError, match=r"has a gradient in p\.grad that no task has captured"):
        opt.finish()


def forwards_of_fsdp_outside() -> None:
    """FSDP2 reduces in the backward pass: a forward before the block does no harm, and the result is right."""
    net = make()
    fully_shard(net)
    setting = Setting(steps=1)
    opt = optimizer(setting, Stack(net))
    micros = setting.plan(0, dist.get_rank(), dist.get_world_size())
    for m in micros:
        loss = m.loss(net)
        with opt.task(m.task):
            loss.backward()
    opt.finish()
    _compare(setting, net)


def _compare(setting: Setting, net: nn.Module) -> None:
    """p.grad is what the oracle makes of the first step."""
    reference = expected(setting, dist.get_world_size())
    for name, p in net.named_parameters():
        if p.requires_grad:
            name = plain_name(name)
            compare(None if p.grad is None else whole(p.grad), reference.gradients[0][name], 1e-9, name)


def joined() -> None:
    stack = Stack(DDP(make()))
    opt = optimizer(Setting(), stack)
    with (
        _untouched(stack, opt),
        pytest.raises(RuntimeError, match=r"join\(\) of DistributedDataParallel; leave join\(\) out"),
        stack.module.join(),
    ):
        one_step(opt, stack, [micro("a", 0, 0)])


def gradients_kept_back_by_fsdp() -> None:
    net = make()
    fully_shard(net)
    stack = Stack(net)
    opt = optimizer(Setting(), stack)
    net.set_requires_gradient_sync(False)
    with _untouched(stack, opt), pytest.raises(RuntimeError, match=r"set_requires_gradient_sync\(False\)"):
        one_step(opt, stack, [micro("a", 0, dist.get_rank())])
    net.set_requires_gradient_sync(True)
    one_step(opt, stack, [micro("a", 0, dist.get_rank())])


def raised_inside_a_block() -> None:
    """What a rank raises inside a block costs it this task; it may go on, and all agree again."""
    setting = Setting(lambda step, rank, world: [micro(t, step, rank) for t in ("ab" if rank == 0 else "b")], steps=1)
    stack = Stack(DDP(make()))
    opt, rank = optimizer(setting, stack), dist.get_rank()
    if rank > 0:
        with pytest.raises(ZeroDivisionError), opt.task("a"):
            micro("a", 0, rank).loss(stack.module).backward()
            _ = 1 / 0
    assert stack.module.require_backward_grad_sync
    one_step(opt, stack, setting.plan(0, rank, dist.get_world_size()))
    _compare(setting, stack.module)
