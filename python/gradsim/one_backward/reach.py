"""Which uses of parameters a loss depends on."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

from torch import Tensor

from gradsim.one_backward.uses import Use

# torch.utils.checkpoint(use_reentrant=True): what is inside is in the graph only while backward computes it again.
_HIDING = ("CheckpointFunctionBackward",)


def reachable_uses(losses: Sequence[Tensor]) -> Counter[int] | None:
    """For each parameter the number of its uses in the graph; None: a part of the graph cannot be seen."""
    found: Counter[int] = Counter()
    seen: set[Any] = set()
    left: list[Any] = [loss.grad_fn for loss in losses]
    while left:
        node = left.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        if type(node).__name__ in _HIDING:
            return None
        use = getattr(node, "use", None)
        if isinstance(use, Use):
            found.update({i for roots in use.roots for i in roots})
        left.extend(following for following, _ in node.next_functions)
    return found
