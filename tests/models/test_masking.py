"""The masked tokens: as many as BERT's, the same whenever a text comes back."""

from __future__ import annotations

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from gradsim.models.likelihood import IGNORED
from gradsim.models.masking import mask_tokens

MASK, SPECIAL, SIZE = 4, frozenset({0, 1, 4}), 5000


def masked(ids: list[int]) -> tuple[list[int], list[int]]:
    return mask_tokens(ids, mask=MASK, special=SPECIAL, vocabulary=SIZE)


@given(st.lists(st.integers(0, 30), max_size=80))
def test_labels_are_the_tokens_that_were_there(ids: list[int]) -> None:
    inputs, labels = masked(ids)
    free = sum(token not in SPECIAL for token in ids)
    asked = [i for i, label in enumerate(labels) if label != IGNORED]
    assert len(inputs) == len(labels) == len(ids)
    assert len(asked) == (max(1, round(0.15 * free)) if free else 0)
    for i, token in enumerate(ids):
        if i in asked:
            assert labels[i] == token
            assert token not in SPECIAL
            assert 0 <= inputs[i] < SIZE
        else:
            assert inputs[i] == token
    assert masked(ids) == (inputs, labels)


def test_most_become_the_mask_some_another_and_some_stay() -> None:
    ids = [1000 + k % 1000 for k in range(40000)]
    inputs, labels = masked(ids)
    asked = [i for i, label in enumerate(labels) if label != IGNORED]
    kinds = Counter("mask" if inputs[i] == MASK else "same" if inputs[i] == ids[i] else "other" for i in asked)
    assert len(asked) == 6000
    # four standard deviations of a binomial variable of 6000
    assert abs(kinds["mask"] - 4800) < 4 * 31
    assert abs(kinds["other"] - 600) < 4 * 24
    assert abs(kinds["same"] - 600) < 4 * 24
    assert min(asked) < 1000
    assert max(asked) > 39000


def test_another_text_is_masked_elsewhere() -> None:
    places = {
        tuple(i for i, label in enumerate(masked([first, *range(100, 160)])[1]) if label != IGNORED)
        for first in (7, 8, 9)
    }
    assert len(places) == 3
