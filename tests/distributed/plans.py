"""What each rank does in a step: which tasks it has, in how many micro-batches."""

from __future__ import annotations

import random

from distributed.net import Micro, micro


def lacking(step: int, rank: int, world: int) -> list[Micro]:
    """Each rank lacks one task, in every step another."""
    return [micro(task, step, rank) for t, task in enumerate("abc") if t != (rank + step) % 3]


def first_has_all(step: int, rank: int, world: int) -> list[Micro]:
    """Task b is on rank 0 only, so that its head is reached there only."""
    return [micro(task, step, rank) for task in ("abc" if rank == 0 else "ac")]


def one_each(step: int, rank: int, world: int) -> list[Micro]:
    """A task per rank, as many tasks as ranks; with more ranks than tasks several ranks have one."""
    return [micro("abcd"[rank], step, rank)]


def pairs(step: int, rank: int, world: int) -> list[Micro]:
    """Two tasks; with four ranks, two ranks each."""
    return [micro("ab"[rank % 2], step, rank)]


def dealt(step: int, rank: int, world: int) -> list[Micro]:
    """Five tasks dealt to the ranks, in every step to others."""
    return [micro(task, step, rank) for t, task in enumerate("abcde") if (t + step) % world == rank]


def uneven(step: int, rank: int, world: int) -> list[Micro]:
    """One to three micro-batches per task, on each rank others, in any order, of different sizes."""
    micros = [micro(t, step, rank, n, 2 + n) for t in "abc" for n in range(1 + (ord(t) + rank + step) % 3)]
    return random.Random(10 * step + rank).sample(micros, len(micros))


def vanishing(step: int, rank: int, world: int) -> list[Micro]:
    """Step 1 is without task c, in step 2 the last rank has nothing, step 3 is empty, step 4 has one task only."""
    tasks = {1: "ab", 2: "" if rank == world - 1 else "abc", 3: "", 4: "b"}.get(step, "abc")
    return [micro(task, step, rank) for task in tasks]
