"""Any sequence-classification, token-classification, masked or causal model of transformers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from gradsim.data.tasks import Example, TaskSet
from gradsim.models.hub import load_config, load_tokenizer, load_weights, transformers
from gradsim.models.likelihood import IGNORED, summed
from gradsim.models.masking import mask_tokens
from gradsim.models.model import Batch
from gradsim.models.seeded import seeded
from gradsim.models.settings import fit, kind_of, longest
from gradsim.models.tokens import encode_text, encode_words, padded

__all__ = ["HuggingFaceModel"]

_DEFAULT_LENGTH = 128


class HuggingFaceModel:
    """A checkpoint, or a configuration with random weights, for the problem of `tasks`; see `make_model`.

    Classification and tagging get a new head where the checkpoint's does not fit. A word's tag is asked of its first
    token. A masked model guesses 15 % of the tokens, always the same of a text (`mask_tokens`), a causal one every
    token but the first.

    Raises `ValueError` for what cannot be loaded or does not fit, `ImportError` without transformers.
    """

    def __init__(
        self,
        name: str,
        tasks: TaskSet,
        *,
        max_length: int | None = None,
        options: Mapping[str, Any] | None = None,
        objective: str | None = None,
    ) -> None:
        unknown = [option for option in options or {} if option != "tokenizer"]
        if unknown:
            raise ValueError(f"a Hugging Face model has no option {unknown[0]!r}; it has tokenizer")
        asked = (options or {}).get("tokenizer")
        if asked is not None and not isinstance(asked, str):
            raise TypeError(f"tokenizer must be a name or a path, not {type(asked).__name__}")
        self.name = name
        self._config, self._source = load_config(name)
        self.kind = kind_of(self._config, tasks.problem, objective)
        self._tokenizer, as_bytes = load_tokenizer(name, asked)
        fit(self._config, self._tokenizer, self.kind, tasks.labels, random=self._source is None, as_bytes=as_bytes)
        most = longest(self._config, self._tokenizer)
        if max_length is not None and most is not None and max_length > most:
            raise ValueError(f"max_length is {max_length}, but the model {name!r} takes {most} tokens at most")
        self.max_length = max_length or min(_DEFAULT_LENGTH, most or _DEFAULT_LENGTH)

    def build(self, seed: int) -> nn.Module:
        """The module in float32 on the CPU, in training mode; `seed` decides what the checkpoint does not."""
        with seeded(seed):
            module: nn.Module = load_weights(getattr(transformers(), self.kind), self._source, self._config)
        return module.train()

    def batch(self, examples: Sequence[Example]) -> Batch:
        """B examples of at most L tokens: `input_ids` and `attention_mask` int64 `[B, L]`, and `labels` int64.

        Labels are `[B, 1]` for classification and `[B, L]` else, -100 for none. Tagging has also `starts` `[B, W]`, the
        position of each word's first token, -1 for none, and `lengths` `[B]`, the words of each example.
        """
        rows = [self._row(example) for example in examples]
        pad = self._tokenizer.pad_token_id
        batch = {
            "input_ids": torch.tensor(padded([ids for ids, _, _ in rows], pad)),
            "attention_mask": torch.tensor(padded([[1] * len(ids) for ids, _, _ in rows], 0)),
            "labels": torch.tensor(padded([labels for _, labels, _ in rows], IGNORED)),
        }
        if self.kind == "AutoModelForTokenClassification":
            batch["starts"] = torch.tensor(padded([starts for _, _, starts in rows], -1))
            batch["lengths"] = torch.tensor([len(starts) for _, _, starts in rows])
        return batch

    def loss(self, module: nn.Module, batch: Batch) -> Tensor:
        """The mean cross-entropy over the labels of the batch, in nats; 0 where it has none."""
        losses, counts = summed(*self._scored(module, batch))
        return losses.sum() / counts.sum().clamp(min=1)

    @torch.no_grad()
    def predict(self, module: nn.Module, batch: Batch) -> list[int] | list[tuple[int, ...]] | list[tuple[float, int]]:
        """As the `TextModel` protocol has it; the guessed tokens of a masked model are the ones that count."""
        logits, labels = self._scored(module, batch)
        if self.kind == "AutoModelForSequenceClassification":
            best: list[int] = logits[:, 0].argmax(dim=1).tolist()
            return best
        if self.kind == "AutoModelForTokenClassification":
            starts = batch["starts"]
            tags = logits.argmax(dim=2).gather(1, starts.clamp(min=0)).masked_fill(starts < 0, 0).tolist()
            return [tuple(row[:length]) for row, length in zip(tags, batch["lengths"].tolist(), strict=True)]
        losses, counts = summed(logits, labels)
        return list(zip(losses.tolist(), counts.tolist(), strict=True))

    def _scored(self, module: nn.Module, batch: Batch) -> tuple[Tensor, Tensor]:
        """The logits `[B, L, C]` and the labels `[B, L]` that they are held against."""
        logits = module(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits
        if self.kind == "AutoModelForSequenceClassification":
            return logits[:, None], batch["labels"]
        if self.kind == "AutoModelForCausalLM":
            return logits[:, :-1], batch["labels"][:, 1:]
        return logits, batch["labels"]

    def _row(self, example: Example) -> tuple[list[int], list[int], list[int]]:
        """Token ids, labels, and for tagging the positions of the words' first tokens."""
        if self.kind == "AutoModelForTokenClassification":
            ids, starts = encode_words(self._tokenizer, tuple(example.text), self.max_length)
            labels = [IGNORED] * len(ids)
            tags = example.label if isinstance(example.label, tuple) else ()
            for position, tag in zip(starts, tags, strict=False):
                if position >= 0:
                    labels[position] = tag
            return ids, labels, starts
        ids = encode_text(self._tokenizer, str(example.text), self.max_length)
        if self.kind == "AutoModelForSequenceClassification":
            return ids, [example.label if isinstance(example.label, int) else IGNORED], []
        if self.kind == "AutoModelForCausalLM":
            return ids, ids, []
        special = set(self._tokenizer.all_special_ids)
        mask, size = self._tokenizer.mask_token_id, self._config.vocab_size
        return *mask_tokens(ids, mask=mask, special=special, vocabulary=size), []
