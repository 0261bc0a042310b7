"""Calls every emulated kernel with tables full of nonsense, under the address sanitizer (test_sanitizers.py runs it).

Values of device tables are not trusted: whatever they hold, no kernel may read or write outside. Here rows, outputs and
tables are exactly as long as the sizes that the host knows, so that the sanitizer sees each step beyond.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from emulation.backend import Emulated
from gradsim_kernels.gpu import Surgery
from gradsim_kernels.layout import DTYPES, Layout

N, S, G = 700, 4, 3
EXTREME = (-1, 0, 1, N - 1, N, N + 1, 2**31, 2**62, -(2**63), 2**63 - 1)


def tables(rng: np.random.Generator, count: int, length: int, valid: list[int]) -> Iterator[list[int]]:
    """Nonsense of several kinds in place of `valid`."""
    yield from ([x] * length for x in EXTREME)
    yield valid[::-1]
    for _ in range(count):
        yield rng.choice(EXTREME, length).tolist()
        yield rng.integers(-5, N + 5, length).tolist()
        one = list(valid)
        one[rng.integers(length)] = int(rng.choice(EXTREME))
        yield one


def buffers(rng: np.random.Generator, T: int, dtype: torch.dtype) -> Iterator[Layout]:
    for offsets in tables(rng, 6, G + 1, [0, 200, 200, N]):
        J, out = torch.ones(T, N, dtype=dtype), torch.zeros(N, dtype=dtype)
        table = torch.tensor(offsets, dtype=torch.int64)
        yield Layout(J, out, table, J.device, T, G, G, N, (dtype,), True)


def lists(rng: np.random.Generator, T: int, keep: list[Tensor]) -> Iterator[Layout]:
    """Rows as long as all columns of the widest dtype: a segment may be said to be anywhere within the columns."""
    rows = [torch.ones(N, dtype=torch.float64) for _ in range(S * T)]
    outs = [torch.zeros(N, dtype=torch.float64) for _ in range(S)]
    keep[:] = [*rows, *outs]
    addresses = [x.data_ptr() for x in rows]
    addresses[1] = addresses[-1] = 0
    sections = {
        "position": [0, 192, 384, 512, N],
        "size": [190, 150, 128, 188],
        "group": [0, 0, 1, 2],
        "dtype": [2, 1, 0, 3],
        "first": [0, 2, 3, 4],
    }
    for name, valid in sections.items():
        for values in tables(rng, 3, len(valid), valid):
            # A dtype that is none has no size: only what occurs in the layout is read.
            broken = {**sections, name: [x % 4 for x in values] if name == "dtype" else values}
            table = [x for section in broken.values() for x in section]
            table += [*(x.data_ptr() for x in outs), *addresses]
            yield Layout(None, None, torch.tensor(table, dtype=torch.int64), rows[0].device, T, G, S, N, DTYPES, False)


def call_everything(kernels: Emulated, g: Layout, rng: np.random.Generator) -> None:
    T = g.tasks
    kernels.gramian(g)
    kernels.cross_gramian(g, g)
    kernels.combine(g, torch.ones(G, T, dtype=torch.float64))
    order = torch.from_numpy(rng.choice(EXTREME, (G, T, T - 1)).astype(np.int64)) if rng.integers(2) else None
    target, counts = torch.zeros(G, T, T, dtype=torch.float64), torch.zeros(G, T, dtype=torch.int64)
    kernels.gradvac(g, Surgery(target, order, 1, torch.tensor(2), beta=0.1, corrections=counts))


def main(library: str, every: int) -> None:
    """`every`: only every so many-th table."""
    kernels, rng, calls = Emulated(Path(library)), np.random.default_rng(0), 0
    keep: list[Tensor] = []
    for T in (2, 9, 33):
        kinds = [*(buffers(rng, T, dtype) for dtype in DTYPES), lists(rng, T, keep)]
        for n, layout in enumerate(layout for kind in kinds for layout in kind):
            if n % every == 0:
                call_everything(kernels, layout, rng)
                calls += 1
    print(f"{calls} tables")


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
