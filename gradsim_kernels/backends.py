"""Which backend computes an op: automatic, `GRADSIM_BACKEND`, or `use_backend`. The only place where it is decided."""

from __future__ import annotations

import contextvars
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from gradsim_kernels import native, ops, reference, validate

NAMES = ("reference", "cpu", "triton", "cuda")
VARIABLE = "GRADSIM_BACKEND"

_chosen: contextvars.ContextVar[str | None] = contextvars.ContextVar("gradsim_backend", default=None)
_libraries: list[torch.library.Library] = []


@dataclass(frozen=True)
class Backend:
    """One way to compute the ops: its name, whether it can be used here, and the reason if it cannot."""

    name: str
    available: bool
    reason: str | None
    devices: tuple[str, ...]


def backends() -> dict[str, Backend]:
    """What there is: `{name: Backend}` for `reference`, `cpu`, `triton` and `cuda`, and why one is missing."""
    later = "its kernels come with a later version of gradsim-kernels"
    return {
        "reference": Backend("reference", True, None, ("cpu", "cuda")),
        "cpu": Backend("cpu", native.loaded, native.reason, ("cpu",)),
        "triton": Backend("triton", False, later, ("cuda",)),
        "cuda": Backend("cuda", False, later, ("cuda",)),
    }


@contextmanager
def use_backend(name: str) -> Iterator[None]:
    """Use one backend inside the `with` block (this thread or task only).

    Raises:
        ValueError: no backend has that name.
        RuntimeError: it has no kernels here; the message says why.
    """
    _require(name)
    token = _chosen.set(name)
    try:
        yield
    finally:
        _chosen.reset(token)


def _require(name: str) -> Backend:
    if name not in NAMES:
        raise ValueError(f"backend must be one of {', '.join(NAMES)}, not {name!r}")
    backend = backends()[name]
    if not backend.available:
        raise RuntimeError(f"backend {name!r} is not available: {backend.reason}")
    return backend


def select(device: torch.device) -> str:
    """The name of the backend that computes for tensors on `device`."""
    name = _chosen.get() or os.environ.get(VARIABLE) or None
    if name is None:
        return "cpu" if device.type == "cpu" and native.loaded else "reference"
    backend = _require(name)
    if name != "reference" and device.type not in backend.devices:
        raise RuntimeError(f"backend {name!r} computes on {backend.devices[0]} tensors only, not on {device}")
    return name


def dispatch(name: str) -> Any:
    """The implementation of the public op `name`: check the values that a CPU can check for free, then hand over."""
    specification = getattr(reference, name)
    compiled = {
        backend: getattr(getattr(torch.ops, f"{ops.NAMESPACE}_{backend}"), name).default for backend in ("cpu",)
    }

    def run(*args: Any) -> Any:
        backend = select(_device(args))
        validate.values(name, args, order_is_valid)
        return specification(*args) if backend == "reference" else compiled[backend](*args)

    return run


def order_is_valid(order: Tensor) -> bool:
    """Whether each row (k, i) of `order` holds every j != i once (reads values: CPU tensors only)."""
    valid: bool = _order_is_valid(order)
    return valid


def _device(args: Sequence[Any]) -> torch.device:
    for arg in args:
        if isinstance(arg, Tensor):
            return arg.device
        if isinstance(arg, (list, tuple)) and arg:
            return torch.device(arg[0].device)
    return torch.device("cpu")


def register() -> None:
    """Define every op and register the dispatching implementation of the public ones; called once, at import."""
    public = ops.define(ops.NAMESPACE)
    _libraries.extend([public, ops.define(f"{ops.NAMESPACE}_cpu")])
    native.load()
    for name in ops.SCHEMAS:
        if name not in ops.HOST_ONLY:
            public.impl(name, dispatch(name), "CompositeExplicitAutograd")


def _order_is_valid(order: Tensor) -> bool:
    if native.loaded:
        return bool(torch.ops.gradsim_kernels_cpu.order_is_valid.default(order))
    return reference.order_is_valid(order)
