"""Calls the compiled ops with nonsense, past every check of the Python front.

Run by test_raw_ops.py in a process of its own. Prints one line before and after each call, to show which one
ended the process.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

sys.path.append(str(Path(__file__).resolve().parents[1]))

import gradsim_kernels as gk

T, G, N = 3, 2, 40
raw: Any = torch.ops.gradsim_kernels_cpu


def valid(name: str) -> list[Any]:
    """Arguments that the op takes."""
    J, offsets = torch.ones(T, N), torch.tensor([0, 25, N])
    M = torch.ones(G, T, T, dtype=torch.float64) + torch.eye(T, dtype=torch.float64)
    target, weights = torch.zeros(G, T, T, dtype=torch.float64), torch.ones(G, T, dtype=torch.float64)
    order = gk.random_order(G, T)
    table, group_of = [torch.ones(n) for _ in range(T) for n in (25, 15)], torch.tensor([0, 1])
    chosen, counts = torch.ones(T, dtype=torch.bool), torch.zeros(G, T, dtype=torch.int64)
    outs = [torch.zeros(25), torch.zeros(15)]
    arguments: dict[str, list[Any]] = {
        "gramian": [J, offsets],
        "gramian_list": [table, T, G, group_of],
        "cross_gramian": [J, J[:2], offsets],
        "cross_gramian_list": [table, T, table[:4], 2, G, group_of],
        "random_order": [G, T, 5, torch.tensor(6)],
        "order_is_valid": [order],
        "pcgrad_weights": [M, order, 0, None, 2.0**-52],
        "gradvac_weights": [M, target, order, 0, None, chosen, 0.1, 0.999, 2.0**-52, counts],
        "gradvac_weights drawn": [M, target, None, 5, torch.tensor(6), chosen, 0.1, 0.999, 2.0**-52, counts],
        "combine": [J, weights, offsets, torch.zeros(N)],
        "combine_list": [table, weights, group_of, outs],
        "gradvac_": [J, target, order, 0, None, offsets, chosen, 0.1, 0.999, 1.0, counts, torch.zeros(N)],
        "gradvac_list_": [table, target, order, 0, None, group_of, chosen, 0.1, 0.999, 1.0, counts, outs],
    }
    return arguments[name]


OPS = (
    "gramian", "gramian_list", "cross_gramian", "cross_gramian_list", "random_order", "order_is_valid",
    "pcgrad_weights", "gradvac_weights", "gradvac_weights drawn", "combine", "combine_list", "gradvac_",
    "gradvac_list_",
)  # fmt: skip


def op(name: str) -> Any:
    return getattr(raw, name.split()[0]).default


def is_seed(name: str, at: int) -> bool:
    """Any integer is a seed."""
    declared: str = op(name)._schema.arguments[at].name
    return declared == "seed"


def wrong_tensors(x: torch.Tensor) -> dict[str, torch.Tensor]:
    """Tensors that no op may take in place of `x`: another type of number, number of dimensions, or no memory."""
    return {
        "complex": torch.zeros(x.shape, dtype=torch.complex64),
        "int8": torch.zeros(x.shape, dtype=torch.int8),
        "five dimensions": torch.zeros(2, 1, 2, 1, 2, dtype=x.dtype),
    }


def wrong_lengths(x: torch.Tensor) -> dict[str, torch.Tensor]:
    """Too small in its first dimension."""
    return {"short": x[:-1].clone()} if x.dim() and x.shape[0] > 1 else {}


def structural(name: str) -> dict[str, list[Any]]:
    """Wrong dtypes and shapes, one argument at a time: must raise."""
    cases = {}
    for at, value in enumerate(valid(name)):
        if isinstance(value, torch.Tensor):
            free = name in ("order_is_valid", "gramian", "cross_gramian")  # fewer tasks, or groups, are legal
            bad = wrong_tensors(value) if free else {**wrong_tensors(value), **wrong_lengths(value)}
            for what, x in bad.items():
                cases[f"argument {at} {what}"] = [*valid(name)[:at], x, *valid(name)[at + 1 :]]
        elif isinstance(value, list):
            lists = {
                "empty list": [],
                "one too few": value[:-1],
                "complex": [v.to(torch.complex64) for v in value],
                "mixed dtypes": [value[0].double(), *value[1:]],
                "one shorter": [value[0][:-1].clone(), *value[1:]],
            }
            for what, y in lists.items():
                cases[f"argument {at} {what}"] = [*valid(name)[:at], y, *valid(name)[at + 1 :]]
        elif isinstance(value, int):
            for z in (-1, 2**40):
                if not is_seed(name, at):
                    cases[f"argument {at} is {z}"] = [*valid(name)[:at], z, *valid(name)[at + 1 :]]
    return cases


def values(name: str) -> dict[str, list[Any]]:
    """Right types and shapes, indices out of range: must not read or write outside, may raise."""
    cases = {}
    for at, value in enumerate(valid(name)):
        if isinstance(value, torch.Tensor) and value.dtype == torch.int64 and value.dim():
            for x in (-1, 2**20, 2**62, -(2**62)):
                cases[f"argument {at} full of {x}"] = [
                    *valid(name)[:at], torch.full_like(value, x), *valid(name)[at + 1 :],
                ]  # fmt: skip
    return cases


def main() -> None:
    kinds: dict[str, Callable[[str], dict[str, list[Any]]]] = {"structural": structural, "values": values}
    for name in OPS:
        op(name)(*valid(name))
        for kind, cases in kinds.items():
            for what, arguments in cases(name).items():
                print(f"call\t{kind}\t{name}\t{what}", flush=True)
                try:
                    op(name)(*arguments)
                except (RuntimeError, ValueError, TypeError, IndexError, NotImplementedError, MemoryError):
                    print("raised", flush=True)
                else:
                    print("returned", flush=True)


if __name__ == "__main__":
    main()
