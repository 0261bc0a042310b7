"""Manual optimization: the module opens the tasks; Lightning hands it an imitation of the optimizer."""

from __future__ import annotations

import csv as csv_files
from pathlib import Path
from typing import Any

import pytest
import torch
from integrations.by_hand import TASKS, ByHand, assert_same, batches, loss_of, net, wrapped

import gradsim

L = pytest.importorskip("lightning.pytorch")
from integrations.lightning_parts import Manual, csv, fit, one_by_one, task_of, together  # noqa: E402
from lightning.pytorch.core.optimizer import LightningOptimizer  # noqa: E402
from lightning.pytorch.plugins.precision import MixedPrecision  # noqa: E402

from gradsim.integrations.lightning import GradSurgeryCallback  # noqa: E402


@pytest.fixture(autouse=True)
def one_thread(same_start: None) -> None:
    torch.set_num_threads(1)


class Clipped(Manual):
    clip = 0.1


@pytest.mark.parametrize("callbacks", [0, 1])
def test_is_the_loop_by_hand(tmp_path: Path, callbacks: int) -> None:
    """The callback only logs here: it is the same without it."""
    parts = [batches(step) for step in range(4)]  # the second lacks a task
    module = Clipped()
    fit(module, parts, tmp_path, *[GradSurgeryCallback()] * callbacks)
    expected = ByHand(net(), clip=0.1)
    for part in parts:
        expected.step([part])
    assert_same(module.net, expected.model)
    assert min(expected.norms) > 0.1


class Hasty(Manual):
    """A mixed batch, and neither finish() nor zero_grad() of its own name."""

    def training_step(self, batch: Any, batch_idx: int) -> None:
        opt, scheduler = self.optimizers(), self.lr_schedulers()
        with opt.mixed_batch(batch["task"], "mean"):
            self.manual_backward(loss_of(self.net, batch["batch"]))
        opt.step()
        scheduler.step()
        opt.zero_grad()


@pytest.mark.parametrize("callbacks", [0, 1])
def test_a_mixed_batch_on_the_imitation_is_one_on_the_optimizer(tmp_path: Path, callbacks: int) -> None:
    """What is captured through `self.optimizers()` must be there when the strategy steps the real one."""
    parts = [batches(step) for step in (2, 3, 4)]
    module = Hasty()
    fit(module, [together(part) for part in parts], tmp_path, *[GradSurgeryCallback()] * callbacks)
    expected = ByHand(net())
    for part in parts:
        expected.step([part])
    assert_same(module.net, expected.model)


def test_the_imitation_has_nothing_of_its_own() -> None:
    model = net()
    opt = wrapped(model)
    imitation: Any = LightningOptimizer(opt)
    assert isinstance(imitation, gradsim.GradVac) and type(opt) is gradsim.GradVac
    own = set(vars(imitation))
    with imitation.task("de"):
        assert opt._open is not None
        with pytest.raises(RuntimeError, match="inside"):
            opt.finish()
        loss_of(model, batches(0)["de"]).backward()
    imitation.finish()
    assert repr(imitation.statistics()) == repr(opt.statistics()) and imitation.surgery is opt.surgery
    imitation.zero_grad(set_to_none=False)
    with opt.task("de"):  # opt knows about the zeros
        loss_of(model, batches(0)["de"]).backward()
    imitation.zero_grad()
    imitation.param_groups = imitation.param_groups
    imitation.add_param_group({"params": []})
    assert set(vars(imitation)) == own and imitation.buffer is opt.buffer
    assert imitation.tasks == TASKS and len(opt.param_groups) == 2


class Untidy(Manual):
    """finish() is left to the callback, and a hook of the module wants to see the result before the step."""

    def training_step(self, batch: Any, batch_idx: int) -> None:
        opt = self.optimizers()
        for task, part in batch.items():
            with opt.task(task):
                self.manual_backward(loss_of(self.net, part))
        opt.step()
        opt.zero_grad()

    def on_before_optimizer_step(self, optimizer: Any) -> None:
        self.seen = [p.grad.clone() for p in self.net.parameters() if p.grad is not None]


def test_hooks_before_the_step_see_the_combined_gradient(tmp_path: Path) -> None:
    module = Untidy()
    fit(module, [batches(0)], tmp_path, GradSurgeryCallback())
    model = net()
    opt = wrapped(model)
    opt.backward({task: loss_of(model, batch) for task, batch in batches(0).items()})
    opt.finish()
    assert len(module.seen) == 4
    for x, p in zip(module.seen, model.parameters(), strict=True):
        torch.testing.assert_close(x, p.grad)


def test_a_grad_scaler(tmp_path: Path) -> None:
    """manual_backward scales; opt.finish() comes before opt.step(), where Lightning unscales."""
    parts = [batches(step, dtype=torch.float32) for step in range(3)]
    module = Manual(torch.float32)
    plugin = MixedPrecision("16-mixed", "cpu", torch.amp.GradScaler("cpu", init_scale=2.0**10))
    fit(module, parts, tmp_path, GradSurgeryCallback(), plugins=[plugin])
    expected = ByHand(net(dtype=torch.float32))
    for part in parts:
        expected.step([part])
    assert_same(module.net, expected.model, rtol=0.0, atol=1e-2)


class Adversaries(Manual):
    """Two surgery optimizers, which only manual optimization allows."""

    def configure_optimizers(self) -> Any:
        self.both = []
        for part in (self.net[0], self.net[2]):
            base = torch.optim.SGD(part.parameters(), lr=0.1)
            self.both.append(gradsim.PCGrad(base, tasks=TASKS, model=self.net))
        return self.both

    def training_step(self, batch: Any, batch_idx: int) -> None:
        for opt in self.optimizers():
            for task, part in batch.items():
                with opt.task(task):
                    self.manual_backward(loss_of(self.net, part))
            opt.step()
            self.net.zero_grad()


def test_two_optimizers_are_logged_apart(tmp_path: Path) -> None:
    module = Adversaries()
    fit(module, [batches(0)], tmp_path, GradSurgeryCallback(), logger=csv(tmp_path))
    with (tmp_path / "log" / "version_0" / "metrics.csv").open() as file:
        (row,) = csv_files.DictReader(file)
    for i, opt in enumerate(module.both):
        assert float(row[f"surgery_{i}/cosine_mean"]) == pytest.approx(opt.statistics()["cosine_mean"])
    assert row["surgery_0/cosine_mean"] != row["surgery_1/cosine_mean"]


def test_task_of_is_refused(tmp_path: Path) -> None:
    module = Manual()
    with pytest.raises(RuntimeError, match=r"build GradSurgeryCallback\(\) without task_of"):
        fit(module, one_by_one([batches(0)]), tmp_path, GradSurgeryCallback(task_of))
    assert_same(module.net, net())


def test_a_callback_for_the_other_distribution(tmp_path: Path) -> None:
    """`pytorch_lightning` is a second copy of the same code; its Trainer takes the callback as well."""
    other = pytest.importorskip("pytorch_lightning")

    class Module(other.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.net = net()

        def configure_optimizers(self) -> Any:
            return wrapped(self.net)

        def training_step(self, batch: Any, batch_idx: int) -> Any:
            return loss_of(self.net, batch["batch"])

    module, parts = Module(), [batches(2)]
    trainer = other.Trainer(
        accelerator="cpu", devices=1, max_epochs=1, accumulate_grad_batches=3, logger=False,
        callbacks=[GradSurgeryCallback(task_of)], enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False, default_root_dir=tmp_path,
    )  # fmt: skip
    trainer.fit(module, torch.utils.data.DataLoader(one_by_one(parts), batch_size=None))
    expected = ByHand(net())
    expected.step([{task: batch} for task, batch in parts[0].items()])
    assert_same(module.net, expected.model)
