"""The projection against what it claims: unbiased products, the stated error, and a seed that decides everything."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from gradsim.similarity.sketch import Sketch

DRAWS = 400


def pair(kind: str, c: float, size: int) -> tuple[Tensor, Tensor]:
    """Two unit vectors of cosine c: dense ones, ones with all their weight on every 64th element, or on a few."""
    generator = torch.Generator().manual_seed(3)
    a, b = torch.randn(2, size, dtype=torch.float64, generator=generator)
    if kind == "every 64th":  # the columns of a matrix with 64 of them, one of which is large
        mask = torch.arange(size) % 64 == 5
        a, b = a * mask, b * mask
    if kind == "rows":  # large in a few rows of 64
        mask = torch.arange(size) // 64 % 7 == 3
        a, b = a * mask, b * mask
    if kind == "constant":
        a, b = (
            torch.ones(size, dtype=torch.float64),
            torch.cat([torch.ones(size // 2), -torch.ones(size - size // 2)]).double(),
        )
    a = a / a.norm()
    b = b - (b @ a) * a
    return a, c * a + (1 - c * c) ** 0.5 * b / b.norm()


def estimates(a: Tensor, b: Tensor, d: int, draws: int = DRAWS) -> NDArray[np.float64]:
    """float64 [draws, 3]: |Sa|^2, |Sb|^2 and Sa . Sb, each of another seed."""
    found = []
    for seed in range(draws):
        sketch = Sketch([a], [[0]], d, seed)
        placing = sketch.placing(seed % 3)
        x, y = sketch([a], placing), sketch([b], placing)
        found.append([float(x @ x), float(y @ y), float(x @ y)])
    return np.array(found)


@pytest.mark.parametrize(
    ("kind", "c"), [("dense", 0.0), ("dense", 0.6), ("every 64th", 0.6), ("rows", 0.0), ("constant", 0.6)]
)
def test_products_are_unbiased_with_the_stated_variance(kind: str, c: float) -> None:
    d = 64
    a, b = pair(kind, c, 3000)
    found = estimates(a, b, d)
    for values, true in zip(found.T, (1.0, 1.0, c), strict=True):
        bound = ((1 + true * true) / (d - 1)) ** 0.5
        assert abs(values.mean() - true) < 4 * bound / DRAWS**0.5
        assert values.std() < bound * (1 + 4 / (2 * DRAWS) ** 0.5)
    cosines = found[:, 2] / np.sqrt(found[:, 0] * found[:, 1])
    error = (1 - c * c) / d**0.5
    assert abs(cosines.mean() - c) < 4 * error / DRAWS**0.5 + 0.2 / d
    assert cosines.std() < 1.1 * error
    if kind == "dense":
        assert cosines.std() > 0.85 * error  # the statement is no idle bound


def test_the_mean_over_measurements_has_the_error_of_independent_ones() -> None:
    d, S = 64, 16
    a, b = pair("dense", 0.3, 2000)
    means = []
    for seed in range(80):
        sketch = Sketch([a], [[0]], d, seed)
        products = []
        for s in range(S):
            placing = sketch.placing(s)
            products.append(float(sketch([a], placing) @ sketch([b], placing)))
        means.append(np.mean(products))
    expected = ((1 + 0.09) / (d * S)) ** 0.5
    assert np.std(means) < 1.35 * expected


@pytest.mark.parametrize("size", [65, 64 * 64, 64 * 64 + 1])
def test_is_linear_and_keeps_the_length_of_one_element(size: int) -> None:
    """Every element lands in one bucket, with its sign."""
    template = torch.zeros(size)
    sketch = Sketch([template], [[0]], 64, 1)
    placing = sketch.placing(0)
    for place in (0, 63, size // 2, size - 1):
        unit = torch.zeros(size)
        unit[place] = 1.0
        found = sketch([unit], placing)
        assert found.abs().sum() == 1.0 and found.abs().max() == 1.0
    a, b = torch.randn(2, size)
    torch.testing.assert_close(
        sketch([2 * a - b], placing), 2 * sketch([a], placing) - sketch([b], placing), atol=1e-4, rtol=1e-4
    )


def test_elements_of_a_row_never_meet_and_all_buckets_are_used() -> None:
    sketch = Sketch([torch.zeros(64 * 256)], [[0]], 128, 5)
    placing = sketch.placing(0)
    row = torch.zeros(64 * 256)
    row[64:128] = 1.0
    assert sketch([row], placing).abs().tolist().count(1.0) == 64
    everything = sum(sketch([(torch.arange(64 * 256) // 64 == r).float()], placing).abs() for r in range(256))
    assert everything.tolist() == [128.0] * 128  # balanced


def test_groups_missing_tensors_and_small_ones() -> None:
    parameters = [torch.zeros(3, 4), torch.zeros(30, 30), torch.zeros(50), torch.zeros(900)]
    members = [[1, 0], [2], [3]]
    sketch = Sketch(parameters, members, 64, 0)
    assert sketch.offsets.tolist() == [0, 64, 114, 178]
    placing = sketch.placing(0)
    assert [place is None for place in placing] == [False, True, False]
    row: list[Tensor | None] = [torch.randn(3, 4), torch.randn(30, 30), torch.randn(50), None]
    found = sketch(row, placing)
    assert torch.equal(found[64:114], row[2])
    assert not found[114:].any()
    half = sketch([None, row[1], None, None], placing)
    torch.testing.assert_close(half[:64] + sketch([row[0], None, None, None], placing)[:64], found[:64])
    strided = sketch([row[0].t().contiguous().t(), row[1].t().contiguous().t(), row[2], None], placing)
    assert torch.equal(strided, found)


def test_the_seed_decides_and_dtypes_are_kept() -> None:
    a = torch.randn(1000)

    def sketched(seed: int, measurement: int, x: Tensor = a) -> Tensor:
        sketch = Sketch([x], [[0]], 64, seed)
        return sketch([x], sketch.placing(measurement))

    torch.manual_seed(0)
    first = sketched(7, 2)
    torch.manual_seed(1)
    assert torch.equal(sketched(7, 2), first)
    assert not torch.equal(sketched(7, 3), first) and not torch.equal(sketched(8, 2), first)
    assert first.dtype == torch.float32
    assert sketched(7, 2, a.double()).dtype == torch.float64
    assert sketched(7, 2, a.bfloat16()).dtype == torch.float32
    torch.testing.assert_close(sketched(7, 2, a.double()).float(), first, atol=1e-5, rtol=1e-5)
    assert torch.equal(torch.get_rng_state(), torch.Generator().manual_seed(1).get_state())


def test_two_groups_of_one_size_are_thrown_apart() -> None:
    x = torch.randn(500)
    sketch = Sketch([x, x], [[0], [1]], 64, 0)
    found = sketch([x, x], sketch.placing(0))
    assert not torch.equal(found[:64], found[64:])


@pytest.mark.parametrize("dimension", [0, -64, 63, 100])
def test_dimensions_that_do_not_fit_are_refused(dimension: Any) -> None:
    with pytest.raises(ValueError, match="projection must be a positive multiple of 64"):
        Sketch([torch.zeros(10)], [[0]], dimension, 0)
