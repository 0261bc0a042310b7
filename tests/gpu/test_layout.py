"""The table that GPU kernels read, decoded here by its documentation alone: every element where it belongs."""

from __future__ import annotations

import ctypes
from typing import Any

import pytest
import torch
from torch import Tensor

from gradsim_kernels.layout import ALIGNMENT_BYTES, DTYPES, SEGMENT_COLUMNS, Layout, of_buffer, of_list, of_lists


def decode(layout: Layout) -> dict[str, Any]:
    """The sections of the table of a list, by the docstring of `layout.py`."""
    S, G, T = layout.segments, layout.groups, layout.tasks
    values, sections, at = layout.table.tolist(), {}, 0
    lengths = {"position": S + 1, "size": S, "group": S, "dtype": S, "first": G + 1, "outs": S, "rows": S * T}
    for name, length in lengths.items():
        sections[name] = values[at : at + length]
        at += length
    assert at == len(values)
    return sections


def memory(address: int, size: int, dtype: torch.dtype) -> Tensor:
    return torch.frombuffer((ctypes.c_char * (size * dtype.itemsize)).from_address(address), dtype=dtype)


def three_parameters(missing: Tensor) -> list[Tensor]:
    """Two tasks, four parameters: one that task 1 lacks, one that no task has, one of another dtype."""
    return [
        torch.arange(70.0), torch.arange(5.0), missing, torch.arange(3.0).bfloat16(),
        torch.arange(70.0) + 100, missing, missing, torch.arange(3.0).bfloat16() + 100,
    ]  # fmt: skip


def test_a_list() -> None:
    gradients = three_parameters(torch.empty(0))
    out = [torch.empty(70), torch.empty(5), torch.empty(0), torch.empty(3, dtype=torch.bfloat16)]
    layout = of_list(gradients, 2, 3, torch.tensor([2, 0, 0, 0]), out)
    found = decode(layout)
    assert (layout.tasks, layout.groups, layout.segments) == (2, 3, 3)
    assert found["group"] == [0, 0, 2]
    assert found["first"] == [0, 2, 2, 3], "group 1 is empty"
    assert found["size"] == [5, 3, 70]
    assert found["position"] == [0, 64, 128, 256] and layout.columns == 256
    assert all(p % SEGMENT_COLUMNS == 0 for p in found["position"])
    assert [DTYPES[d] for d in found["dtype"]] == [torch.float32, torch.bfloat16, torch.float32]
    assert set(layout.dtypes) == {torch.float32, torch.bfloat16} and layout.eps == 2.0**-23
    assert layout.dtype_bits == 0b0110
    assert found["outs"] == [out[p].data_ptr() for p in (1, 3, 0)]
    for s, p in enumerate((1, 3, 0)):
        for t in range(2):
            address, expected = found["rows"][2 * s + t], gradients[4 * t + p]
            if expected.numel() == 0:
                assert address == 0
            else:
                assert torch.equal(memory(address, found["size"][s], expected.dtype), expected)


def test_a_parameter_in_no_group_is_left_out() -> None:
    layout = of_list(three_parameters(torch.empty(0)), 2, 1, torch.tensor([-1, 0, 0, -1]))
    found = decode(layout)
    assert (found["size"], found["group"], found["outs"]) == ([5], [0], [0])
    assert layout.dtypes == (torch.float32,)


def test_two_lists_share_their_segments() -> None:
    """A parameter that only one side has is a segment of both, without memory on the other side."""
    missing = torch.empty(0)
    a, b = of_lists(
        [[torch.ones(4), missing], [torch.ones(4), torch.ones(6, dtype=torch.float64)]], [1, 1], 1, torch.tensor([0, 0])
    )
    first, second = decode(a), decode(b)
    assert first["size"] == second["size"] == [4, 6] and first["position"] == second["position"]
    assert first["dtype"] == second["dtype"] and a.dtypes == b.dtypes
    assert first["rows"][1] == 0 and second["rows"][1] != 0


@pytest.mark.parametrize(("first", "aligned"), [(0, True), (4, True), (1, False)])
def test_alignment_of_a_list(first: int, aligned: bool) -> None:
    memory = torch.zeros(64)
    assert memory.data_ptr() % ALIGNMENT_BYTES == 0
    assert of_list([memory[first : first + 8]], 1, 1, torch.tensor([0])).aligned is aligned
    out = [memory[first : first + 8]]
    assert of_list([memory[32:40]], 1, 1, torch.tensor([0]), out).aligned is aligned


@pytest.mark.parametrize(("columns", "aligned"), [(64, True), (66, False)])
def test_a_buffer(columns: int, aligned: bool) -> None:
    J = torch.zeros(3, columns)
    offsets = torch.tensor([0, 10, 10, columns])
    layout = of_buffer(J, offsets, J[1])
    assert layout.J is J and layout.out is not None and layout.out.data_ptr() == J[1].data_ptr()
    assert torch.equal(layout.table, offsets)
    assert (layout.tasks, layout.groups, layout.segments, layout.columns) == (3, 3, 3, columns)
    assert layout.aligned is aligned
    assert of_buffer(J.double(), offsets).eps == 2.0**-52


def test_nothing_at_all() -> None:
    layout = of_list([], 1, 0, torch.empty(0, dtype=torch.int64))
    assert (layout.segments, layout.columns, layout.dtypes) == (0, 0, ())
    layout = of_list([torch.empty(0)] * 2, 2, 1, torch.tensor([0]))
    assert (layout.segments, layout.columns, decode(layout)["first"]) == (0, 0, [0, 0])
