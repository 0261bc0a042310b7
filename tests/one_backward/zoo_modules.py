"""Modules of one's own, as people write them with plain PyTorch."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from one_backward.zoo_case import HEADS, INNER, LAYERS, PAD, WIDTH, WORDS
from torch import Tensor, nn

LONGEST = 40


class Translator(nn.Module):
    """A plain nn.Transformer between embeddings and a linear layer, the samples first or the time first."""

    def __init__(self, batch_first: bool) -> None:
        super().__init__()
        self.batch_first = batch_first
        self.words = nn.Embedding(WORDS, WIDTH, padding_idx=PAD)
        self.places = nn.Embedding(LONGEST, WIDTH)
        self.transformer = nn.Transformer(
            WIDTH, HEADS, LAYERS, LAYERS, INNER, dropout=0.0, batch_first=batch_first, norm_first=not batch_first
        )
        self.output = nn.Linear(WIDTH, WORDS)

    def embed(self, words: Tensor) -> Tensor:
        L = words.shape[1 if self.batch_first else 0]
        places: Tensor = self.places(torch.arange(L))
        embedded: Tensor = self.words(words) + (places if self.batch_first else places[:, None])
        return embedded

    def forward(self, source: Tensor, target: Tensor) -> Tensor:
        padding = [x == PAD if self.batch_first else (x == PAD).T for x in (source, target)]
        L = target.shape[1 if self.batch_first else 0]
        hidden = self.transformer(
            self.embed(source),
            self.embed(target),
            tgt_mask=torch.ones(L, L, dtype=torch.bool).triu(1),
            src_key_padding_mask=padding[0],
            tgt_key_padding_mask=padding[1],
            memory_key_padding_mask=padding[0],
        )
        scores: Tensor = self.output(hidden)
        return scores


class EncoderClassifier(nn.Module):
    """An nn.TransformerEncoder, its mean over the words, a linear layer."""

    def __init__(self) -> None:
        super().__init__()
        self.words = nn.Embedding(WORDS, WIDTH, padding_idx=PAD)
        layer = nn.TransformerEncoderLayer(WIDTH, HEADS, INNER, dropout=0.0, activation="gelu", batch_first=True)
        self.encoder = nn.TransformerEncoder(layer, LAYERS)
        self.output = nn.Linear(WIDTH, 3)

    def forward(self, words: Tensor) -> Tensor:
        hidden = self.encoder(self.words(words), src_key_padding_mask=words == PAD)
        scores: Tensor = self.output(hidden.mean(1))
        return scores


class Recurrent(nn.Module):
    """Two bidirectional layers of an LSTM or a GRU over embeddings, the time first or packed if asked."""

    def __init__(self, kind: type[nn.RNNBase], batch_first: bool = True, packed: bool = False) -> None:
        super().__init__()
        self.batch_first, self.packed = batch_first, packed
        self.words = nn.Embedding(WORDS, WIDTH)
        self.recurrent: Any = kind(WIDTH, 8, num_layers=2, bidirectional=True, batch_first=batch_first)  # type: ignore[call-arg, arg-type]
        self.output = nn.Linear(16, 3)

    def forward(self, words: Tensor) -> Tensor:
        embedded = self.words(words if self.batch_first else words.T)
        if self.packed:
            lengths = (words != PAD).sum(1)
            embedded = nn.utils.rnn.pack_padded_sequence(embedded, lengths, batch_first=True, enforce_sorted=False)
        hidden, _ = self.recurrent(embedded)
        if self.packed:
            # Without total_length the mean would depend on the longest of the other samples.
            hidden, _ = nn.utils.rnn.pad_packed_sequence(hidden, batch_first=True, total_length=words.shape[1])
        scores: Tensor = self.output(hidden.mean(1 if self.batch_first else 0))
        return scores


class Convolutional(nn.Module):
    """Two convolutions of images with a norm between them."""

    def __init__(self, norm: nn.Module) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 8, 3, padding=1)
        self.norm = norm
        self.second = nn.Conv2d(8, 12, 3, stride=2, groups=2)
        self.output = nn.Linear(12, 3)

    def forward(self, images: Tensor) -> Tensor:
        hidden = F.relu(self.norm(self.first(images)))
        scores: Tensor = self.output(F.relu(self.second(hidden)).mean((2, 3)))
        return scores


class TextConvolutional(nn.Module):
    """Convolutions of several widths over embeddings, their maxima side by side."""

    def __init__(self) -> None:
        super().__init__()
        self.words = nn.Embedding(WORDS, WIDTH, padding_idx=PAD)
        self.convolutions = nn.ModuleList(nn.Conv1d(WIDTH, 8, width, padding=width // 2) for width in (3, 5))
        self.output = nn.Linear(16, 3)

    def forward(self, words: Tensor) -> Tensor:
        embedded = self.words(words).transpose(1, 2)
        hidden = torch.cat([F.relu(one(embedded)).amax(2) for one in self.convolutions], dim=1)
        scores: Tensor = self.output(hidden)
        return scores


class Block(nn.Module):
    """As in minGPT: one linear layer for queries, keys and values, written out in matrix products."""

    def __init__(self) -> None:
        super().__init__()
        self.before, self.between = nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH)
        self.mixed, self.projection = nn.Linear(WIDTH, 3 * WIDTH), nn.Linear(WIDTH, WIDTH, bias=False)
        self.inner = nn.Sequential(nn.Linear(WIDTH, INNER), nn.GELU(), nn.Linear(INNER, WIDTH))

    def forward(self, x: Tensor) -> Tensor:
        B, L, D = x.shape
        q, k, v = (y.view(B, L, HEADS, D // HEADS).transpose(1, 2) for y in self.mixed(self.before(x)).split(D, 2))
        scores = (q @ k.transpose(2, 3)) * (D // HEADS) ** -0.5
        scores = scores.masked_fill(torch.ones(L, L, dtype=torch.bool).triu(1), float("-inf"))
        x = x + self.projection((scores.softmax(3) @ v).transpose(1, 2).reshape(B, L, D))
        result: Tensor = x + self.inner(self.between(x))
        return result


class OwnDecoder(nn.Module):
    """Written out as in minGPT, with a positional parameter of its own, [1, L, D] or [L, D].

    `tied`: the scores come from the embedding's weight by a call of F.linear.
    """

    def __init__(self, position_shape: tuple[int, ...], tied: bool = False) -> None:
        super().__init__()
        self.words = nn.Embedding(WORDS, WIDTH)
        self.places = nn.Parameter(torch.zeros(position_shape))
        self.blocks = nn.ModuleList(Block() for _ in range(LAYERS))
        self.norm = nn.LayerNorm(WIDTH)
        self.output = None if tied else nn.Linear(WIDTH, WORDS, bias=False)

    def forward(self, words: Tensor) -> Tensor:
        L = words.shape[1]
        places = self.places[:, :L] if self.places.ndim == 3 else self.places[:L]
        x = self.words(words) + places
        for block in self.blocks:
            x = block(x)
        x = self.norm(x)
        scores: Tensor = F.linear(x, self.words.weight) if self.output is None else self.output(x)
        return scores
