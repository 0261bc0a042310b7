"""Which backend computes an op: automatic, `GRADSIM_BACKEND`, or `use_backend`. The only place where it is decided."""

from __future__ import annotations

import contextvars
import importlib.util
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from gradsim_kernels import cuda, gpu, native, ops, preference, reference, validate

NAMES = ("reference", "cpu", "triton", "cuda")
VARIABLE = "GRADSIM_BACKEND"
TRITON_INSTALLED = importlib.util.find_spec("triton") is not None

_chosen: contextvars.ContextVar[str | None] = contextvars.ContextVar("gradsim_backend", default=None)
_libraries: list[torch.library.Library] = []
_implementations: dict[str, dict[str, Callable[..., Any]]] = {"reference": {}, "cpu": {}}
_substitutes: dict[str, Mapping[str, Callable[..., Any]]] = {}


@dataclass(frozen=True)
class Backend:
    """One way to compute the ops: its name, whether it can be used here, and the reason if it cannot."""

    name: str
    available: bool
    reason: str | None
    devices: tuple[str, ...]


def backends() -> dict[str, Backend]:
    """What there is: `{name: Backend}` for `reference`, `cpu`, `triton` and `cuda`, and why one is missing."""
    reasons = {"reference": None, "cpu": native.reason, "triton": _why_no_triton(), "cuda": _why_no_cuda()}
    devices = {"reference": ("cpu", "cuda"), "cpu": ("cpu",), "triton": ("cuda",), "cuda": ("cuda",)}
    for name in _substitutes:
        reasons[name], devices[name] = None, ("cpu",)
    return {name: Backend(name, reasons[name] is None, reasons[name], devices[name]) for name in NAMES}


def _why_no_cuda() -> str | None:
    if not native.loaded:
        return native.reason
    return _why_no_gpu() if native.has_cuda else "the native library was built without its CUDA kernels"


def _why_no_triton() -> str | None:
    return _why_no_gpu() if TRITON_INSTALLED else "triton is not installed"


def _why_no_gpu() -> str | None:
    if torch.version.cuda is None:
        return f"torch {torch.__version__} was built without CUDA"
    return None if torch.cuda.is_available() else "there is no GPU that torch can use"


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


def select(device: torch.device, op: str = "gradvac_", tasks: int = 1) -> str:
    """The name of the backend that computes `op` for this many tasks on `device`."""
    name = _chosen.get() or os.environ.get(VARIABLE) or None
    if name is None:
        if device.type == "cpu":
            return "cpu" if native.loaded else "reference"
        there = {"cuda": native.has_cuda, "triton": TRITON_INSTALLED}
        choices = preference.order(op, tasks) if device.type == "cuda" else ()
        return next((choice for choice in choices if there[choice]), "reference")
    backend = _require(name)
    if name != "reference" and device.type not in backend.devices:
        raise RuntimeError(f"backend {name!r} computes on {backend.devices[0]} tensors only, not on {device}")
    return name


def dispatch(name: str) -> Callable[..., Any]:
    """The implementation of the public op `name`: check the values that a CPU can check for free, then hand over."""

    def run(*args: Any) -> Any:
        backend = select(_device(args), name, preference.tasks(name, args))
        validate.values(name, args, order_is_valid)
        return _functions(backend)[name](*args)

    return run


def _functions(backend: str) -> Mapping[str, Callable[..., Any]]:
    """The ops of one backend by name; Triton is imported when it is first used."""
    if backend in _substitutes:
        return _substitutes[backend]
    if backend not in _implementations:
        if backend == "triton":
            from gradsim_kernels.triton.launch import Triton

            _implementations[backend] = gpu.implementations(Triton())
        else:
            _implementations[backend] = gpu.implementations(cuda.Cuda())
    return _implementations[backend]


@contextmanager
def substitute(name: str, kernels: gpu.Kernels) -> Iterator[None]:
    """For tests: inside the block the backend `name` is there, computes on CPU tensors, and is `kernels`."""
    _substitutes[name] = gpu.implementations(kernels)
    try:
        yield
    finally:
        del _substitutes[name]


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
    public, cpu = ops.define(ops.NAMESPACE), ops.define(f"{ops.NAMESPACE}_cpu")
    _libraries.extend([public, cpu, cuda.define()])
    native.load()
    compiled = getattr(torch.ops, f"{ops.NAMESPACE}_cpu")
    for name in ops.SCHEMAS:
        _implementations["reference"][name] = getattr(reference, name)
        _implementations["cpu"][name] = getattr(compiled, name).default
        if name not in ops.HOST_ONLY:
            public.impl(name, dispatch(name), "CompositeExplicitAutograd")


def _order_is_valid(order: Tensor) -> bool:
    if native.loaded:
        return bool(torch.ops.gradsim_kernels_cpu.order_is_valid.default(order))
    return reference.order_is_valid(order)
