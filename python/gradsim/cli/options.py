"""The options that several commands share, and their checks."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import Annotated

import torch
import typer

from gradsim.cli.errors import UserError
from gradsim.cli.files import read_json

__all__ = ["Device", "Granularity", "Seed", "check_common", "check_device", "names", "need", "read_classes"]

Seed = Annotated[int, typer.Option(help="Everything random follows from it.")]
Device = Annotated[str, typer.Option(help="cpu, cuda or cuda:N.")]
Granularity = Annotated[str, typer.Option(help="Groups of parameters: whole_model, enc_dec, all_layer or all_matrix.")]


def check_common(seed: int, device: str) -> None:
    """Raise `UserError` for a seed out of range or a device that is not there."""
    if not 0 <= seed <= 2**31:
        raise UserError(f"--seed must be between 0 and {2**31}, not {seed}")
    check_device(device)


def check_device(device: str) -> None:
    """Raise `UserError` unless `device` is the CPU or a CUDA device of this machine."""
    try:
        kind = torch.device(device)
    except RuntimeError as error:
        raise UserError(f"--device must be cpu, cuda or cuda:N, not {device!r}") from error
    if kind.type not in ("cpu", "cuda"):
        raise UserError(f"--device must be cpu, cuda or cuda:N, not {device!r}")
    if kind.type == "cuda" and (kind.index or 0) >= torch.cuda.device_count():
        raise UserError(f"--device {device} is not there: this torch sees {torch.cuda.device_count()} CUDA devices")


def need(*packages: str) -> None:
    """Import what will be needed at the end now: found missing before minutes of work, not after."""
    for package in packages:
        import_module(package)


def names(option: str | None) -> list[str] | None:
    """`a,b,c` as a list; None for an option that was not given."""
    if option is None:
        return None
    return [name.strip() for name in option.split(",") if name.strip()]


def read_classes(path: Path | None) -> dict[str, str] | None:
    """A JSON object task -> class, such as each language's family. Raises `UserError` for anything else."""
    if path is None:
        return None
    classes = read_json(path)
    if not isinstance(classes, dict) or not all(isinstance(value, str) for value in classes.values()):
        raise UserError(f'{path} must be a JSON object from task to class, such as {{"hau": "Chadic"}}')
    return classes
