"""Which process has the gradients of which task, and whether all of them mean the same step."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from gradsim.distributed.processes import Processes


@dataclass(frozen=True)
class Presence:
    """`somewhere`: bool [T, P], whether any process has the gradient of task t for parameter p. `ranks`: for each
    process the tasks it has. `is_here`: whether this process has all that is somewhere.
    """

    somewhere: Tensor
    ranks: list[list[int]]

    @property
    def tasks(self) -> list[int]:
        """The tasks that some process has."""
        return [t for t, there in enumerate(self.somewhere.any(1).tolist()) if there]

    def factors(self, average: str) -> list[float]:
        """What the sum over the processes is multiplied by to be their mean, for each of `tasks`."""
        if average == "world":
            return [1.0 / len(self.ranks)] * len(self.tasks)
        return [1.0 / sum(t in held for held in self.ranks) for t in self.tasks]


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
        table = torch.tensor(processes.say(here.flatten().tolist()), dtype=torch.bool).view(-1, *here.shape)
    held = table.any(2)
    ranks = [[t for t, there in enumerate(row) if there] for row in held.tolist()]
    return Presence(table.any(0), ranks)


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
