"""What is known of tensors that a module passes on through a function that is not followed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from gradsim.one_backward.tracked import Tracked


@contextmanager
def passed_on(modules: Sequence[nn.Module], tracked: Tracked) -> Iterator[None]:
    """Inside, what forward pre-hooks make of the inputs of these modules is taken for the inputs themselves.

    FSDP2 passes them through an autograd function of its own, and gathers parameters; none of it is followed.
    """
    open_: list[Any] = []
    handles = []
    for module in modules:
        kept: list[list[Any]] = []

        def before(_: nn.Module, args: Any, kwargs: Any, kept: list[list[Any]] = kept) -> None:
            leaves = pytree.tree_leaves((args, kwargs))
            kept.append([(x.shape, tracked.note(x)) if isinstance(x, Tensor) else None for x in leaves])
            open_.append(torch._C.DisableTorchFunction())
            open_[-1].__enter__()

        def after(_: nn.Module, args: Any, kwargs: Any, kept: list[list[Any]] = kept) -> None:
            open_.pop().__exit__(None, None, None)
            for x, known in zip(pytree.tree_leaves((args, kwargs)), kept.pop(), strict=True):
                if known is not None and known[0] == x.shape and known[1] is not None:
                    tracked.take_note(x, known[1])

        handles.append(module.register_forward_pre_hook(before, prepend=True, with_kwargs=True))
        handles.append(module.register_forward_pre_hook(after, with_kwargs=True))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
        while open_:  # a hook between the two has failed
            open_.pop().__exit__(None, None, None)
