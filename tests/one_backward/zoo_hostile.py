"""Modules whose samples are easily mistaken: `mixed_batch` has to be right about them or to refuse them."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from one_backward.zoo_case import PAD, WIDTH, WORDS, Batch, Case, next_words, per_label
from one_backward.zoo_plain import label_loss, labelled, plain
from torch import Tensor, nn

Body = Callable[["Words", Tensor, Tensor], Tensor]  # module, words [B, L], embedded [B, L, D] -> hidden [B, L', D]


class Words(nn.Module):
    """Embedding, a body that does something odd, the mean over the words, a linear layer."""

    def __init__(self, body: Body) -> None:
        super().__init__()
        self.body = body
        self.words = nn.Embedding(WORDS, WIDTH)
        self.places = nn.Embedding(40, WIDTH)
        self.time = nn.Linear(1, WIDTH)
        self.first, self.second = nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, WIDTH)
        self.output = nn.Linear(WIDTH, 3)

    def forward(self, words: Tensor) -> Tensor:
        hidden = self.body(self, words, torch.tanh(self.first(self.words(words))))
        scores: Tensor = self.output(hidden.mean(1))
        return scores


def time_in_front(self: Words, words: Tensor, x: Tensor) -> Tensor:
    """Samples second, then flattened: what comes first in memory is not the sample."""
    flat = x.transpose(0, 1).reshape(-1, WIDTH)
    return torch.tanh(self.second(flat)).view(words.shape[1], -1, WIDTH).transpose(0, 1)


def time_second(self: Words, words: Tensor, x: Tensor) -> Tensor:
    """Samples in the second dimension."""
    return torch.tanh(self.second(x.transpose(0, 1))).transpose(0, 1)


def own_clock(self: Words, words: Tensor, x: Tensor) -> Tensor:
    """A linear layer of positions: [L, 1], no samples."""
    return x * self.time(torch.linspace(0, 1, words.shape[1])[:, None])


def counted_places(self: Words, words: Tensor, x: Tensor) -> Tensor:
    """Positions [L] that no arange made."""
    places: Tensor = self.places(torch.ones(words.shape[1], dtype=torch.long).cumsum(0))
    return x * places


def places_of_a_list(self: Words, words: Tensor, x: Tensor) -> Tensor:
    """Positions [L] from Python."""
    places: Tensor = self.places(torch.tensor(list(range(words.shape[1]))))
    return x * places


def relative_bias(self: Words, words: Tensor, x: Tensor) -> Tensor:
    """A learned bias of attention, [L, L], from an index that is filled inside: as in BEiT."""
    L = words.shape[1]
    index = torch.zeros(L, L, dtype=torch.long)
    for i in range(L):
        index[i, i:] = torch.arange(1, L - i + 1)
    return F.scaled_dot_product_attention(x, x, x, attn_mask=self.places(index.view(-1)).view(L, L, -1)[..., 0])


def relative_bias_of_a_list(self: Words, words: Tensor, x: Tensor) -> Tensor:
    """As `relative_bias`, the index from Python."""
    L = words.shape[1]
    index = torch.tensor([[abs(i - j) for i in range(L)] for j in range(L)])
    return F.scaled_dot_product_attention(x, x, x, attn_mask=self.places(index)[..., 0])


def waves(self: Words, words: Tensor, x: Tensor) -> Tensor:
    """A projection of sines that are filled into a table [L, D]."""
    L = words.shape[1]
    table = torch.zeros(L, WIDTH)
    table[:, 0::2] = torch.arange(L)[:, None].sin()
    table[:, 1::2] = torch.arange(L)[:, None].cos()
    return x * torch.tanh(self.second(table))


def one_by_one(self: Words, words: Tensor, x: Tensor) -> Tensor:
    """Each sample by itself: [L, D], no samples."""
    return torch.stack([torch.tanh(self.second(one)) for one in x])


def word_by_word(self: Words, words: Tensor, x: Tensor) -> Tensor:
    """Each time by itself: [B, D]."""
    return torch.stack([torch.tanh(self.second(one)) for one in x.unbind(1)], dim=1)


def selected(self: Words, words: Tensor, x: Tensor) -> Tensor:
    """Only the words that are no padding, in one row: [n, D]."""
    there = words != PAD
    return x.masked_scatter(there[..., None], torch.tanh(self.second(x[there])))


def reordered(self: Words, words: Tensor, x: Tensor) -> Tensor:
    """The samples sorted by length, and back."""
    order = (words != PAD).sum(1).argsort(stable=True)
    return torch.tanh(self.second(x[order]))[order.argsort()]


def doubled(self: Words, words: Tensor, x: Tensor) -> Tensor:
    """Two views of each sample behind one another: [2 B, L, D], as in Siamese networks."""
    one, other = torch.tanh(self.second(torch.cat([x, x.flip(2)]))).chunk(2)
    return one * other


def unsorted(self: Words, words: Tensor, x: Tensor) -> Tensor:
    """Written to other places of a new tensor."""
    order = (words != PAD).sum(1).argsort(stable=True)
    out = torch.zeros_like(x)
    out[order] = x
    return torch.tanh(self.second(out))[order]


def copied(self: Words, words: Tensor, x: Tensor) -> Tensor:
    """As `unsorted`, in another spelling."""
    order = (words != PAD).sum(1).argsort(stable=True)
    return torch.tanh(self.second(torch.zeros_like(x).index_copy_(0, order, x)))[order]


def upside_down(self: Words, words: Tensor, x: Tensor) -> Tensor:
    """The last sample first."""
    return torch.flipud(torch.tanh(self.second(torch.flipud(x))))


def turned(self: Words, words: Tensor, x: Tensor) -> Tensor:
    """All elements moved on by as many as a sample has."""
    n = x[0].numel()
    return torch.roll(torch.tanh(self.second(torch.roll(x, n))), -n)


def windows(self: Words, words: Tensor, x: Tensor) -> Tensor:
    """Each sample in parts of two words, [B L / 2, 2, D]: as in Swin."""
    B, L, D = x.shape
    x = F.pad(x, (0, 0, 0, L % 2)).view(-1, 2, D)
    return torch.tanh(self.second(x)).view(B, -1, D)


def heads_in_front(self: Words, words: Tensor, x: Tensor) -> Tensor:
    """[H, B, L, D / H] flattened to [H B, L, D / H] and back, as some attentions do; a parameter meets it there."""
    B, L, D = x.shape
    flat = x.view(B, L, 4, -1).permute(2, 0, 1, 3).reshape(4 * B, L, -1) * self.second.weight[0, :4]
    return flat.view(4, B, L, -1).permute(1, 2, 0, 3).reshape(B, L, D)


def in_chunks(self: Words, words: Tensor, x: Tensor) -> Tensor:
    """Two samples at a time, to save memory."""
    return torch.cat([torch.tanh(self.second(part)) for part in x.split(2)])


class Asked(nn.Module):
    """A language model whose scores are computed only where there is a label: [n, V]."""

    def __init__(self) -> None:
        super().__init__()
        self.words = nn.Embedding(WORDS, WIDTH)
        self.inner, self.output = nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, WORDS)

    def forward(self, words: Tensor, there: Tensor) -> Tensor:
        scores: Tensor = self.output(torch.tanh(self.inner(self.words(words)))[there])
        return scores


def asked_loss(model: nn.Module, batch: Batch) -> Tensor:
    there = batch["labels"] != -100
    return F.cross_entropy(model(batch["input_ids"], there), batch["labels"][there])


def odd(body: Body) -> Case:
    return plain(body.__name__, body.__doc__ or "", lambda _: Words(body), draw=labelled, loss=label_loss)


BODIES = [
    time_in_front,
    time_second,
    own_clock,
    counted_places,
    places_of_a_list,
    relative_bias,
    relative_bias_of_a_list,
    waves,
    one_by_one,
    word_by_word,
    selected,
    reordered,
    doubled,
    unsorted,
    copied,
    upside_down,
    turned,
    windows,
    heads_in_front,
    in_chunks,
]
# Right or refused, whatever the sizes.
MISTAKEN = [
    *(odd(body) for body in BODIES),
    plain(
        "asked", "scores only where labels are", lambda _: Asked(), draw=next_words, loss=asked_loss, units=per_label
    ),
]
