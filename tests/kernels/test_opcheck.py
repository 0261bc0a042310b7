"""Every public op against its schema, its fake kernel and what torch.compile expects of an op."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from oracles import gradients, steps
from torch import Tensor

from gradsim_kernels import ops

T, G = 3, 2
Arguments = tuple[Any, ...]


def inputs(dtype: torch.dtype) -> dict[str, Arguments]:
    """Arguments for each op of `ops.SCHEMAS` that a compiler may see."""
    J, offsets = gradients.make("random", T, 40, dtype), torch.tensor([0, 25, 40])
    table = [x for row in J for x in row.clone().split([10, 15, 15])]
    table[1] = table[1].new_empty(0)  # a missing gradient
    cut, group_of = [10, 15, 15], torch.tensor([0, 0, 1])
    M = torch.stack([J[:, :25].double() @ J[:, :25].double().mT, J[:, 25:].double() @ J[:, 25:].double().mT])
    order, weights = steps.random_order(G, T, 1), torch.ones(G, T, dtype=torch.float64)
    chosen, counts = torch.tensor([True, False, True]), torch.zeros(G, T, dtype=torch.int64)

    def target() -> Tensor:
        return steps.random_target(G, T, 1)

    options = (chosen, 0.1, 0.999)
    return {
        "gramian": (J, offsets),
        "gramian_list": (table, T, G, group_of),
        "cross_gramian": (J, J[:2], offsets),
        "cross_gramian_list": (table, T, table[:6], 2, G, group_of),
        "random_order": (G, T, 5, torch.tensor(6)),
        "pcgrad_weights": (M, order, 0, None, 2.0**-52),
        "gradvac_weights": (M, target(), order, 0, None, *options, 2.0**-52, counts.clone()),
        "combine": (J, weights, offsets, J.new_empty(40)),
        "combine_list": (table, weights, group_of, [J.new_empty(n) for n in cut]),
        "gradvac_": (J, target(), order, 0, None, offsets, *options, 1.0, counts.clone(), J.new_empty(40)),
        "gradvac_list_": (
            table, target(), order, 0, None, group_of, *options, 1.0, counts.clone(), [J.new_empty(n) for n in cut],
        ),
    }  # fmt: skip


NAMES = [name for name in ops.SCHEMAS if name not in ops.HOST_ONLY]


def test_no_op_is_forgotten() -> None:
    assert set(inputs(torch.float32)) == set(NAMES) == set(ops.FAKES)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("name", NAMES)
def test_opcheck(backend: str, name: str, dtype: torch.dtype) -> None:
    op = getattr(getattr(torch.ops, ops.NAMESPACE), name).default
    torch.library.opcheck(op, inputs(dtype)[name])


def without_options(arguments: Arguments) -> Arguments:
    """The optional tensors (`vaccinate`, `corrections`) left out."""
    return tuple(None if isinstance(a, Tensor) and a.dtype == torch.bool else a for a in arguments)


@pytest.mark.parametrize("name", ["gradvac_weights", "gradvac_", "gradvac_list_"])
def test_opcheck_without_the_optional_tensors(backend: str, name: str) -> None:
    op = getattr(getattr(torch.ops, ops.NAMESPACE), name).default
    arguments = list(without_options(inputs(torch.float32)[name]))
    at = next(
        n for n, a in enumerate(arguments) if isinstance(a, Tensor) and a.shape == (G, T) and a.dtype == torch.int64
    )
    arguments[at] = None
    torch.library.opcheck(op, tuple(arguments))


@pytest.mark.parametrize("name", [name for name in NAMES if "? order" in ops.SCHEMAS[name]])
def test_opcheck_with_an_order_that_is_drawn(backend: str, name: str) -> None:
    op = getattr(getattr(torch.ops, ops.NAMESPACE), name).default
    at = [argument.name for argument in op._schema.arguments].index("order")
    arguments = list(inputs(torch.float32)[name])
    arguments[at : at + 3] = [None, 5, torch.tensor(6)]
    torch.library.opcheck(op, tuple(arguments))


@pytest.mark.parametrize("name", NAMES)
def test_what_the_schema_does_not_name_is_not_written(backend: str, name: str) -> None:
    """Inputs without an alias annotation keep every bit."""
    arguments = inputs(torch.float32)[name]
    schema = getattr(getattr(torch.ops, ops.NAMESPACE), name).default._schema
    copies = [a.clone() if isinstance(a, Tensor) else a for a in arguments]
    getattr(getattr(torch.ops, ops.NAMESPACE), name).default(*arguments)
    for declared, a, copy in zip(schema.arguments, arguments, copies, strict=True):
        if isinstance(a, Tensor) and not (declared.alias_info and declared.alias_info.is_write):
            assert torch.equal(a, copy), f"{name} changed its input {declared.name}"
