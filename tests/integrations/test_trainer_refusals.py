"""What GradSurgeryTrainer refuses: each with its sentence, and nothing is changed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from integrations.trainer_parts import TASKS, assert_equal, causal, parameters, trainer
from torch import Tensor, nn

import gradsim
from gradsim.integrations._trainer_settings import check_trainer
from gradsim.integrations.transformers import GradSurgeryTrainer


class Sharded(GradSurgeryTrainer):
    """Looks as with deepspeed= or fsdp= in the arguments, which need what is not there."""

    said: dict[str, Any]

    def create_accelerator_and_postprocess(self) -> None:
        super().create_accelerator_and_postprocess()
        for name, value in self.said.items():
            setattr(self, name, value)


REFUSED: dict[str, tuple[dict[str, Any], type[Exception], str]] = {
    "no tasks": ({"tasks": []}, ValueError, "tasks must name at least one task"),
    "no such column": (
        {"task_column": "language"},
        ValueError,
        r"train_dataset has no column 'language' with the task of each example, but \['attention_mask', .*, 'text'\]",
    ),
    "a column that is no name": ({"task_column": 3}, TypeError, "task_column must be the name of a column, not 3"),
    "an unknown task": (
        {"tasks": ["de", "sw"]},
        ValueError,
        r"the column 'task' of train_dataset holds the task 'am'; the tasks are \['de', 'sw'\]",
    ),
    "a task without examples": (
        {"tasks": [*TASKS, "fr"]},
        ValueError,
        "no example of train_dataset has the task 'fr' in the column 'task'; leave out of tasks what is not trained",
    ),
    "no dict": ({"surgery": "gradvac"}, TypeError, "surgery must be a dict such as .*, not str"),
    "no method": ({"surgery": {"method": "x"}}, ValueError, r"surgery\['method'\] must be 'gradvac' or 'pcgrad', not"),
    "no flag": ({"surgery": {"one_backward": 1}}, TypeError, r"surgery\['one_backward'\] must be True or False, not 1"),
    "no option": ({"surgery": {"bata": 1}}, ValueError, r"surgery has unknown keys \['bata'\]; it takes \["),
    "no option of pcgrad": ({"surgery": {"method": "pcgrad", "beta": 0.1}}, ValueError, r"unknown keys \['beta'\]"),
    "a value out of range": ({"surgery": {"beta": 2}}, ValueError, r"beta must be in \[0, 1\], not 2"),
    "an unknown group": ({"surgery": {"granularity": "layers"}}, ValueError, "granularity"),
    "no sampling": ({"sampling": "even"}, ValueError, "sampling must be 'uniform' or 'proportional' or 'temperature'"),
    "no temperature": ({"sampling": "temperature", "temperature": 0}, ValueError, r"temperature must be in \(0, inf\]"),
    "two samplings": (
        {"sampling": "uniform", "options": {"train_sampling_strategy": "sequential"}},
        ValueError,
        "sampling='uniform' and train_sampling_strategy='sequential' both say what a batch holds",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_wrong_arguments_are_refused_before_anything_runs(tmp_path: Path, case: str) -> None:
    arguments, error, sentence = REFUSED[case]
    model = causal()
    before = parameters(model)
    with pytest.raises(error, match=sentence):
        trainer(tmp_path, model, **arguments)
    assert_equal(before, parameters(model))


def test_optimizers_that_cannot_be_wrapped_are_refused(tmp_path: Path) -> None:
    class Lion:
        param_groups: tuple[()] = ()

        def __init__(self, *_: Any, **__: Any) -> None:
            pass

    model = causal()
    with pytest.raises(TypeError, match=r"of the trainer must be a torch.optim.Optimizer, not Lion, which"):
        trainer(tmp_path, model, optimizers=(Lion(), None))
    mine = gradsim.PCGrad(torch.optim.SGD(model.parameters(), lr=1.0), tasks=TASKS, model=model)
    with pytest.raises(TypeError, match="the optimizer of the trainer is a PCGrad already; give a plain one"):
        trainer(tmp_path, model, optimizers=(mine, None))
    ours = trainer(tmp_path, model, optimizer_cls_and_kwargs=(lambda: Lion, {}))
    before = parameters(model)
    with pytest.raises(TypeError, match=r"must be a torch.optim.Optimizer, not Lion"):
        ours.train()
    assert_equal(before, parameters(model))


@pytest.mark.parametrize(
    ("said", "sentence"),
    [
        ({"is_deepspeed_enabled": True}, "DeepSpeed reduces and holds the gradients in its own engine"),
        ({"is_fsdp_enabled": True}, "GradSurgeryTrainer does not take FSDP"),
    ],
)
def test_stacks_that_would_be_silently_wrong_are_refused(tmp_path: Path, said: dict[str, Any], sentence: str) -> None:
    kind = type("Said", (Sharded,), {"said": said})
    with pytest.raises(RuntimeError, match=sentence):
        trainer(tmp_path, kind=kind)


def test_several_gpus_in_one_process_are_refused(tmp_path: Path) -> None:
    ours = trainer(tmp_path)
    ours.args._n_gpu = 2
    with pytest.raises(RuntimeError, match=r"one process with 2 GPUs would use torch\.nn\.DataParallel"):
        check_trainer(ours, "task")


class Balanced(nn.Module):
    """Its loss has a term that joins the samples of the batch, as the load loss of experts has."""

    def __init__(self) -> None:
        super().__init__()
        self.inside = causal()

    def forward(self, input_ids: Tensor, attention_mask: Tensor, labels: Tensor) -> dict[str, Tensor]:
        out = self.inside(input_ids=input_ids, attention_mask=attention_mask, labels=labels)
        return {"loss": out.loss + out.logits.mean((0, 1)).square().sum().sqrt(), "logits": out.logits}


def test_a_loss_that_joins_the_samples_is_refused_unless_it_is_meant(tmp_path: Path) -> None:
    model = Balanced()
    before = parameters(model)
    with pytest.raises(RuntimeError, match=r"the losses of the tasks .* do not add up to the loss of their batch"):
        trainer(tmp_path, model).train()
    assert_equal(before, parameters(model))
    assert all(p.grad is None for p in model.parameters())
    trainer(tmp_path, model, surgery={"verify": False}).train()
    assert not torch.equal(before[0], parameters(model)[0])


def test_a_batch_that_cannot_be_split_is_refused(tmp_path: Path) -> None:
    def merged(examples: list[dict[str, Any]]) -> dict[str, Tensor]:
        return {k: torch.tensor([[x for e in examples for x in e[k]]]) for k in ("input_ids", "labels")}

    model = causal()
    with pytest.raises(ValueError, match="input_ids has 1 entries in its first dimension, but the batch has 6 samples"):
        trainer(tmp_path, model, data_collator=merged).train()
    assert_equal(parameters(causal()), parameters(model))
