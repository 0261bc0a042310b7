"""Save and resume, the Trainer's loggers, and what one Trainer goes through in its life."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from integrations.trainer_parts import (
    TASKS,
    assert_close,
    assert_equal,
    causal,
    classes,
    classifier,
    parameters,
    texts,
    trainer,
)
from torch import nn
from transformers import Seq2SeqTrainer, Seq2SeqTrainingArguments, TrainerCallback
from transformers.trainer_utils import get_last_checkpoint

import gradsim
from gradsim.integrations.transformers import SIMILARITY_FILE, GradSurgeryMixin

SURGERY = {"method": "gradvac", "beta": 0.3}
FIVE = {"max_steps": 5, "save_steps": 2, "save_strategy": "steps", "gradient_accumulation_steps": 2}


@pytest.mark.parametrize(
    ("one_backward", "sampling"), [(False, "temperature"), (True, None)], ids=["task by task", "one backward"]
)
def test_resumed_equals_uninterrupted_bit_for_bit(tmp_path: Path, one_backward: bool, sampling: str | None) -> None:
    """In the middle of an epoch of three steps, with dropout, shuffling, accumulation and the schedule."""
    surgery = {**SURGERY, "one_backward": one_backward}
    whole = classifier(0.1)
    options = {**FIVE, "per_device_train_batch_size": 4}
    first = trainer(tmp_path / "a", whole, classes(), surgery=surgery, sampling=sampling, options=options)
    first.train()
    saved = torch.load(tmp_path / "a" / "checkpoint-2" / "optimizer.pt", weights_only=True)
    assert saved["gradient_surgery"]["tensors"]["step"] == 2
    resumed = classifier(0.1)
    with torch.no_grad():
        for p in resumed.parameters():
            p.zero_()
    again = trainer(tmp_path / "b", resumed, classes(), surgery=surgery, sampling=sampling, options=options)
    again.train(resume_from_checkpoint=str(tmp_path / "a" / "checkpoint-2"))
    assert again.state.global_step == 5
    assert_equal(parameters(whole), parameters(resumed))
    states = [x.surgery_optimizer.surgery.state_dict() for x in (first, again)]
    for name, x in states[0]["tensors"].items():
        assert torch.equal(x, states[1]["tensors"][name]), name
    for mine, theirs in zip(again.state.log_history[2:-1], first.state.log_history[2:-1], strict=True):
        apart = ("surgery/ms",)
        assert {k: v for k, v in mine.items() if k not in apart} == {k: v for k, v in theirs.items() if k not in apart}


def test_a_checkpoint_holds_the_similarity_so_far(tmp_path: Path) -> None:
    ours = trainer(tmp_path, surgery=SURGERY, options={"save_strategy": "steps", "save_steps": 2, "max_steps": 4})
    ours.train()
    assert get_last_checkpoint(str(tmp_path)) == str(tmp_path / "checkpoint-4")
    similarity = gradsim.Similarity.load(tmp_path / "checkpoint-4" / SIMILARITY_FILE)
    assert similarity == ours.surgery_optimizer.similarity() and similarity.tasks == TASKS
    assert int(similarity.count.max()) == 4
    assert int(gradsim.Similarity.load(tmp_path / "checkpoint-2" / SIMILARITY_FILE).count.max()) == 2


def test_training_twice_goes_on_with_the_same_optimizer(tmp_path: Path) -> None:
    ours = trainer(tmp_path, surgery=SURGERY, options={"max_steps": 2})
    ours.train()
    opt = ours.surgery_optimizer
    ours.train()
    assert ours.surgery_optimizer is opt and opt.statistics()["steps"] == 4


class Stop(TrainerCallback):
    """Breaks the training off between two batches of one step."""

    def on_substep_end(self, args: Any, state: Any, control: Any, **_: Any) -> Any:
        control.should_training_stop = True
        return control


def test_what_a_broken_off_step_has_captured_is_dropped(tmp_path: Path) -> None:
    model = causal()
    options = {"max_steps": 2, "gradient_accumulation_steps": 2}
    ours = trainer(tmp_path, model, surgery=SURGERY, options=options, callbacks=[Stop()])
    ours.train()
    assert ours.state.global_step == 0 and any(ours.surgery_optimizer.buffer.captured)
    ours.remove_callback(Stop)
    ours.train()
    expected = causal()
    trainer(tmp_path, expected, surgery=SURGERY, options=options).train()
    assert_equal(parameters(model), parameters(expected))


def test_the_loggers_get_what_happened_since_the_last_log(tmp_path: Path) -> None:
    """Two logs of two steps: each is the mean over its own steps, and together they are the statistics."""
    ours = trainer(tmp_path, surgery=SURGERY, options={"logging_steps": 2, "train_sampling_strategy": "sequential"})
    ours.train()
    logs = [log for log in ours.state.log_history if "loss" in log]
    told, similarity = ours.surgery_optimizer.statistics(), ours.surgery_optimizer.similarity()
    assert len(logs) == 2 and logs[0]["surgery/cosine_mean"] != logs[1]["surgery/cosine_mean"]
    for key in ("cosine_mean", "corrections", "negative"):  # every batch has all tasks: equal weights
        assert sum(log[f"surgery/{key}"] for log in logs) / 2 == pytest.approx(told[key])
    mean = similarity.mean()
    for i, j in ((0, 1), (0, 2), (1, 2)):
        both = [log[f"surgery/cosine/{TASKS[i]}-{TASKS[j]}"] for log in logs]
        assert sum(both) / 2 == pytest.approx(float(mean[i, j]))
    assert logs[1]["surgery/ms"] == pytest.approx(told["ms"]) and told["ms"] > 0
    assert not any(key.startswith("surgery") for key in ours.state.log_history[-1])


def test_many_tasks_get_no_curve_for_each_pair(tmp_path: Path) -> None:
    tasks = [f"t{t}" for t in range(7)]
    data = texts(28).remove_columns("task").add_column("task", [tasks[i % 7] for i in range(28)])
    options = {"per_device_train_batch_size": 14, "max_steps": 1}
    ours = trainer(tmp_path, data=data, tasks=tasks, surgery={"monitor": True}, options=options)
    ours.train()
    log = ours.state.log_history[0]
    assert {k for k in log if k.startswith("surgery")} == {
        f"surgery/{k}" for k in ("cosine_mean", "negative", "ms")
    } | {"surgery/corrections"}
    assert log["surgery/corrections"] == 0


def test_tensorboard_shows_the_curves(tmp_path: Path) -> None:
    """Read back from the event file."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    options = {"report_to": "tensorboard", "max_steps": 3}
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TENSORBOARD_LOGGING_DIR", str(tmp_path / "events"))
        ours = trainer(tmp_path, surgery=SURGERY, options=options)
        ours.train()
    events = EventAccumulator(str(tmp_path / "events"))
    events.Reload()
    for key in ("cosine_mean", "corrections", "ms", "cosine/de-sw"):
        curve = [(e.step, e.value) for e in events.Scalars(f"train/surgery/{key}")]
        logged = [(log["step"], log[f"surgery/{key}"]) for log in ours.state.log_history if f"surgery/{key}" in log]
        assert curve == [(step, pytest.approx(value, rel=1e-6)) for step, value in logged] and len(curve) == 3


def scaled(folder: Path, model: nn.Module, **options: Any) -> Any:
    """A trainer with the GradScaler of fp16=True, which accelerate makes on a GPU only."""
    unclipped = {"max_grad_norm": 0.0, "max_steps": 3, "train_sampling_strategy": "sequential"}
    ours = trainer(folder, model, surgery=SURGERY, options=unclipped)
    ours.accelerator.scaler = torch.amp.GradScaler("cpu", **options) if options else None
    return ours


def test_a_grad_scaler(tmp_path: Path) -> None:
    models = causal(), causal()
    scaled(tmp_path, models[0]).train()
    scaled(tmp_path, models[1], init_scale=1024.0).train()
    assert_close(parameters(models[0]), parameters(models[1]), 1e-6)


def test_an_overflow_leaves_no_trace(tmp_path: Path) -> None:
    """The first step overflows and is skipped, the other two see a scale of 64."""
    model = causal()
    ours = scaled(tmp_path, model, init_scale=2.0**126, backoff_factor=2.0**-120)
    before, held = parameters(model), []

    class Watch(TrainerCallback):
        def on_step_end(self, *_: Any, **__: Any) -> None:
            held.append((parameters(model), ours.surgery_optimizer.surgery.state_dict()["tensors"]))

    ours.add_callback(Watch())
    ours.train()
    assert_equal(held[0][0], before)
    assert not held[0][1]["target"].any() and not held[0][1]["count"].any()
    told = ours.surgery_optimizer.statistics()
    assert told["skipped"] == 1 and told["steps"] == 2
    assert not torch.equal(parameters(model)[0], before[0]) and held[-1][1]["target"].any()


class SurgerySeq2SeqTrainer(GradSurgeryMixin, Seq2SeqTrainer):
    pass


def test_the_mixin_on_another_trainer(tmp_path: Path) -> None:
    models = causal(), causal()
    trainer(tmp_path, models[0], surgery=SURGERY).train()
    args = Seq2SeqTrainingArguments(**{**trainer(tmp_path).args.to_dict(), "output_dir": str(tmp_path)})
    other = SurgerySeq2SeqTrainer(model=models[1], args=args, train_dataset=texts(), tasks=TASKS, surgery=SURGERY)
    other.train()
    assert_equal(parameters(models[0]), parameters(models[1]))


def test_an_optimizer_and_a_schedule_of_ones_own(tmp_path: Path) -> None:
    models = causal(), causal()
    base = torch.optim.AdamW(models[0].parameters(), lr=1e-2, eps=1e-3, weight_decay=0.0)
    schedule = torch.optim.lr_scheduler.LambdaLR(base, lambda step: 1 - step / 4)
    ours = trainer(tmp_path, models[0], surgery=SURGERY, optimizers=(base, schedule))
    ours.train()
    assert ours.surgery_optimizer.base is base
    trainer(tmp_path, models[1], surgery=SURGERY).train()
    assert_close(parameters(models[0]), parameters(models[1]), 1e-6)


class Moody(torch.optim.SGD):
    """Like a schedule-free optimizer: it must be told which mode it is in."""

    mode = "none"

    def train(self) -> None:
        self.mode = "train"

    def eval(self) -> None:
        self.mode = "eval"

    def step(self, closure: Any = None) -> Any:
        assert self.mode == "train"
        return super().step(closure)


def test_an_optimizer_with_modes_is_told_them(tmp_path: Path) -> None:
    model = causal()
    base = Moody(model.parameters(), lr=0.1)
    ours = trainer(tmp_path, model, optimizers=(base, None), eval_dataset=texts(6), options={"max_steps": 1})
    ours.train()
    ours.evaluate()
    assert base.mode == "eval"


def test_a_task_that_the_training_never_met(tmp_path: Path) -> None:
    """A stream does not tell its tasks beforehand."""
    from integrations.test_trainer_data import Stream

    rows = [row for row in texts(24).to_list() if row["task"] != "am"]
    ours = trainer(tmp_path, data=Stream(rows), options={"max_steps": 2})
    with pytest.warns(UserWarning, match="the training has not met a single sample of the task 'am'"):
        ours.train()
