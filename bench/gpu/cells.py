"""What is measured: which op, how many tasks, elements and groups, which dtype; and how many bytes that is."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

ELEMENT_BYTES = {"fp32": 4, "bf16": 2}
OPS = ("gramian", "combine", "fused")
LARGE = 100_000_000


@dataclass(frozen=True)
class Cell:
    """One row of the tables. `fused` is `gradvac_`, `cross` is `cross_gramian` of T by T tasks; `weights`, which is
    `gradvac_weights`, and `order`, which is `random_order`, have no N."""

    op: str
    T: int
    N: int
    G: int
    dtype: str = "fp32"
    form: str = "buffer"

    @property
    def name(self) -> str:
        if not self.N:
            return f"{self.op} T={self.T} G={self.G}"
        listed = ", list" if self.form == "list" else ""
        return f"{self.op} {self.dtype} T={self.T} N={self.N:.3g} G={self.G}{listed}"

    @property
    def bytes_moved(self) -> int:
        """The fewest bytes of the op on its own; of the fused step those of two passes."""
        T = self.T
        rows = {"gramian": T, "cross": 2 * T, "combine": T + 1, "fused": 2 * T + 1, "weights": 0, "order": 0}[self.op]
        return rows * self.N * ELEMENT_BYTES[self.dtype]

    @property
    def input_bytes(self) -> int:
        return (2 if self.op == "cross" else 1) * self.T * self.N * ELEMENT_BYTES[self.dtype]

    @property
    def even(self) -> bool:
        """Whether batched matrix products can do it: equal groups in one buffer."""
        return self.form == "buffer" and self.N % self.G == 0

    def small(self, N: int) -> Cell:
        """The same with few elements, for a dry run."""
        groups = min(self.G, 3)
        return Cell(self.op, 8, N if self.N else 0, groups, self.dtype, self.form)

    def record(self) -> dict[str, Any]:
        """For the JSON."""
        return {"cell": self.name, **asdict(self), "bytes_moved": self.bytes_moved}


def default() -> list[Cell]:
    """Ordered by how much hangs on them: what the goals look at, then what decides between the backends."""
    cells = [Cell("fused", 8, LARGE, 200), Cell("fused", 8, LARGE, 800), Cell("weights", 8, 0, 200)]
    cells += [Cell(op, T, LARGE, 1, dtype) for T in (8, 16, 4, 32) for dtype in ELEMENT_BYTES for op in OPS[:2]]
    cells += [Cell("fused", 8, LARGE, 200, "bf16"), Cell("fused", 8, LARGE, 200, form="list")]
    cells += [Cell(op, 64, 30_000_000, 1, dtype) for dtype in ELEMENT_BYTES for op in OPS[:2]]
    cells += [Cell("gramian", 2, LARGE, 1), Cell("combine", 2, LARGE, 1), Cell("gramian", 8, LARGE, 1_000)]
    cells += [Cell("cross", 8, LARGE // 2, 1, dtype) for dtype in ELEMENT_BYTES] + [Cell("order", 8, 0, 200)]
    cells += [Cell("weights", 32, 0, 200), Cell("weights", 64, 0, 200), Cell("fused", 8, 1_000_000, 100)]
    cells += [Cell("gramian", 128, 10_000_000, 1), Cell("gramian", 128, 10_000_000, 1, "bf16")]
    cells += [Cell("fused", 8, LARGE, 12), Cell("fused", 16, LARGE, 200), Cell("fused", 32, LARGE, 200)]
    cells += [Cell("gramian", 8, 1_000_000, 1), Cell("combine", 8, 1_000_000, 1)]
    cells += [Cell("gramian", 8, 1_000_000_000, 1, "bf16"), Cell("fused", 4, LARGE, 1_000)]
    return cells


def full() -> list[Cell]:
    """The default ones, then the whole grid."""
    first = default()
    return first + [cell for cell in _grid() if cell not in first]


def _grid() -> Iterator[Cell]:
    for T in (2, 4, 8, 16, 32, 64, 128):
        for G in (1, 30, 200, 1_000):
            yield Cell("weights", T, 0, G)
            for N in (1_000_000, 10_000_000, LARGE, 1_000_000_000):
                for dtype in ELEMENT_BYTES:
                    for op in OPS:
                        yield Cell(op, T, N, G, dtype)
