"""Which tokens a masked language model has to guess."""

from __future__ import annotations

from collections.abc import Sequence, Set

from gradsim.data.streams import stream
from gradsim.models.likelihood import IGNORED

__all__ = ["mask_tokens"]

_SHARE = 0.15


def mask_tokens(ids: Sequence[int], *, mask: int, special: Set[int], vocabulary: int) -> tuple[list[int], list[int]]:
    """The inputs and the labels for one text (BERT: Devlin et al., 2019, section 3.1).

    15 % of the tokens that are not special, at least one, have themselves as labels, all others -100. Of those, 80 %
    become `mask` in the inputs, 10 % a random token below `vocabulary`, 10 % stay. The choice follows from the tokens
    alone: the same text is masked the same in whatever batch, so that a measurement can be repeated.
    """
    inputs, labels = list(ids), [IGNORED] * len(ids)
    free = [i for i, token in enumerate(ids) if token not in special]
    if not free:
        return inputs, labels
    random = stream(0, "mask", *ids)
    for i in random.permutation(free)[: max(1, round(_SHARE * len(free)))].tolist():
        labels[i] = ids[i]
        draw, other = random.random_sample(), random.randint(vocabulary)
        if draw < 0.8:
            inputs[i] = mask
        elif draw < 0.9:
            inputs[i] = int(other)
    return inputs, labels
