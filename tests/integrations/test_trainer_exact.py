"""GradSurgeryTrainer against a loop written by hand, and with monitor=True against the plain Trainer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from integrations.trainer_parts import (
    arguments,
    assert_close,
    batches,
    by_hand,
    causal,
    classes,
    classifier,
    parameters,
    plain,
    texts,
    token_loss,
    trainer,
    watch,
)
from torch import Tensor, nn
from transformers import Trainer

from gradsim.integrations.transformers import GradSurgeryTrainer

SEQUENTIAL = {"train_sampling_strategy": "sequential"}
SURGERY = [
    {"method": "gradvac", "granularity": "all_layer", "beta": 0.3},
    {"method": "pcgrad", "granularity": "whole_model"},
    # the optimizer of the Trainer has the norms last, so that random orders are those of other groups
    {"method": "gradvac", "granularity": "all_matrix", "beta": 0.3, "one_backward": True, "order": "ascending"},
]


@pytest.mark.parametrize(
    ("surgery", "accumulation"),
    [
        pytest.param(SURGERY[0], 1, id="gradvac"),
        pytest.param(SURGERY[0], 2, id="gradvac, accumulated"),
        pytest.param(SURGERY[1], 1, id="pcgrad", marks=pytest.mark.slow),
        pytest.param(SURGERY[1], 2, id="pcgrad, accumulated"),
        pytest.param(SURGERY[2], 1, id="one backward", marks=pytest.mark.slow),
        pytest.param(SURGERY[2], 2, id="one backward, accumulated"),
    ],
)
def test_trains_as_a_loop_written_by_hand(tmp_path: Path, surgery: dict[str, Any], accumulation: int) -> None:
    """Clipping, the schedule, and with accumulation a last step of the epoch that has fewer batches."""
    data, model = texts(30), causal()
    options = {"gradient_accumulation_steps": accumulation, "per_device_train_batch_size": 4, "num_train_epochs": 1}
    ours = trainer(tmp_path, model, data, surgery=surgery, options={**SEQUENTIAL, **options, "max_steps": -1})
    ours.train()
    held = list(batches(data, 4))
    steps = [held[i : i + accumulation] for i in range(0, len(held), accumulation)]
    expected = causal()
    rest = {key: value for key, value in surgery.items() if key != "one_backward"}
    operation = by_hand(expected, steps, token_loss, **rest)
    assert ours.state.global_step == len(steps) == (8 if accumulation == 1 else 4)
    assert_close(parameters(model), parameters(expected), 2e-6)
    assert any(not torch.equal(p, q) for p, q in zip(model.parameters(), causal().parameters(), strict=True))
    mine, theirs = (x.state_dict() for x in (ours.surgery_optimizer.surgery, operation))
    same = [mine["groups"].index(name) for name in theirs["groups"]]  # the norms come last there
    mine, theirs = ({k: x["tensors"][k] for k in ("target", "corrections")} for x in (mine, theirs))
    torch.testing.assert_close(mine["target"][same], theirs["target"], rtol=1e-4, atol=1e-5)
    assert torch.equal(mine["corrections"][same], theirs["corrections"]) and mine["corrections"].sum() > 0


def adapted() -> nn.Module:
    """The base frozen: the rows hold the adapters only."""
    peft = pytest.importorskip("peft")
    model = causal()
    torch.manual_seed(2)
    config = peft.LoraConfig(r=2, target_modules=["q_proj", "down_proj"], init_lora_weights=False)
    made: nn.Module = peft.get_peft_model(model, config)
    return made


MONITOR = {"monitor": True}
CASES: dict[str, tuple[Any, dict[str, Any]]] = {
    "tokens": ((causal, texts), {}),
    "accumulated": ((causal, texts), {"gradient_accumulation_steps": 3}),
    "smoothed": ((causal, texts), {"label_smoothing_factor": 0.1}),
    "classes": ((classifier, classes), {}),
    "classes, accumulated": ((classifier, classes), {"gradient_accumulation_steps": 2}),
    "classes, smoothed": ((classifier, classes), {"label_smoothing_factor": 0.1}),
    "LoRA": ((adapted, texts), {}),
    "checkpointing": ((causal, texts), {"gradient_checkpointing": True}),
}


# Enough to see each rule and each way of a loss in `make test`; the rest in `make test-all`.
ALWAYS = {
    False: ("tokens", "accumulated", "smoothed", "classes", "classes, accumulated"),
    True: ("accumulated", "LoRA"),
}
PAIRS = [
    pytest.param(case, one, id=f"{case}, {how}", marks=() if case in ALWAYS[one] else pytest.mark.slow)
    for case in CASES
    for one, how in ((False, "task by task"), (True, "one backward"))
]


@pytest.mark.parametrize(("case", "one_backward"), PAIRS)
def test_monitor_trains_as_the_plain_trainer(tmp_path: Path, case: str, one_backward: bool) -> None:
    """To 1e-6, in p.grad before the clip and in the weights after three steps: every task counts what it did."""
    (model, data), options = CASES[case]
    surgery = {**MONITOR, "one_backward": one_backward}
    compare(tmp_path, model, data(), surgery, {"per_device_train_batch_size": 5, "max_steps": 3, **options})


def compare(
    folder: Path, model: Any, data: Any, surgery: dict[str, Any], options: dict[str, Any], **more: Any
) -> tuple[Any, Any]:
    models = model(), model()
    ours = trainer(folder / "ours", models[0], data, surgery=surgery, options=options, **more)
    theirs = plain(folder / "theirs", models[1], data, options, **more)
    gradients = [watch(ours), watch(theirs)]
    results = ours.train(), theirs.train()
    for mine, expected in zip(*gradients, strict=True):
        scale = max(float(x.abs().max()) for x in expected)
        assert scale > 0
        assert_close([x / scale for x in mine], [x / scale for x in expected])
    assert len(gradients[0]) == ours.state.global_step > 1
    assert_close(parameters(models[0]), parameters(models[1]), 1e-5)
    assert results[0].training_loss == pytest.approx(results[1].training_loss, rel=1e-5)
    return ours, theirs


def token_mean(outputs: Any, labels: Tensor, num_items_in_batch: Tensor) -> Tensor:
    logits = outputs.logits[:, :-1].flatten(0, 1)
    return nn.functional.cross_entropy(logits, labels[:, 1:].flatten(), reduction="sum") / num_items_in_batch


def sample_mean(outputs: Any, labels: Tensor, num_items_in_batch: Tensor) -> Tensor:
    """A mean over samples of each one's own mean: neither the tokens nor `num_items_in_batch` say what counts."""
    each = nn.functional.cross_entropy(outputs.logits[:, :-1].mT, labels[:, 1:], reduction="none").sum(1)
    return (each / (labels[:, 1:] != -100).sum(1)).mean()


@pytest.mark.parametrize(
    ("loss", "one_backward"),
    [(token_mean, False), (sample_mean, False), pytest.param(sample_mean, True, marks=pytest.mark.slow)],
)
def test_a_loss_function_of_ones_own(tmp_path: Path, loss: Any, one_backward: bool) -> None:
    surgery = {**MONITOR, "one_backward": one_backward}
    compare(tmp_path, causal, texts(), surgery, {"max_steps": 3}, compute_loss_func=loss)


class OwnLoss:
    """A subclass with its own compute_loss that calls no other: a mean over the tokens of a batch."""

    def compute_loss(self, model: nn.Module, inputs: dict[str, Tensor], *_: Any, **__: Any) -> Tensor:
        return nn.functional.cross_entropy(
            model(input_ids=inputs["input_ids"]).logits[:, :-1].flatten(0, 1), inputs["labels"][:, 1:].flatten()
        )


def test_a_trainer_that_overrides_compute_loss(tmp_path: Path) -> None:
    class Ours(OwnLoss, GradSurgeryTrainer):
        pass

    class Theirs(OwnLoss, Trainer):
        pass

    data, models = texts(), (causal(), causal())
    options = {"max_steps": 3, "per_device_train_batch_size": 5}
    trainer(tmp_path, models[0], data, kind=Ours, surgery=MONITOR, options=options).train()
    Theirs(model=models[1], args=arguments(tmp_path, **options), train_dataset=data).train()
    assert_close(parameters(models[0]), parameters(models[1]), 1e-5)


def test_bfloat16(tmp_path: Path) -> None:
    """Under autocast the parts round otherwise than the whole: near the plain Trainer, not equal."""
    models = causal(), causal()
    options = {"bf16": True, "max_steps": 3, "learning_rate": 1e-3}
    ours = trainer(tmp_path, models[0], texts(), surgery=MONITOR, options=options)
    theirs = plain(tmp_path, models[1], texts(), options)
    gradients = watch(ours), watch(theirs)
    ours.train(), theirs.train()
    for mine, expected in zip(gradients[0][0], gradients[1][0], strict=True):
        assert (mine - expected).norm() <= 0.02 * expected.norm()
    assert all(p.dtype == torch.float32 for p in models[0].parameters())


def test_the_random_orders_follow_the_seed_of_the_trainer(tmp_path: Path) -> None:
    assert trainer(tmp_path, options={"seed": 7})._surgery.options["seed"] == 7
    assert trainer(tmp_path, options={"seed": 7}, surgery={"seed": 3})._surgery.options["seed"] == 3
