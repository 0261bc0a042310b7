"""TRL's SFTTrainer through the mixin: whole texts and completions only; what mixes tasks in a row is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import datasets
import pytest
import torch
from integrations.trainer_parts import TASKS, assert_close, assert_equal, causal, parameters

pytest.importorskip("trl")

from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast
from trl import SFTConfig, SFTTrainer

from gradsim.integrations.transformers import GradSurgeryMixin

WORDS = [f"w{i}" for i in range(20)]


class SurgerySFTTrainer(GradSurgeryMixin, SFTTrainer):
    pass


def tokenizer() -> PreTrainedTokenizerFast:
    vocabulary = {word: i for i, word in enumerate(["<pad>", "<eos>", "<unk>", *WORDS])}
    words = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(
        tokenizer_object=words, pad_token="<pad>", eos_token="<eos>", unk_token="<unk>", model_max_length=16
    )


def texts(size: int = 18, completion: bool = False) -> datasets.Dataset:
    rows = []
    for i in range(size):
        task = (0, 1, 0, 2, 0, 1)[i % 6]
        words = [WORDS[(i + (task + 1) * k) % 20] for k in range(4 + i % 4)]
        parts = {"prompt": " ".join(words[:2]) + " ", "completion": " ".join(words[2:]) + " "}
        rows.append({"task": TASKS[task], **(parts if completion else {"text": " ".join(words) + " "})})
    return datasets.Dataset.from_list(rows)


def sft(folder: Path, model: Any, kind: Any = SurgerySFTTrainer, completion: bool = False, **options: Any) -> Any:
    more = {"tasks": TASKS, "surgery": options.pop("surgery", None)} if kind is SurgerySFTTrainer else {}
    usual = {
        "per_device_train_batch_size": 6,
        "max_steps": 3,
        "learning_rate": 1e-2,
        "adam_epsilon": 1e-3,
        "logging_steps": 1,
        "save_strategy": "no",
        "report_to": "none",
        "use_cpu": True,
        "bf16": False,
        "disable_tqdm": True,
        "max_length": 16,
        "gradient_checkpointing": False,
    }
    args = SFTConfig(str(folder), **{**usual, **options})
    data = texts(completion=completion)
    return kind(model=model, args=args, train_dataset=data, processing_class=tokenizer(), **more)


@pytest.mark.parametrize("completion", [False, True], ids=["whole texts", "completions only"])
def test_monitor_trains_as_the_plain_sft_trainer(tmp_path: Path, completion: bool) -> None:
    one, other = causal(), causal()
    options: dict[str, Any] = {"completion": completion, "gradient_accumulation_steps": 2}
    ours = sft(tmp_path, one, surgery={"monitor": True}, **options)
    ours.train()
    theirs = sft(tmp_path, other, SFTTrainer, **options)
    theirs.train()
    assert_close(parameters(one), parameters(other), 1e-5)
    assert not torch.equal(parameters(one)[0], parameters(causal())[0])
    mine, expected = ours.state.log_history[0], theirs.state.log_history[0]
    assert mine["loss"] == pytest.approx(expected["loss"], rel=1e-5) and mine["num_tokens"] == expected["num_tokens"]
    assert {"surgery/cosine_mean", "surgery/ms", "entropy"} <= set(mine)


def test_the_surgery_corrects(tmp_path: Path) -> None:
    one, other = causal(), causal()
    ours = sft(tmp_path, one, surgery={"method": "gradvac", "beta": 0.5}, gradient_checkpointing=True)
    ours.train()
    sft(tmp_path, other, SFTTrainer).train()
    assert ours.surgery_optimizer.statistics()["corrections"] > 0
    assert not torch.allclose(parameters(one)[0], parameters(other)[0], atol=1e-4)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"packing": True}, "packing=True puts samples of several tasks into one row, and drops the column 'task'"),
        ({"padding_free": True, "max_length": None}, "padding_free=True lays the samples of all tasks end to end"),
    ],
)
def test_what_mixes_tasks_in_a_row_is_refused(tmp_path: Path, options: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        sft(tmp_path, causal(), **options)


def test_one_backward_cannot_follow_the_fused_head(tmp_path: Path) -> None:
    """TRL computes the loss in an autograd function of its own that takes the head's weight."""
    model = causal()
    with pytest.raises(RuntimeError, match=r"lm_head\.weight"):
        sft(tmp_path, model, surgery={"one_backward": True}).train()
    assert_equal(parameters(model), parameters(causal()))
