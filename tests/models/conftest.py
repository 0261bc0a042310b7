"""Tiny tasks for every problem, models that are quick to make, and a checkpoint with a tokenizer of its own."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from gradsim.data import Example, TaskData, TaskSet
from gradsim.models import TextModel, make_model

# of each family of architectures one, as small as it goes
TINY = {
    "bert": "hidden_size=16,num_hidden_layers=2,num_attention_heads=2,intermediate_size=32",
    "roberta": "hidden_size=16,num_hidden_layers=2,num_attention_heads=2,intermediate_size=32",
    "distilbert": "dim=16,n_layers=2,n_heads=2,hidden_dim=32",
    "gpt2": "n_embd=16,n_layer=2,n_head=2",
    "llama": "hidden_size=16,num_hidden_layers=2,num_attention_heads=2,num_key_value_heads=2,intermediate_size=32",
}
CONFIGS = [f"config:{kind}?{size}" for kind, size in TINY.items()]

VOCABULARY = [
    "[PAD]",
    "[UNK]",
    "[CLS]",
    "[SEP]",
    "[MASK]",
    "the",
    "bank",
    "##s",
    "of",
    "river",
    "##ine",
    "a",
    "##b",
    "c",
]


def _classified() -> TaskSet:
    train = tuple(Example(f"{'good' if k % 2 else 'bad'} {'thing ' * (k % 5)}", k % 2) for k in range(8))
    return TaskSet({"a": TaskData(train=train)}, "classification", ("bad", "good", "other"), "made up")


def _tagged() -> TaskSet:
    words = [("the", "good", "one"), ("bad",), ("the", "bad", "and", "good"), ("good", "the")]
    tags = {"good": 1, "bad": 2}
    train = tuple(Example(row, tuple(tags.get(word, 0) for word in row)) for row in words)
    return TaskSet({"a": TaskData(train=train)}, "tagging", ("O", "GOOD", "BAD"), "made up")


def _text() -> TaskSet:
    train = tuple(Example(text) for text in ("the good one", "the bad one", "no", "the good and the bad one"))
    return TaskSet({"a": TaskData(train=train)}, "text", (), "made up")


PROBLEMS = {"classification": _classified(), "tagging": _tagged(), "text": _text()}


@pytest.fixture
def problems() -> dict[str, TaskSet]:
    """A task set of each problem."""
    return PROBLEMS


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A BERT that was trained on masked tokens, as far as anyone can tell, with 14 word pieces."""
    transformers = pytest.importorskip("transformers")
    from tokenizers import Tokenizer, models, pre_tokenizers, processors

    folder = tmp_path_factory.mktemp("checkpoint")
    pieces = Tokenizer(models.WordPiece({piece: k for k, piece in enumerate(VOCABULARY)}, unk_token="[UNK]"))
    pieces.pre_tokenizer = pre_tokenizers.Whitespace()
    pieces.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    names = {"unk": "[UNK]", "pad": "[PAD]", "cls": "[CLS]", "sep": "[SEP]", "mask": "[MASK]"}
    tokenizer = transformers.PreTrainedTokenizerFast(
        tokenizer_object=pieces, **{f"{key}_token": token for key, token in names.items()}
    )
    tokenizer.save_pretrained(folder)
    config = transformers.BertConfig(
        vocab_size=len(VOCABULARY),
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=24,
    )
    torch.manual_seed(5)
    transformers.BertForMaskedLM(config).to(torch.bfloat16).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session", params=["builtin", *CONFIGS], ids=lambda name: name.partition("?")[0])
def name(request: pytest.FixtureRequest) -> str:
    """Every kind of model, one after the other."""
    if request.param != "builtin":
        pytest.importorskip("transformers")
    return str(request.param)


@pytest.fixture(scope="session", params=list(PROBLEMS))
def tasks(request: pytest.FixtureRequest) -> TaskSet:
    """A task set of every problem, one after the other."""
    return PROBLEMS[request.param]


@pytest.fixture(scope="session")
def model(name: str, tasks: TaskSet) -> TextModel:
    """Each kind of model for each problem."""
    return make_model(name, tasks, max_length=24)


@pytest.fixture(scope="session")
def module(model: TextModel) -> nn.Module:
    """A module that no test changes, without dropout."""
    return model.build(1).eval()


@pytest.fixture(autouse=True)
def one_thread(same_start: None) -> None:
    """So little work is done faster by one."""
    torch.set_num_threads(1)
