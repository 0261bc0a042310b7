"""Loops with Accelerate against the same loop written out by hand."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from integrations.by_hand import TASKS, Batches, ByHand, assert_same, batches, falling, loss_of, net, wrapped
from torch import Tensor, nn

import gradsim

pytest.importorskip("accelerate")
from accelerate import Accelerator
from accelerate.state import AcceleratorState, GradientState, PartialState
from accelerate.utils import DistributedType

from gradsim.integrations.accelerate import AcceleratedSurgery, prepare


@pytest.fixture(autouse=True)
def fresh_state() -> Iterator[None]:
    """Accelerate's state is shared by all its objects of a process."""
    torch.set_num_threads(1)
    yield
    for kind in (AcceleratorState, GradientState, PartialState):
        kind._reset_state()


def accelerator(**options: Any) -> Accelerator:
    return Accelerator(cpu=True, **options)


def prepared(engine: Accelerator, seed: int = 0) -> tuple[nn.Module, Any, Any]:
    model = net(seed)
    opt = wrapped(model)
    model, opt, scheduler = prepare(engine, model, opt, falling(opt))
    return model, opt, scheduler


def update(engine: Accelerator, model: nn.Module, opt: Any, scheduler: Any, parts: Sequence[Batches]) -> None:
    """One update, as a user would write it."""
    for part in parts:
        with engine.accumulate(model):
            for task, batch in part.items():
                with opt.task(task):
                    engine.backward(loss_of(model, batch))
            opt.finish()
            if engine.sync_gradients:
                engine.clip_grad_norm_(model.parameters(), 0.1)
            opt.step()
            scheduler.step()
            opt.zero_grad()


@pytest.mark.parametrize("accumulated", [1, 3])
def test_is_the_loop_by_hand(accumulated: int) -> None:
    """With clipping, a scheduler, accumulation, and a step that lacks a task."""
    engine = accelerator(gradient_accumulation_steps=accumulated)
    model, opt, scheduler = prepared(engine)
    expected = ByHand(net(), clip=0.1)
    for step in range(3):
        parts = [batches(accumulated * step + i) for i in range(accumulated)]
        update(engine, model, opt, scheduler, parts)
        expected.step(parts)
    assert_same(model, expected.model)
    assert min(expected.norms) > 0.1  # all were clipped
    assert scheduler.get_last_lr() == expected.scheduler.get_last_lr()
    assert torch.equal(opt.similarity().count, expected.surgery.similarity().count)
    torch.testing.assert_close(opt.similarity().cosine, expected.surgery.similarity().cosine, equal_nan=True)


def test_a_loader_that_ends_in_the_middle_of_an_accumulation() -> None:
    """Accelerate steps at the end of the loader; what was captured so far is one step."""
    engine = accelerator(gradient_accumulation_steps=2)
    model = net()
    opt = wrapped(model)
    data = [batches(step) for step in (0, 2, 3)]
    loader = torch.utils.data.DataLoader(data, batch_size=None)
    model, opt, scheduler, loader = prepare(engine, model, opt, falling(opt), loader)
    for part in loader:
        update(engine, model, opt, scheduler, [part])
    expected = ByHand(net(), clip=0.1)
    expected.step(data[:2])
    for part in data[2:]:  # half a step: Accelerate divides by 2 all the same
        expected.step([part, {}])
    assert_same(model, expected.model)


def test_all_losses_at_once_are_scaled_as_accelerator_backward_does() -> None:
    engine = accelerator(gradient_accumulation_steps=2)
    model, opt, scheduler = prepared(engine)
    expected = ByHand(net())
    parts = [batches(0), batches(2)]
    for part in parts:
        with engine.accumulate(model):
            opt.backward({task: loss_of(model, batch) for task, batch in part.items()})
            opt.finish()
            opt.step()
            scheduler.step()
            opt.zero_grad()
    expected.step(parts)
    assert_same(model, expected.model)


def test_mixed_batches_while_gradients_accumulate() -> None:
    """Only the last of a step is streamed; nobody has to say which it is."""
    engine = accelerator(gradient_accumulation_steps=2)
    model, opt, scheduler = prepared(engine)
    expected = ByHand(net())
    for step in range(2):
        parts = [batches(2 * step + i) for i in (2, 3)]
        for part in parts:
            x, y = (torch.cat([pair[i] for pair in part.values()]) for i in (0, 1))
            ids = [task for task, (inputs, _) in part.items() for _ in inputs]
            with engine.accumulate(model):
                with opt.mixed_batch(ids, "mean"):
                    engine.backward(loss_of(model, (x, y)))
                opt.finish()
                opt.step()
                scheduler.step()
                opt.zero_grad()
        expected.step(parts)
    assert_same(model, expected.model)


def fp16(engine: Accelerator, scale: float) -> None:
    """What Accelerate sets up for fp16; it does so on GPUs only, and a GradScaler works on a CPU as well."""
    engine.scaler = torch.amp.GradScaler("cpu", init_scale=scale, growth_interval=100)
    engine.native_amp = True
    engine.state._mixed_precision = "fp16"


def test_a_grad_scaler() -> None:
    """The scaler unscales what the surgery combined; after an overflow nothing has changed but the scale."""
    engine = accelerator()
    model = net(dtype=torch.float32)
    opt = wrapped(model)
    fp16(engine, 2.0**10)
    model, opt, scheduler = prepare(engine, model, opt, falling(opt))
    expected = ByHand(net(dtype=torch.float32), clip=0.1)
    for step in range(4):
        part = batches(step, dtype=torch.float32)
        if step == 2:
            before = [p.detach().clone() for p in model.parameters()]
            x, y = part["am"]
            update(engine, model, opt, scheduler, [{**part, "am": (x * 1e30, y)}])  # infinite in fp16
            assert opt.step_was_skipped and engine.scaler.get_scale() == 2.0**9
            assert all(torch.equal(p, x) for p, x in zip(model.parameters(), before, strict=True))
            assert opt.statistics()["steps"] == 2 and opt.statistics()["skipped"] == 1
        else:
            update(engine, model, opt, scheduler, [part])
            expected.step([part])
    assert_same(model, expected.model, rtol=0.0, atol=2e-3)
    assert scheduler.get_last_lr() == expected.scheduler.get_last_lr()


def test_bfloat16_autocast() -> None:
    engine = accelerator(mixed_precision="bf16")
    model = net(dtype=torch.float32)
    opt = wrapped(model)
    model, opt = prepare(engine, model, opt)
    expected = net(dtype=torch.float32)
    plain = wrapped(expected)
    for step in range(2):
        part = batches(step, dtype=torch.float32)
        for task, batch in part.items():
            with opt.task(task):
                engine.backward(loss_of(model, batch))
            with plain.task(task):
                with torch.autocast("cpu", torch.bfloat16):
                    scores = expected(batch[0])
                nn.functional.cross_entropy(scores.float(), batch[1]).backward()
        opt.finish()
        for one in (opt, plain):
            one.step()
            one.zero_grad()
    assert_same(model, expected)


def test_save_state_and_load_state_go_on_bit_for_bit(tmp_path: Path) -> None:
    engine = accelerator()
    model, opt, scheduler = prepared(engine)
    for step in range(2):
        update(engine, model, opt, scheduler, [batches(step)])
    engine.save_state(str(tmp_path))
    kept = [opt.surgery.state_dict()["tensors"]["target"].clone(), [p.detach().clone() for p in model.parameters()]]
    for step in range(2, 4):
        update(engine, model, opt, scheduler, [batches(step)])
    uninterrupted = [p.detach().clone() for p in model.parameters()], opt.similarity().cosine

    for kind in (AcceleratorState, GradientState, PartialState):
        kind._reset_state()
    engine = accelerator()
    model, opt, scheduler = prepared(engine, seed=9)
    engine.load_state(str(tmp_path))
    assert torch.equal(opt.surgery.state_dict()["tensors"]["target"], kept[0]) and kept[0].any()
    assert all(torch.equal(p, x) for p, x in zip(model.parameters(), kept[1], strict=True))
    for step in range(2, 4):
        update(engine, model, opt, scheduler, [batches(step)])
    assert all(torch.equal(p, x) for p, x in zip(model.parameters(), uninterrupted[0], strict=True))
    assert torch.equal(opt.similarity().cosine, uninterrupted[1])


def test_the_plain_prepare_works_too() -> None:
    """`accelerator.prepare` gives a plain AcceleratedOptimizer; the surgery optimizer is its `.optimizer`."""
    engine = accelerator()
    model = net()
    surgery = wrapped(model)
    model, opt, scheduler = engine.prepare(model, surgery, falling(surgery))
    assert opt.optimizer is surgery and not isinstance(opt, AcceleratedSurgery)
    expected = ByHand(net(), clip=0.1)
    for step in range(2):
        for task, batch in batches(step).items():
            with surgery.task(task):
                engine.backward(loss_of(model, batch))
        surgery.finish()
        engine.clip_grad_norm_(model.parameters(), 0.1)
        opt.step()
        scheduler.step()
        opt.zero_grad()
        expected.step([batches(step)])
    assert_same(model, expected.model)


def test_the_optimizer_is_still_what_accelerate_has() -> None:
    engine = accelerator()
    model = net()
    surgery = wrapped(model)
    model, opt = prepare(engine, model, surgery)
    assert engine._optimizers == [opt] and opt.optimizer is surgery and isinstance(opt, torch.optim.Optimizer)
    assert opt.tasks == TASKS and opt.surgery is surgery.surgery
    with pytest.raises(AttributeError, match="nonsense"):
        _ = opt.nonsense


def test_a_compiled_model_is_bound() -> None:
    engine = accelerator(dynamo_backend="eager")
    model = net()
    opt = wrapped(model)
    prepared_model, opt = prepare(engine, model, opt)
    assert prepared_model is not model and opt.optimizer.model is prepared_model
    groups = opt.surgery.groups
    with opt.task("de"):
        engine.backward(loss_of(model, batches(0)["de"]))
    opt.finish()
    assert opt.surgery.groups == groups


def test_a_step_before_finish_is_refused() -> None:
    """accelerator.clip_grad_norm_ would have clipped nothing."""
    engine = accelerator()
    model, opt, _ = prepared(engine)
    before = [p.detach().clone() for p in model.parameters()]
    with opt.task("de"):
        engine.backward(loss_of(model, batches(0)["de"]))
    engine.clip_grad_norm_(model.parameters(), 0.1)
    with pytest.raises(RuntimeError, match=r"call opt\.finish\(\) after the last backward and before"):
        opt.step()
    assert all(torch.equal(p, x) for p, x in zip(model.parameters(), before, strict=True))
    assert opt.statistics()["steps"] == 0
    opt.finish()
    opt.step()
    assert not all(torch.equal(p, x) for p, x in zip(model.parameters(), before, strict=True))


def test_a_closure() -> None:
    engine = accelerator()
    model, opt, _ = prepared(engine)
    expected = ByHand(net())

    def closure() -> Tensor:
        losses = {task: loss_of(model, batch) for task, batch in batches(0).items()}
        opt.backward(losses)
        return sum(losses.values(), torch.zeros(())).detach()

    opt.step(closure)
    expected.step([batches(0)])
    assert_same(model, expected.model)


ENGINES = [
    (DistributedType.DEEPSPEED, "DeepSpeed reduces"),
    (DistributedType.MEGATRON_LM, "Megatron-LM runs backward"),
    (DistributedType.XLA, "XLA reduces"),
    (DistributedType.FSDP, "first FSDP"),
]


@pytest.mark.parametrize(("kind", "sentence"), ENGINES)
def test_engines_are_refused(kind: DistributedType, sentence: str) -> None:
    engine = accelerator()
    model = net()
    opt = wrapped(model)
    engine.state.distributed_type = kind
    engine.state.fsdp_plugin = SimpleNamespace(fsdp_version=1)
    with pytest.raises(RuntimeError, match=sentence):
        prepare(engine, model, opt)
    assert engine._optimizers == [] and engine._models == []


def test_objects_that_do_not_belong_together_are_refused() -> None:
    engine = accelerator()
    model = net()
    with pytest.raises(TypeError, match="needs a GradVac or PCGrad optimizer among the objects, not only Sequential"):
        prepare(engine, model)
    with pytest.raises(TypeError, match="not only nothing"):
        prepare(engine)
    opt = gradsim.PCGrad(torch.optim.SGD(model.parameters(), lr=0.1), tasks=TASKS, model=model)
    for objects in ((opt,), (opt, net(1)), (opt, model[0])):
        with pytest.raises(ValueError, match="needs the model whose parameters"):
            prepare(engine, *objects)
    assert engine._optimizers == [] and engine._models == []
