"""What one entry of the model zoo is, and what all entries share."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

WIDTH = 16
HEADS = 4
LAYERS = 2
INNER = 32
WORDS = 99
PAD = 1

Batch = dict[str, Tensor]
Draw = Callable[[int, int, int], Batch]  # samples, length, seed
Loss = Callable[[nn.Module, Batch], Tensor]
Units = Callable[[Batch], "Tensor | None"]


def named(model: nn.Module, batch: Batch) -> Tensor:
    """The loss as the models of transformers give it."""
    loss: Tensor = model(**batch).loss
    return loss


def per_sample(batch: Batch) -> Tensor:
    """A mean over samples: each counts once."""
    return torch.ones(next(iter(batch.values())).shape[0])


def per_label(batch: Batch) -> Tensor:
    """A mean over tokens: a sample counts as often as it has labels."""
    return (batch["labels"] != -100).sum(1)


def per_next_label(batch: Batch) -> Tensor:
    """As `per_label`, where the loss shifts the labels by one."""
    return (batch["labels"][:, 1:] != -100).sum(1)


def summed(batch: Batch) -> None:
    """A sum over samples: nothing to weigh."""


@dataclass(frozen=True)
class Case:
    """A model, its batches and its loss.

    Attributes:
        name: unique; also the identifier of the test.
        model: what the table calls it.
        build: from "eager" or "sdpa" to the model (any value where attention is not the model's choice).
        draw: from the number of samples, their length and a seed to a batch.
        loss: of a mixed batch.
        units: [B], how often each sample counts in the mean that the loss is; None: the loss is a sum.
        attentions: the implementations of attention that the model has.
        samples: the dimension of the samples in every tensor of the batch.
        exclude: parameters that are left out of the surgery, since their samples cannot be told apart.
        refused: modes ("train", "eval") in which `mixed_batch` has to refuse the model, with what the sentence says.
        remark: for the table.
        needs: what must be installed.
        batch_dim: what `mixed_batch` is told where a batch is as long as it is large; None: nothing.
        spread: how far the parameters are moved from where they start; less where rounding would grow too much.
        shape: the usual number of samples and length.
        modes: "train" and "eval", or what there is.
    """

    name: str
    model: str
    build: Callable[[str], nn.Module]
    draw: Draw
    loss: Loss = named
    units: Units = per_sample
    attentions: tuple[str, ...] = ("eager", "sdpa")
    samples: int = 0
    exclude: tuple[str, ...] = ()
    refused: Mapping[str, str] = field(default_factory=dict)
    remark: str = ""
    needs: tuple[str, ...] = ("transformers",)
    batch_dim: int | None = None
    spread: float = 0.2
    shape: tuple[int, int] = (7, 6)
    modes: tuple[str, ...] = ("train", "eval")

    def make(self, attention: str = "", mode: str = "train", seed: int = 0, dropout: float = 0.0) -> nn.Module:
        """The model in this mode, float32, with the same parameters for the same seed, all of them of some weight."""
        torch.manual_seed(seed)
        model = self.build(attention or self.attentions[-1])
        drop(model, dropout)
        with torch.no_grad():
            for p in model.parameters():  # what starts at 0 or 1, or small, would hide errors
                p.add_(torch.randn_like(p), alpha=self.spread)
        return model.train(mode == "train")

    def take(self, batch: Batch, index: Tensor) -> Batch:
        """These samples of a batch."""
        return {key: value.index_select(self.samples, index) for key, value in batch.items()}

    def weights(self, batch: Batch) -> Tensor | None:
        """[B], the share of each sample in the loss of the batch: adds up to 1. None: the loss is a sum."""
        units = self.units(batch)
        return None if units is None else units.double() / units.sum()


def configured(kind: str, attention: str, **options: Any) -> nn.Module:
    """A model of transformers from its configuration, random weights, no layer left out at random."""
    import transformers

    cls = getattr(transformers, kind)
    config = cls.config_class(**options)
    for key in ("layerdrop", "encoder_layerdrop", "decoder_layerdrop"):
        if hasattr(config, key):
            setattr(config, key, 0.0)
    config._attn_implementation = attention
    model: nn.Module = cls(config)
    return model


def drop(model: nn.Module, probability: float) -> None:
    """Set the probability of all dropout, in modules and in what modules hand to attention; whole layers stay."""
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = probability
        for key, value in vars(module).items():
            if "drop" in key and "layer" not in key and isinstance(value, float):
                setattr(module, key, probability)


def lengths(samples: int, length: int, generator: torch.Generator) -> Tensor:
    """[B] between 2 and `length`, at least one of them `length`."""
    found = torch.randint(min(2, length), length + 1, (samples,), generator=generator)
    found[int(torch.randint(samples, (), generator=generator))] = length
    return found


def text(samples: int, length: int, seed: int, left: bool = False) -> tuple[Tensor, Tensor, torch.Generator]:
    """Words [B, L] and their mask [B, L], padded on the right or on the left."""
    generator = torch.Generator().manual_seed(seed)
    words = torch.randint(4, WORDS, (samples, length), generator=generator)
    mask = (torch.arange(length) < lengths(samples, length, generator)[:, None]).long()
    if left:
        mask = mask.flip(1)
    return torch.where(mask == 1, words, PAD), mask, generator


def classes(samples: int, length: int, seed: int) -> Batch:
    """Text with one of three labels."""
    words, mask, generator = text(samples, length, seed)
    labels = torch.randint(3, (samples,), generator=generator)
    return {"input_ids": words, "attention_mask": mask, "labels": labels}


def some_words(samples: int, length: int, seed: int) -> Batch:
    """Text in which some of the words are to be told, in each sample at least the first."""
    words, mask, generator = text(samples, length, seed)
    asked = torch.rand(samples, length, generator=generator) < 0.4
    asked[:, 0] = True
    labels = torch.where(asked & (mask == 1), words, -100)
    return {"input_ids": torch.where(asked, 3, words), "attention_mask": mask, "labels": labels}


def next_words(samples: int, length: int, seed: int, left: bool = False) -> Batch:
    """Text whose own words are the labels; none at the padding."""
    words, mask, _ = text(samples, length, seed, left)
    return {"input_ids": words, "attention_mask": mask, "labels": torch.where(mask == 1, words, -100)}


def left_padded(samples: int, length: int, seed: int) -> Batch:
    """`next_words`, padded on the left, as for generation."""
    return next_words(samples, length, seed, left=True)


def translated(samples: int, length: int, seed: int) -> Batch:
    """Source text and labels of other lengths."""
    words, mask, _ = text(samples, length, seed)
    target, there, _ = text(samples, max(2, length - 1), seed + 500)
    return {"input_ids": words, "attention_mask": mask, "labels": torch.where(there == 1, target, -100)}
