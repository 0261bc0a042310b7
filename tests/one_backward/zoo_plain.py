"""The zoo's entries without transformers: the modules of `zoo_modules`, their batches and losses."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from one_backward.zoo_case import PAD, WIDTH, Batch, Case, classes, next_words, per_label, text
from one_backward.zoo_modules import (
    LONGEST,
    Convolutional,
    EncoderClassifier,
    OwnDecoder,
    Recurrent,
    TextConvolutional,
    Translator,
)
from one_backward.zoo_pairs import images
from torch import Tensor, nn

PACKED = {"train": "PackedSequence", "eval": "PackedSequence"}


def labelled(samples: int, length: int, seed: int) -> Batch:
    """Text with one of three labels, no mask."""
    batch = classes(samples, length, seed)
    return {"words": batch["input_ids"], "labels": batch["labels"]}


def label_loss(model: nn.Module, batch: Batch) -> Tensor:
    """The mean over samples."""
    inputs = batch["words"] if "words" in batch else batch["pixel_values"]
    return F.cross_entropy(model(inputs), batch["labels"])


def following(samples: int, length: int, seed: int) -> Batch:
    """Text for a language model: words and the words after them."""
    batch = next_words(samples, length + 1, seed)
    return {"words": batch["input_ids"][:, :-1], "labels": batch["labels"][:, 1:]}


def word_loss(model: nn.Module, batch: Batch) -> Tensor:
    """The mean over words."""
    return F.cross_entropy(model(batch["words"]).flatten(0, 1), batch["labels"].flatten())


def pairs(samples: int, length: int, seed: int) -> Batch:
    """Source, target and the words after those of the target."""
    source, _, _ = text(samples, length, seed)
    target, _, _ = text(samples, length, seed + 500)
    following = torch.where(target == PAD, -100, target)[:, 1:]
    return {"source": source, "target": target[:, :-1], "labels": following}


def pairs_time_first(samples: int, length: int, seed: int) -> Batch:
    """As `pairs`, the samples in the second dimension."""
    return {key: value.T.contiguous() for key, value in pairs(samples, length, seed).items()}


def pair_loss(model: nn.Module, batch: Batch) -> Tensor:
    """The mean over words; transposed first where the time is first, as cross_entropy wants the classes second."""
    scores = model(batch["source"], batch["target"])
    return F.cross_entropy(scores.movedim(-1, 1), batch["labels"])


def words_per_sample_time_first(batch: Batch) -> Tensor:
    return (batch["labels"] != -100).sum(0)


def plain(name: str, model: str, build: type[nn.Module] | object, **options: object) -> Case:
    """A case that needs nothing but torch and lets torch choose the attention."""
    return Case(name, model, build, **{"attentions": ("",), "needs": (), **options})  # type: ignore[arg-type]


TRANSLATION = {"draw": pairs, "loss": pair_loss, "units": per_label}
LABELS = {"draw": labelled, "loss": label_loss}
FOLLOWING = {"draw": following, "loss": word_loss, "units": per_label}
TIME_FIRST = {
    **TRANSLATION,
    "draw": pairs_time_first,
    "units": words_per_sample_time_first,
    "samples": 1,
    "batch_dim": 1,
}

CASES = [
    plain("transformer", "nn.Transformer", lambda _: Translator(batch_first=True), **TRANSLATION),
    plain("transformer-time-first", "nn.Transformer, batch_first=False", lambda _: Translator(False), **TIME_FIRST),
    plain("encoder", "nn.TransformerEncoder classifier", lambda _: EncoderClassifier(), **LABELS),
    plain("lstm", "LSTM classifier", lambda _: Recurrent(nn.LSTM), **LABELS),
    plain(
        "lstm-time-first",
        "LSTM, batch_first=False",
        lambda _: Recurrent(nn.LSTM, batch_first=False),
        **LABELS,
        batch_dim=0,
    ),
    plain(
        "lstm-packed",
        "LSTM, packed sequences",
        lambda _: Recurrent(nn.LSTM, packed=True),
        **LABELS,
        refused=PACKED,
        remark="holds the samples interleaved: pad instead",
    ),
    plain("gru", "GRU classifier", lambda _: Recurrent(nn.GRU), **LABELS),
    plain("cnn", "CNN with GroupNorm", lambda _: Convolutional(nn.GroupNorm(2, 8)), draw=images, loss=label_loss),
    plain(
        "cnn-batch-norm",
        "CNN with BatchNorm",
        lambda _: Convolutional(nn.BatchNorm2d(8)),
        draw=images,
        loss=label_loss,
        refused={"train": "BatchNorm2d in training mode"},
        remark="BatchNorm couples the samples in training mode",
    ),
    plain("text-cnn", "CNN over words", lambda _: TextConvolutional(), **LABELS),
    plain("own-decoder", "minGPT, positions [1, L, D]", lambda _: OwnDecoder((1, LONGEST, WIDTH)), **FOLLOWING),
    plain("own-decoder-flat", "minGPT, positions [L, D]", lambda _: OwnDecoder((LONGEST, WIDTH)), **FOLLOWING),
    plain(
        "own-decoder-tied", "minGPT, tied weights", lambda _: OwnDecoder((1, LONGEST, WIDTH), tied=True), **FOLLOWING
    ),
]
