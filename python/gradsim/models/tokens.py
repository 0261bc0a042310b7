"""From texts and words to token ids."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

__all__ = ["encode_text", "encode_words", "padded"]


def encode_text(tokenizer: Any, text: str, max_length: int) -> list[int]:
    """The ids of a text with the special tokens, at most `max_length`; at least one, even of an empty text."""
    ids: list[int] = tokenizer(_whole(text), truncation=True, max_length=max_length)["input_ids"]
    return ids or [tokenizer.eos_token_id if tokenizer.eos_token_id is not None else tokenizer.pad_token_id]


def encode_words(tokenizer: Any, words: Sequence[str], max_length: int) -> tuple[list[int], list[int]]:
    """The ids of words with the special tokens, and for each word the position of its first token.

    -1 is the position of a word that was cut off or that the tokenizer makes nothing of.
    """
    words = [_whole(word) for word in words]
    if not tokenizer.is_fast:
        return _encode_slowly(tokenizer, words, max_length)
    encoded = tokenizer(words, is_split_into_words=True, truncation=True, max_length=max_length)
    starts = [-1] * len(words)
    for position, word in enumerate(encoded.word_ids()):
        if word is not None and starts[word] < 0:
            starts[word] = position
    ids: list[int] = encoded["input_ids"]
    return ids or [tokenizer.pad_token_id], starts


def _encode_slowly(tokenizer: Any, words: Sequence[str], max_length: int) -> tuple[list[int], list[int]]:
    """Word by word, for a tokenizer that does not tell which token is of which word."""
    parts = [tokenizer.encode(word if w == 0 else f" {word}", add_special_tokens=False) for w, word in enumerate(words)]
    marker = -1  # no token: shows where the special tokens leave room
    frame: list[int] = tokenizer.build_inputs_with_special_tokens([marker])
    room = max(0, max_length - len(frame) + 1)
    before = frame.index(marker)
    ids: list[int] = []
    starts = []
    for word, part in zip(words, parts, strict=True):
        starts.append(before + len(ids) if word and len(ids) < room else -1)
        ids = (ids + part)[:room]
    return [*frame[:before], *ids, *frame[before + 1 :]] or [tokenizer.pad_token_id], starts


def _whole(text: str) -> str:
    """Without halves of surrogate pairs, which JSON can hold and no tokenizer takes."""
    return text.encode("utf-8", "replace").decode()


def padded(rows: Sequence[Sequence[int]], fill: int) -> list[list[int]]:
    """The rows, filled up at their ends to the longest; one column at least."""
    length = max(1, *(len(row) for row in rows)) if rows else 1
    return [[*row, *[fill] * (length - len(row))] for row in rows]
