"""Where the rows live, what they cost, and what is put back."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from gradsim import GradientBuffer


def parameters() -> list[nn.Parameter]:
    return [nn.Parameter(torch.zeros(2, 3)), nn.Parameter(torch.zeros(4))]


def capture(buffer: GradientBuffer, task: int, values: list[Tensor | None]) -> None:
    buffer.open(task)
    for p, value in zip(buffer.parameters, values, strict=True):
        if value is not None:
            (p * value).sum().backward()
    buffer.close(task)


def test_autograd_storage_keeps_the_tensors() -> None:
    params = parameters()
    buffer = GradientBuffer(params, 2)
    outside = torch.ones(4)
    params[1].grad = outside
    buffer.open(1)
    assert params[1].grad is None
    params[0].sum().backward()
    made = params[0].grad
    buffer.close(1)
    assert params[0].grad is None and params[1].grad is outside
    assert buffer.rows[1][0] is made and buffer.rows[1][1] is None and buffer.captured == [False, True]
    assert buffer.memory_bytes == 24 and buffer.outputs() is None and buffer.flat is None
    buffer.open(1)
    assert params[0].grad is made
    params[0].sum().backward()
    buffer.close(1)
    assert made is not None and made.eq(2).all()  # accumulated where it lies
    buffer.clear()
    assert buffer.captured == [False, False] and buffer.memory_bytes == 0


def test_flat_storage_has_fixed_addresses() -> None:
    buffer = GradientBuffer(parameters(), 2, "flat")
    assert buffer.flat is None and buffer.outputs() is None
    capture(buffer, 0, [None, None])
    assert buffer.flat is None and buffer.rows[0] == [None, None]
    capture(buffer, 1, [torch.ones(2, 3), None])
    flat = buffer.flat
    assert flat is not None and flat.shape == (2, 10) and buffer.memory_bytes == 3 * 10 * 4
    assert flat[1].tolist() == [1.0] * 6 + [0.0] * 4
    first = buffer.rows[1][0]
    assert first is not None and first.data_ptr() == flat[1].data_ptr() and buffer.rows[1][1] is None
    capture(buffer, 1, [torch.full((2, 3), 2.0), torch.full((4,), 3.0)])  # a second micro-batch
    assert flat[1].tolist() == [3.0] * 10
    places = buffer.outputs()
    assert places is not None and [x.shape for x in places] == [(2, 3), (4,)]
    assert all(x.untyped_storage().data_ptr() != flat.untyped_storage().data_ptr() for x in places)
    buffer.clear()
    capture(buffer, 1, [torch.full((2, 3), 5.0), None])  # what lay there is not added
    assert flat is buffer.flat and flat[1, :6].eq(5).all() and buffer.rows[1][1] is None


@pytest.mark.parametrize("storage", ["autograd", "flat", "cpu"])
def test_discard_forgets_all_micro_batches_of_the_task(storage: str) -> None:
    params = parameters()
    buffer = GradientBuffer(params, 2, storage)
    for task in (0, 1):
        capture(buffer, task, [torch.ones(2, 3), torch.ones(4)])
    buffer.open(1)
    params[0].sum().backward()
    buffer.discard(1)
    assert buffer.captured == [True, False] and buffer.rows[1] == [None, None] and params[0].grad is None
    capture(buffer, 1, [torch.ones(2, 3), None])
    again = buffer.rows[1][0]
    assert again is not None and again.eq(1).all() and buffer.rows[1][1] is None
    kept = buffer.rows[0][0]
    assert kept is not None and kept.eq(1).all()


def test_flat_storage_holds_one_dtype() -> None:
    params = [nn.Parameter(torch.zeros(2)), nn.Parameter(torch.zeros(2, dtype=torch.float64))]
    buffer = GradientBuffer(params, 1, "flat")
    with pytest.raises(TypeError, match=r"torch.float32 on cpu and torch.float64 on cpu; use storage='autograd'"):
        capture(buffer, 0, [torch.ones(2), torch.ones(2, dtype=torch.float64)])


def test_wrong_arguments() -> None:
    with pytest.raises(ValueError, match="storage must be 'autograd', 'flat' or 'cpu', not 'rows'"):
        GradientBuffer(parameters(), 2, "rows")
    with pytest.raises(ValueError, match=r"rows_dtype must be torch.bfloat16 or None .* not torch.float16"):
        GradientBuffer(parameters(), 2, rows_dtype=torch.float16)
    with pytest.raises(ValueError, match="at least one task, not 0"):
        GradientBuffer(parameters(), 0)


def test_rows_are_rounded_once_per_block() -> None:
    """What is added is not rounded before: bfloat16 has a step of 2^-7 above 1, 2^-8 below."""
    params = [nn.Parameter(torch.zeros(3))]
    buffer = GradientBuffer(params, 1, rows_dtype=torch.bfloat16)
    buffer.open(0)
    for value in (1 + 2.0**-8, -(2.0**-8)):  # the first alone would become 1
        (params[0] * value).sum().backward()
    buffer.close(0)
    row = buffer.rows[0][0]
    assert row is not None and row.dtype == torch.bfloat16 and row.tolist() == [1.0] * 3 and buffer.memory_bytes == 6
    capture(buffer, 0, [torch.full((3,), 2.0**-8 + 2.0**-17)])  # 2^-8 would leave 1; this is more than half a step
    row = buffer.rows[0][0]
    assert row is not None and row.tolist() == [1 + 2.0**-7] * 3
    assert buffer.converts and params[0].grad is None


@pytest.mark.parametrize("storage", ["autograd", "flat", "cpu"])
def test_bfloat16_rows_in_every_storage(storage: str) -> None:
    params = parameters()
    buffer = GradientBuffer(params, 2, storage, torch.bfloat16)
    torch.manual_seed(0)
    values = [torch.randn(2, 3), torch.randn(4)]
    more = [torch.randn(2, 3), torch.randn(4)]
    capture(buffer, 1, values)
    capture(buffer, 1, [more[0], None])
    first = (values[0].bfloat16().float() + more[0]).bfloat16()
    expected = [first, values[1].bfloat16()]
    for x, y in zip(buffer.rows[1], expected, strict=True):
        assert x is not None and x.dtype == torch.bfloat16 and torch.equal(x, y)
    columns = [buffer.column(p, widened=True) for p in range(2)]
    assert all(x is not None and x.dtype == torch.float32 for _, x in columns) and columns[0][0] is None
    assert [x.dtype for x in buffer.column(0, widened=False) if x is not None] == [torch.bfloat16]
    results = buffer.results([first.clone(), None])
    assert results[0] is not None and results[0].dtype == torch.float32 and torch.equal(results[0], first.float())
    assert results[1] is None and buffer.device == torch.device("cpu") and buffer.outputs() is None
    if storage == "flat":
        assert buffer.flat is not None and buffer.update is not None
        assert (buffer.flat.dtype, buffer.update.dtype) == (torch.bfloat16, torch.float32)
        assert results[0].data_ptr() == buffer.update.data_ptr()


def test_smaller_dtypes_than_bfloat16_stay_as_they_are() -> None:
    params = [nn.Parameter(torch.zeros(3, dtype=dtype)) for dtype in (torch.float16, torch.bfloat16, torch.float64)]
    buffer = GradientBuffer(params, 1, rows_dtype=torch.bfloat16)
    buffer.open(0)
    sum((p * 1.5).sum().float() for p in params).backward()
    made = [p.grad for p in params]
    buffer.close(0)
    assert [x.dtype for x in buffer.rows[0] if x is not None] == [torch.float16, torch.bfloat16, torch.bfloat16]
    assert buffer.rows[0][0] is made[0] and buffer.rows[0][1] is made[1]


def test_rows_on_the_cpu_are_copies_in_the_same_memory_in_each_step() -> None:
    params = parameters()
    buffer = GradientBuffer(params, 2, "cpu")
    assert buffer.device is None
    addresses = []
    for step in range(3):
        params[0].grad = None
        buffer.open(0)
        (params[0] * (step + 1.0)).sum().backward()
        made = params[0].grad
        buffer.close(0)
        row = buffer.rows[0][0]
        assert row is not None and made is not None and row.eq(step + 1).all() and row.data_ptr() != made.data_ptr()
        addresses.append(row.data_ptr())
        (uploaded, _) = buffer.column(0, widened=False)
        assert uploaded is not None and torch.equal(uploaded, row) and uploaded.data_ptr() != row.data_ptr()
        capture(buffer, 0, [torch.ones(2, 3), torch.ones(4)])
        assert buffer.rows[0][0] is row and row.eq(step + 2).all()  # added where it lies
        buffer.clear()
    assert len(set(addresses)) == 1 and buffer.memory_bytes == 0


def test_a_sum_that_is_not_put_leaves_the_row() -> None:
    for storage, dtype in (("autograd", None), ("cpu", None), ("autograd", torch.bfloat16), ("flat", torch.bfloat16)):
        buffer = GradientBuffer(parameters(), 1, storage, dtype)
        capture(buffer, 0, [torch.ones(2, 3), torch.ones(4)])
        before = buffer.rows[0][0]
        total = buffer.sum(0, 0, torch.ones(2, 3), in_place=False)
        assert before is not None and before is buffer.rows[0][0] and before.eq(1).all() and total.eq(2).all()
        buffer.put(0, [total, buffer.rows[0][1]])
        assert buffer.rows[0][0] is not None and buffer.rows[0][0].eq(2).all()


def test_channels_last_gradients_keep_their_layout() -> None:
    p = nn.Parameter(torch.zeros(2, 3, 4, 5).to(memory_format=torch.channels_last))
    for storage, dtype in (("cpu", None), ("autograd", torch.bfloat16)):
        buffer = GradientBuffer([p], 1, storage, dtype)
        value = torch.randn(2, 3, 4, 5).to(memory_format=torch.channels_last)
        capture(buffer, 0, [value])
        row = buffer.rows[0][0]
        assert row is not None and row.is_contiguous(memory_format=torch.channels_last)
        assert torch.equal(row.float(), value if dtype is None else value.bfloat16().float())
