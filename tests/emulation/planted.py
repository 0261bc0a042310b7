"""Bugs to plant in csrc/cuda: each must be found by `driver.py` in one of its orders.

What emulation cannot find, and so no test here claims: a missing __threadfence or acquire (the host orders memory more
strongly than a GPU), too few registers, wrong cache hints, an instruction that the inline assembly misspells.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Bug:
    """`old` becomes `new` in one file; it must occur exactly once."""

    name: str
    file: str
    old: str
    new: str
    always: bool = False  # tested in every run; the others in slow runs


BUGS = (
    # Barriers, flags and counters
    Bug("no barrier before an arrival", "sync.cuh", "  __syncthreads();  // the block has written all\n", "", True),
    Bug("last arrival off by one", "sync.cuh", "+ 1 == count", "== count"),
    Bug("last arrival one too early", "sync.cuh", "+ 1 == count", "+ 2 == count", True),
    Bug("flag not waited for", "sync.cuh", "load_acquire(flag) == 0;", "load_acquire(flag) == 2;", True),
    Bug(
        "no barrier between partial sums",
        "gramian.cuh",
        "  });\n  __syncthreads();\n  for (int p",
        "  });\n  for (int p",
    ),
    Bug("counters not cleared", "surgery.cu", "to.counters[n] = 0;", "to.counters[n] += 0;"),
    Bug("the ticket is not shared", "fused.cuh", "  __syncthreads();\n  if (task.some)", "  if (task.some)"),
    Bug(
        "no barrier while cM is read",
        "weights_large.cuh",
        "    __syncthreads();  // all have read the target and cM\n",
        "",
    ),
    # Warp operations and fragments
    Bug("wrong lanes exchanged", "halving.cuh", "given, kBit)", "given, kBit ^ 1)", True),
    Bug(
        "the wrong half is given away",
        "halving.cuh",
        "given = upper ? value[v] : above",
        "given = upper ? above : value[v]",
    ),
    Bug("sums of a warp, not of a team", "weights.cuh", "lanes = kTeam / 2", "lanes = kTeam"),
    Bug("a team picks from another", "weights.cuh", "int(j / kPer), kTeam)", "int(j / kPer))"),
    Bug("halves of a fragment swapped", "tile_formats.cuh", "? Fragment{x.x, x.y} :", "? Fragment{x.x, x.w} :", True),
    Bug(
        "upper and lower rows swapped",
        "tile_formats.cuh",
        "{upper.low, lower.low, upper.high, lower.high}",
        "{lower.low, upper.low, lower.high, upper.high}",
    ),
    Bug("a term of the split missing", "tile_formats.cuh", "{0, 1}, {1, 0}, {0, 0}}", "{0, 1}, {1, 1}, {0, 0}}"),
    Bug(
        "rows of another block",
        "tile_mma.cuh",
        "rows.pointer(8 * block + lane / 4), begin",
        "rows.pointer(8 * block + lane % 8), begin",
    ),
    # Where things lie
    Bug("wrong pair", "pairs.cuh", "return pair_count(j) + i;", "return pair_count(i) + j;", True),
    Bug("tail read one column too far", "tile_loads.cuh", ": 1 << 20) - 1;", ": 1 << 20);", True),
    Bug("tail not masked", "tile_loads.cuh", "words[e] = column <= last ? x : 0;", "words[e] = x;"),
    Bug("head forgotten", "tile_walk.cuh", "+ (first > item.begin);", "+ 0 * (first > item.begin);"),
    Bug(
        "alignment of one row only",
        "tile_rows.cuh",
        "past(left) == past(present) &&",
        "past(present) == past(present) &&",
        True,
    ),
    Bug(
        "a missing row counts as another", "gramian.cuh", "rows.left_has(i) && rows.left_has(j) ? sum : 0", "sum", True
    ),
    Bug("missing rows leave gaps", "combine.cuh", "if (w < warp) place += there[w];", "if (w < warp) place += kWarp;"),
    Bug(
        "last columns not combined",
        "combine.cuh",
        "edge < columns - (tail - head);",
        "edge < columns - (tail - head) - 1;",
    ),
    Bug(
        "row offsets in 32 bits",
        "items.cuh",
        "g.base + task * g.row_bytes",
        "g.base + int32_t(uint32_t(task) * uint32_t(g.row_bytes))",
        True,
    ),
    Bug("items that end a column early", "items.cuh", "from + chunk - start, 0", "from + chunk - start - 1, 0"),
    Bug(
        "the last item of a sum left out",
        "partials.cuh",
        "slice < slices; ++slice) sum",
        "slice < slices - 1; ++slice) sum",
    ),
    Bug(
        "a ticket for two items", "schedule.cuh", "work.item = ticket - combined;", "work.item = ticket - combined / 2;"
    ),
    # Rules
    Bug(
        "entries of the order not checked", "weights.cuh", "0 <= j && j < tasks && j != i ? j : shared.kNone", "j", True
    ),
    Bug("corrected at a tie", "weights.cuh", "visits && phi < wanted", "visits && phi <= wanted"),
    Bug(
        "the target decays before the comparison",
        "weights.cuh",
        "if (visits && lane == 0) target[j]",
        "if (corrects && lane == 0) target[j]",
    ),
    Bug("high half of the step dropped", "order.cuh", "uint32_t(draw.step >> 32)", "0u"),
    Bug("ties of keys fall the other way", "order.cuh", "key_a < key_b ||", "key_a <= key_b ||"),
)
