"""Typological similarity of languages from a JSON file."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import Any

__all__ = ["check_typology", "read_typology"]


def read_typology(path: str | PathLike[str]) -> dict[str, Any]:
    """Read `{"langs": [L names], "sim": {feature: [L][L] numbers}}` from a JSON file; other keys are kept.

    Such as cosines of URIEL features by lang2vec. Raises `ValueError` in one sentence for anything else, and
    `OSError` for a file that cannot be read.
    """
    try:
        content = json.loads(Path(path).read_text(encoding="utf-8"))
    except ValueError as error:  # no JSON, or no UTF-8
        raise ValueError(f"{path} is not a JSON file: {error}") from error
    return check_typology(content, str(path))


def check_typology(content: Any, where: str = "typology") -> dict[str, Any]:
    """`content`, once it is seen to be as `read_typology` says; `ValueError` where it is not."""
    if not isinstance(content, Mapping) or "langs" not in content or "sim" not in content:
        raise ValueError(f"{where} must hold an object with the keys 'langs' and 'sim'")
    names, features = content["langs"], content["sim"]
    if not isinstance(names, Sequence) or isinstance(names, str) or not all(isinstance(name, str) for name in names):
        raise ValueError(f"{where}: 'langs' must be a list of names")
    if not names or len(set(names)) != len(names):
        raise ValueError(f"{where}: 'langs' must hold different names, at least one")
    if not isinstance(features, Mapping) or not features:
        raise ValueError(f"{where}: 'sim' must hold at least one feature with its matrix")
    for feature, matrix in features.items():
        rows = matrix if isinstance(matrix, Sequence) and not isinstance(matrix, str) else ()
        square = len(rows) == len(names) and all(
            isinstance(row, Sequence) and not isinstance(row, str) and len(row) == len(names) for row in rows
        )
        if not square:
            raise ValueError(f"{where}: {feature!r} must be a matrix of {len(names)} x {len(names)} numbers")
        if not all(
            isinstance(x, (int, float)) and not isinstance(x, bool) and math.isfinite(x) for r in rows for x in r
        ):
            raise ValueError(f"{where}: {feature!r} must hold finite numbers only")
    return dict(content)
