"""The callback under automatic optimization, against the same loop written out by hand."""

from __future__ import annotations

import csv as csv_files
import math
import traceback
from pathlib import Path
from typing import Any

import pytest
import torch
from integrations.by_hand import TASKS, ByHand, assert_same, batches, loss_of, net

import gradsim

L = pytest.importorskip("lightning.pytorch")
from integrations.lightning_parts import Automatic, csv, fit, one_by_one, task_of, together  # noqa: E402
from lightning.pytorch.callbacks import ModelCheckpoint  # noqa: E402
from lightning.pytorch.plugins.precision import MixedPrecision  # noqa: E402

from gradsim.integrations.lightning import GradSurgeryCallback  # noqa: E402


@pytest.fixture(autouse=True)
def one_thread(same_start: None) -> None:
    torch.set_num_threads(1)


def each(parts: int, first: int = 2) -> list[dict[str, Any]]:
    """Parts with all tasks (the second step of `batches` lacks one)."""
    return [batches(step) for step in range(first, first + parts)]


def test_a_batch_a_task_is_the_loop_by_hand(tmp_path: Path) -> None:
    """As many batches a step as tasks; Lightning accumulates, clips and steps the scheduler."""
    parts = each(3)
    module = Automatic()
    fit(
        module, one_by_one(parts), tmp_path, GradSurgeryCallback(task_of),
        accumulate_grad_batches=3, gradient_clip_val=0.1,
    )  # fmt: skip
    expected = ByHand(net(), clip=0.1)
    for part in parts:
        expected.step([{task: batch} for task, batch in part.items()])
    assert_same(module.net, expected.model)
    assert min(expected.norms) > 0.1
    assert module.opt.param_groups[0]["lr"] == expected.base.param_groups[0]["lr"]
    torch.testing.assert_close(module.opt.similarity().cosine, expected.surgery.similarity().cosine, equal_nan=True)


def test_two_micro_batches_of_each_task_and_a_short_last_step(tmp_path: Path) -> None:
    """Eight batches in steps of six: Lightning steps at the end of the epoch, and starts anew in the next."""
    parts = each(3)
    module = Automatic()
    data = one_by_one(parts)[:8]
    fit(module, data, tmp_path, GradSurgeryCallback(task_of), accumulate_grad_batches=6, max_epochs=2)
    expected = ByHand(net())
    alone = [{batch["task"]: batch["batch"]} for batch in data]
    for _ in range(2):
        expected.step(alone[:6])
        expected.step([*alone[6:], {}, {}, {}, {}])  # divided by six all the same
    assert_same(module.net, expected.model)
    assert module.opt.statistics()["steps"] == 4


@pytest.mark.parametrize("accumulated", [1, 2])
def test_mixed_batches_are_the_loop_by_hand(tmp_path: Path, accumulated: int) -> None:
    parts = each(4)
    module = Automatic()
    callback = GradSurgeryCallback(task_of, mixed_batch={"task_scale": "mean"})
    fit(
        module, [together(part) for part in parts], tmp_path, callback,
        accumulate_grad_batches=accumulated, gradient_clip_val=0.1,
    )  # fmt: skip
    expected = ByHand(net(), clip=0.1)
    for first in range(0, 4, accumulated):
        expected.step(parts[first : first + accumulated])
    assert_same(module.net, expected.model)


def test_a_checkpoint_resumes_bit_for_bit(tmp_path: Path) -> None:
    data = one_by_one(each(4))
    options: dict[str, Any] = {"accumulate_grad_batches": 3}
    uninterrupted = Automatic()
    fit(uninterrupted, data, tmp_path, GradSurgeryCallback(task_of), max_epochs=2, **options)
    saver = ModelCheckpoint(dirpath=tmp_path, filename="half")
    fit(Automatic(), data, tmp_path, GradSurgeryCallback(task_of), saver, enable_checkpointing=True, **options)
    saved = torch.load(tmp_path / "half.ckpt", weights_only=True)["optimizer_states"][0]
    assert saved["gradient_surgery"]["tensors"]["target"].any()
    resumed = Automatic(seed=7)
    callback = GradSurgeryCallback(task_of)
    fit(resumed, data, tmp_path, callback, resume=tmp_path / "half.ckpt", max_epochs=2, **options)
    for x, y in zip(resumed.net.parameters(), uninterrupted.net.parameters(), strict=True):
        assert torch.equal(x, y)
    assert torch.equal(resumed.opt.similarity().cosine, uninterrupted.opt.similarity().cosine)
    assert resumed.opt.statistics()["steps"] == 8


class Scaled(Automatic):
    """In the third step a loss that is infinite; what each step began with is kept."""

    def __init__(self) -> None:
        super().__init__(torch.float32)
        self.before: list[Any] = []

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        if batch_idx % 3 == 0:
            told = self.opt.statistics()
            weights = [p.detach().clone() for p in self.net.parameters()]
            self.before.append((weights, told["steps"], told["skipped"]))
        loss = super().training_step(batch, batch_idx)
        return loss * math.inf if batch_idx == 6 else loss


def test_a_grad_scaler(tmp_path: Path) -> None:
    """Lightning unscales before its last hook: the surgery has to be over by then. An overflow leaves no trace."""
    parts = [batches(step, dtype=torch.float32) for step in (2, 3, 4, 5)]
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**10)
    module = Scaled()
    fit(
        module, one_by_one(parts), tmp_path, GradSurgeryCallback(task_of), accumulate_grad_batches=3,
        gradient_clip_val=0.1, plugins=[MixedPrecision("16-mixed", "cpu", scaler)],
    )  # fmt: skip
    before, after = module.before[2], module.before[3]
    assert all(torch.equal(x, y) for x, y in zip(before[0], after[0], strict=True))
    assert (before[1:], after[1:]) == ((2, 0), (2, 1)) and scaler.get_scale() == 2.0**9
    expected = ByHand(net(dtype=torch.float32), clip=0.1)
    for part in (parts[0], parts[1]):
        expected.step([{task: batch} for task, batch in part.items()])
    for x, y in zip(before[0], expected.model.parameters(), strict=True):
        torch.testing.assert_close(x, y, rtol=0.0, atol=2e-3)
    assert not torch.equal(after[0][0], module.net[0].weight)  # the fourth step trained again


def test_bfloat16_autocast(tmp_path: Path) -> None:
    parts = [batches(step, dtype=torch.float32) for step in (2, 3)]
    module, data = Automatic(torch.float32), one_by_one(parts)
    fit(module, data, tmp_path, GradSurgeryCallback(task_of), accumulate_grad_batches=3, precision="bf16-mixed")
    expected = Automatic(torch.float32)
    opt: Any = expected.configure_optimizers()
    opt, scheduler = opt["optimizer"], opt["lr_scheduler"]["scheduler"]
    for step in range(2):
        for batch in data[3 * step : 3 * step + 3]:
            with opt.task(batch["task"]):
                with torch.autocast("cpu", torch.bfloat16, cache_enabled=False):
                    loss = loss_of(expected.net, batch["batch"])
                (loss / 3).backward()
        opt.step()
        scheduler.step()
        opt.zero_grad()
    assert_same(module.net, expected.net)


def test_what_was_measured_is_logged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In every second step of six what opt.statistics() says, which waits for the device and is asked for only then."""
    asked: list[Any] = []
    statistics = gradsim.GradVac.statistics
    monkeypatch.setattr(gradsim.GradVac, "statistics", lambda self: asked.append(self) or statistics(self))
    module = Automatic()
    trainer = fit(
        module, one_by_one(each(6)), tmp_path, GradSurgeryCallback(task_of),
        accumulate_grad_batches=3, logger=csv(tmp_path), log_every_n_steps=2,
    )  # fmt: skip
    with (tmp_path / "log" / "version_0" / "metrics.csv").open() as file:
        rows = list(csv_files.DictReader(file))
    assert [row["step"] for row in rows] == ["1", "3", "5"]
    assert len(asked) == 3
    told = module.opt.statistics()
    for name in ("cosine_mean", "corrections"):
        assert float(rows[-1][f"surgery/{name}"]) == pytest.approx(told[name])
        assert float(rows[0][f"surgery/{name}"]) != float(rows[-1][f"surgery/{name}"])
    assert all(float(row["surgery/ms"]) > 0 for row in rows)
    assert float(trainer.callback_metrics["surgery/cosine_mean"]) == pytest.approx(told["cosine_mean"])


class Skipping(Automatic):
    """Lightning: a step that returns None is skipped."""

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        loss = super().training_step(batch, batch_idx)
        return None if batch_idx in (0, 3) else loss


@pytest.mark.parametrize("mixed", [False, True])
def test_a_step_that_returns_none(tmp_path: Path, mixed: bool) -> None:
    """Two batches a step: of the first step the first one is skipped, of the second step the last one."""
    parts = each(6)
    data = [together(part) for part in parts] if mixed else one_by_one(parts)[:6]
    module = Skipping()
    callback = GradSurgeryCallback(task_of, mixed_batch={"task_scale": "mean"} if mixed else None)
    fit(module, data, tmp_path, callback, accumulate_grad_batches=2)
    expected = ByHand(net())
    held = parts if mixed else [{batch["task"]: batch["batch"]} for batch in data]
    for first in (0, 2, 4):
        expected.step([{} if i in (0, 3) else held[i] for i in (first, first + 1)])
    assert_same(module.net, expected.model)
    assert "zero_grad" not in vars(module.opt)


class Failing(Automatic):
    def training_step(self, batch: Any, batch_idx: int) -> Any:
        loss = super().training_step(batch, batch_idx)
        if batch_idx == 1:
            raise ValueError("out of data")
        return loss


@pytest.mark.parametrize("mixed", [False, True])
def test_an_exception_closes_the_block_and_keeps_its_traceback(tmp_path: Path, mixed: bool) -> None:
    module = Failing()
    data = [together(part) for part in each(2)] if mixed else one_by_one(each(2))
    with pytest.raises(ValueError, match="out of data") as caught:
        fit(module, data, tmp_path, GradSurgeryCallback(task_of))
    assert "training_step" in "".join(traceback.format_tb(caught.value.__traceback__))
    module.opt.zero_grad()
    with module.opt.task("de"):  # nothing is open
        loss_of(module.net, batches(0)["de"]).backward()
    module.opt.finish()


class Ending(Automatic):
    def on_train_batch_start(self, batch: Any, batch_idx: int) -> int | None:
        return -1 if batch_idx == 2 else None


def test_an_epoch_that_the_module_ends(tmp_path: Path) -> None:
    module = Ending()
    fit(module, one_by_one(each(2)), tmp_path, GradSurgeryCallback(task_of), max_epochs=2)
    expected = ByHand(net())
    for _ in range(2):
        for batch in one_by_one(each(1))[:2]:
            expected.step([{batch["task"]: batch["batch"]}])
        expected.scheduler.step()  # Lightning steps it for the batch that was not trained, too
    assert_same(module.net, expected.model)


class Plain(Automatic):
    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.parameters(), lr=0.1)


def refused(tmp_path: Path, module: Any, callback: Any, error: type[Exception], sentence: str) -> None:
    before = [p.detach().clone() for p in module.parameters()]
    with pytest.raises(error, match=sentence):
        fit(module, one_by_one(each(1)), tmp_path, callback)
    assert all(torch.equal(p, x) for p, x in zip(module.parameters(), before, strict=True))


def test_what_could_only_be_wrong_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found_none = "found no GradVac or PCGrad optimizer; return one from configure_optimizers"
    refused(tmp_path, Plain(), GradSurgeryCallback(task_of), RuntimeError, found_none)
    untold = r"must be told the task of each batch: GradSurgeryCallback\(task_of=\.\.\.\)"
    refused(tmp_path, Automatic(), GradSurgeryCallback(), RuntimeError, untold)
    nameless = GradSurgeryCallback(lambda batch: 3)  # type: ignore[arg-type]
    refused(tmp_path, Automatic(), nameless, TypeError, "name of a task or the task of each sample, not int")
    unknown = GradSurgeryCallback(lambda batch: "xx")
    refused(tmp_path, Automatic(), unknown, ValueError, "unknown task 'xx'")
    for name in ("DeepSpeedStrategy", "FSDPStrategy", "XLAStrategy"):
        kind = type(name, (L.strategies.SingleDeviceStrategy,), {})
        module = Automatic()
        with pytest.raises(RuntimeError, match=f"the strategy is {name}, but .*; use DDPStrategy or"):
            fit(module, one_by_one(each(1)), tmp_path, GradSurgeryCallback(task_of), strategy=kind("cpu"))
        assert_same(module.net, net())


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"task_of": "de"}, "task_of must be a function of the batch or None, not str"),
        ({"task_of": task_of, "mixed_batch": "mean"}, "mixed_batch must be a dict of arguments, not str"),
        ({"mixed_batch": {"task_scale": "mean"}}, "goes with task_of="),
        ({"task_of": task_of, "mixed_batch": {"last": True}}, "must not hold 'last'"),
    ],
)
def test_wrong_arguments(arguments: dict[str, Any], sentence: str) -> None:
    with pytest.raises(TypeError, match=sentence):
        GradSurgeryCallback(**arguments)


def test_the_optimizer_of_the_module_stays_itself(tmp_path: Path) -> None:
    module = Automatic()
    fit(module, one_by_one(each(1)), tmp_path, GradSurgeryCallback(task_of))
    assert type(module.opt) is gradsim.GradVac and "zero_grad" not in vars(module.opt)
    assert module.opt.tasks == TASKS
