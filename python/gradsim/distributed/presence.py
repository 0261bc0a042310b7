"""Which process has the gradients of which task, and whether all of them mean the same step."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from gradsim.distributed.processes import Processes


@dataclass(frozen=True)
class Presence:
    """`somewhere`: bool [T, P], whether any process has the gradient of task t for parameter p. `ranks`: for each
    process the tasks it has.
    """

    somewhere: Tensor
    ranks: list[list[int]]

    @property
    def tasks(self) -> list[int]:
        """The tasks that some process has."""
        return [t for t, there in enumerate(self.somewhere.any(1).tolist()) if there]

    def divisors(self, average: str) -> list[int]:
        """What the sum over the processes is divided by to be their mean, for each of `tasks`."""
        if average == "world":
            return [len(self.ranks)] * len(self.tasks)
        return [sum(t in held for held in self.ranks) for t in self.tasks]


def digest(*parts: object) -> int:
    """63 bits that tell things apart whose `repr` differs, the same in every process."""
    return int.from_bytes(hashlib.blake2b(repr(parts).encode(), digest_size=8).digest(), "big") >> 1


class Facts:
    """What all processes must have been given alike; one number stands for it until it is doubted.

    tell: pairs of a name and a value, as they are now.
    """

    def __init__(self, tell: Callable[[], Sequence[tuple[str, object]]]) -> None:
        self._tell = tell
        self.number = digest(tell())

    def compare(self, processes: Processes) -> None:
        """Compare all of it (RuntimeError, naming what differs)."""
        facts = self._tell()
        agree(processes, facts)
        self.number = digest(facts)


def meet(processes: Processes, kind: str, facts: Facts, number: int = 0) -> list[int]:
    """Wait until all processes come to the same, with the same facts; what number each of them brings.

    Raises:
        RuntimeError: some came to something else, or were given something else.
    """
    said = processes.say([digest(kind), facts.number, number])
    if len({what for what, *_ in said}) > 1:
        alike = [r for r, (what, *_) in enumerate(said) if what == said[processes.rank][0]]
        raise RuntimeError(
            f"ranks {alike} of {processes.size} came to {kind}, the others to something else; every process must call "
            "finish() and mixed_batch() as often and in the same order, whatever tasks it has"
        )
    if len({given for _, given, _ in said}) > 1:
        facts.compare(processes)
    return [each for *_, each in said]


def settle(processes: Processes, kind: str, facts: Facts, here: Tensor) -> Presence:
    """Tell each other what is there: bool [T, P].

    Raises:
        RuntimeError: what `meet` raises.
    """
    if len(set(meet(processes, kind, facts, digest(here.shape, here.numpy().tobytes())))) == 1:
        table = here[None].expand(processes.size, -1, -1)
    else:
        table = _unpacked(processes.say(_packed(here)), here)
    held = table.any(2)
    ranks = [[t for t, there in enumerate(row) if there] for row in held.tolist()]
    return Presence(table.any(0), ranks)


def _packed(here: Tensor) -> list[int]:
    """A table of bits in whole numbers of 64."""
    packed = np.packbits(here.numpy().reshape(-1))
    return list(np.pad(packed, (0, -len(packed) % 8)).view(np.int64).tolist())


def _unpacked(said: Sequence[Sequence[int]], here: Tensor) -> Tensor:
    """The tables [W, T, P] of all processes."""
    packed = np.array(said, dtype=np.int64).view(np.uint8)
    return torch.from_numpy(np.unpackbits(packed, axis=1)[:, : here.numel()].astype(bool)).view(-1, *here.shape)


def agree(processes: Processes, facts: Sequence[tuple[str, object]]) -> None:
    """Compare what all processes must have been given alike (RuntimeError, naming what differs)."""
    said = processes.say([digest(value) for _, value in facts])
    for (name, value), column in zip(facts, zip(*said, strict=True), strict=True):
        if len(set(column)) > 1:
            others = [r for r, x in enumerate(column) if x != column[processes.rank]]
            text = repr(value)
            raise RuntimeError(
                f"the processes have different {name}: rank {processes.rank} has "
                f"{text if len(text) < 200 else text[:200] + ' ...'}, ranks {others} have another; give all of them "
                "the same"
            )
