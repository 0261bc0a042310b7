"""Gradient surgery in Hugging Face's Trainer, and in any class that is built on it (Seq2SeqTrainer, TRL's SFTTrainer).

trainer = GradSurgeryTrainer(model=model, args=args, train_dataset=data, tasks=["de", "sw"], task_column="task",
                             surgery={"method": "gradvac", "granularity": "all_layer"})
trainer.train()

class SurgerySFTTrainer(GradSurgeryMixin, SFTTrainer): ...
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

import transformers

from gradsim.data.sampler import SAMPLINGS
from gradsim.integrations._trainer_data import TaskData, class_names
from gradsim.integrations._trainer_log import SurgeryLog
from gradsim.integrations._trainer_settings import SurgerySettings, check_optimizer, check_trainer
from gradsim.integrations._trainer_step import TaskSteps
from gradsim.optim import arguments

__all__ = ["SIMILARITY_FILE", "GradSurgeryMixin", "GradSurgeryTrainer"]

SIMILARITY_FILE = "gradient_similarity.safetensors"  # in each checkpoint: what `gradsim group` reads


class GradSurgeryMixin(TaskSteps, TaskData):
    """Put it before a Trainer class: `class MyTrainer(GradSurgeryMixin, Seq2SeqTrainer)`. Its own arguments, by name:

    Args:
        tasks: the names of the tasks.
        task_column: the column of `train_dataset` that holds the task of each example: its name, or its number in
            `tasks`. Evaluation and prediction need no such column, and ignore it.
        surgery: `"method"` (`"gradvac"` or `"pcgrad"`) and the options of `gradsim.GradVac` or `gradsim.PCGrad`; `seed`
            is the Trainer's unless given. `"one_backward": True`: the tasks' gradients come out of one backward over
            the mixed batch (docs/one-backward.md) instead of one forward and backward per task. `"verify"`: without
            `one_backward` (default True) whether the losses of the tasks are checked to make up that of the batch;
            with it (default False) whether the first batch is compared with separate backwards.
        sampling: None: the Trainer's own sampler. `"uniform"`, `"proportional"`, `"temperature"`: how much of each
            batch each task gets (`gradsim.data.sampler.TaskBatchSampler`).
        temperature: for `sampling="temperature"`.

    The task gradients add up to the gradient of the plain Trainer: a task counts as much as its share of the tokens
    (or samples) makes it. `monitor=True` in `surgery` therefore trains as the plain Trainer does, and measures.

    What is logged: see `SurgeryLog`. A checkpoint holds targets and counters in optimizer.pt, and the similarity of the
    tasks so far in a file of its own, `SIMILARITY_FILE`.

    Raises:
        TypeError, ValueError: wrong tasks, surgery or sampling; a dataset without the column or without one of the
            tasks; an optimizer that is none of torch's; packing or padding_free.
        RuntimeError: DeepSpeed, FSDP, DataParallel, context and sequence parallelism.
    """

    def __init__(
        self,
        *args: Any,
        tasks: Sequence[str],
        task_column: str = "task",
        surgery: Mapping[str, Any] | None = None,
        sampling: str | None = None,
        temperature: float = 5.0,
        **kwargs: Any,
    ) -> None:
        self.tasks = arguments.task_names(tasks)
        if not isinstance(task_column, str):
            raise TypeError(f"task_column must be the name of a column, not {task_column!r}")
        if sampling is not None:
            arguments.one_of("sampling", sampling, SAMPLINGS)
        self.task_column, self._sampling = task_column, sampling
        self._temperature = arguments.number("temperature", temperature, 0.0, float("inf"), open_below=True)
        self._trainer = self
        self._log: SurgeryLog | None = None
        super().__init__(*args, **kwargs)
        trainer = self._trainer
        check_trainer(trainer, task_column)
        self._surgery = SurgerySettings(surgery, trainer.args.seed)
        self._surgery.rehearse(self.tasks, trainer.model)
        if trainer.optimizer is not None:
            check_optimizer(trainer.optimizer)
        if sampling is not None and getattr(trainer.args, "train_sampling_strategy", "random") != "random":
            raise ValueError(
                f"sampling={sampling!r} and train_sampling_strategy={trainer.args.train_sampling_strategy!r} both say "
                "what a batch holds; give one of them"
            )
        self._classes = class_names(trainer.train_dataset, task_column)
        self._check_dataset()
        trainer.add_callback(_StartAndEnd(self))

    def log(self, logs: dict[str, float], *args: Any, **kwargs: Any) -> None:
        """The Trainer's, with what the surgery did since the last log of the training loss."""
        if self._log is not None and "loss" in logs:
            logs.update(self._log.read())
        super().log(logs, *args, **kwargs)  # type: ignore[misc]

    def _save_optimizer_and_scheduler(self, output_dir: str) -> None:
        super()._save_optimizer_and_scheduler(output_dir)  # type: ignore[misc]
        if self._trainer.args.should_save:
            self.surgery_optimizer.similarity().save(os.path.join(output_dir, SIMILARITY_FILE))

    def _start(self) -> None:
        super()._start()
        self._log = SurgeryLog(self.surgery_optimizer)


class _StartAndEnd(transformers.TrainerCallback):
    """Tells the mixin when a training starts (with the checkpoint loaded) and ends."""

    def __init__(self, trainer: GradSurgeryMixin) -> None:
        self._of = trainer

    def on_train_begin(self, *args: Any, **kwargs: Any) -> None:
        self._of._start()

    def on_train_end(self, *args: Any, **kwargs: Any) -> None:
        self._of._end()


class GradSurgeryTrainer(GradSurgeryMixin, transformers.Trainer):
    """`transformers.Trainer` with gradient surgery; the arguments are those of both: see `GradSurgeryMixin`.

    trainer = GradSurgeryTrainer(
        model=model, args=args, train_dataset=data, tasks=["de", "sw"], task_column="language",
        surgery={"method": "gradvac", "granularity": "all_layer", "beta": 1e-2}, sampling="temperature",
    )
    """
