"""Encoders of transformers: classification, masked words, tagging, and what people do to BERT."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from one_backward.zoo_case import (
    HEADS,
    INNER,
    LAYERS,
    PAD,
    WIDTH,
    WORDS,
    Batch,
    Case,
    classes,
    configured,
    per_label,
    some_words,
)
from torch import nn

SMALL = {
    "hidden_size": WIDTH,
    "num_attention_heads": HEADS,
    "num_hidden_layers": LAYERS,
    "intermediate_size": INNER,
    "vocab_size": WORDS,
    "max_position_embeddings": 40,
    "pad_token_id": PAD,
    "num_labels": 3,
}
DISTIL = {
    "dim": WIDTH,
    "n_heads": HEADS,
    "n_layers": LAYERS,
    "hidden_dim": INNER,
    "vocab_size": WORDS,
    "max_position_embeddings": 40,
    "pad_token_id": PAD,
    "num_labels": 3,
}
TARGETS = ["query", "value", "dense"]


def maker(kind: str, options: dict[str, Any]) -> Callable[[str], nn.Module]:
    return lambda attention: configured(kind, attention, **options)


def lora(build: Callable[[str], nn.Module], targets: list[str], attention: str) -> nn.Module:
    """With adapters beside some linear layers; nothing else is trained."""
    import peft

    model: nn.Module = peft.get_peft_model(build(attention), peft.LoraConfig(r=2, target_modules=targets))
    return model


def checkpointed(build: Callable[[str], nn.Module], reentrant: bool, attention: str) -> nn.Module:
    """With gradient checkpointing, which works in training mode only."""
    model: Any = build(attention)
    model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": reentrant})
    return model


def frozen_embeddings(build: Callable[[str], nn.Module], attention: str) -> nn.Module:
    model: Any = build(attention)
    model.get_input_embeddings().requires_grad_(False)
    return model


def tags(samples: int, length: int, seed: int) -> Batch:
    """A label for each word."""
    batch = some_words(samples, length, seed)
    return {**batch, "labels": torch.where(batch["labels"] == -100, -100, batch["labels"] % 3)}


def choices(samples: int, length: int, seed: int) -> Batch:
    """Three texts a sample, one of them right."""
    batch = classes(3 * samples, length, seed)
    inputs = {key: batch[key].unflatten(0, (samples, 3)) for key in ("input_ids", "attention_mask")}
    return {**inputs, "labels": batch["labels"][:samples]}


bert = maker("BertForSequenceClassification", SMALL)

CASES = [
    Case("bert", "BERT, classification", bert, classes),
    Case("bert-mlm", "BERT, masked words", maker("BertForMaskedLM", SMALL), some_words, units=per_label),
    Case("bert-tags", "BERT, tagging", maker("BertForTokenClassification", SMALL), tags, units=per_label),
    Case("bert-choices", "BERT, multiple choice", maker("BertForMultipleChoice", SMALL), choices),
    Case("roberta", "RoBERTa", maker("RobertaForSequenceClassification", SMALL), classes),
    Case("xlm-r", "XLM-R", maker("XLMRobertaForSequenceClassification", SMALL), classes),
    Case("xlm-r-mlm", "XLM-R, masked words", maker("XLMRobertaForMaskedLM", SMALL), some_words, units=per_label),
    Case("distilbert", "DistilBERT", maker("DistilBertForSequenceClassification", DISTIL), classes),
    Case(
        "albert",
        "ALBERT",
        maker("AlbertForSequenceClassification", {**SMALL, "embedding_size": 8}),
        classes,
        remark="layers that share their parameters",
    ),
    Case(
        "bert-lora",
        "BERT with LoRA",
        partial(lora, bert, TARGETS),
        classes,
        needs=("transformers", "peft"),
        remark="peft",
    ),
    Case("bert-frozen", "BERT, frozen word embeddings", partial(frozen_embeddings, bert), classes),
    *(
        Case(
            f"bert-checkpointed-{word}",
            f"BERT, gradient checkpointing ({word})",
            partial(checkpointed, bert, word == "reentrant"),
            classes,
            modes=("train",),
        )
        for word in ("reentrant", "non-reentrant")
    ),
]
