"""The section on how it was made: metadata, versions, command lines."""

from __future__ import annotations

import platform
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any

from gradsim.report.blocks import Block, Section, Table
from gradsim.report.words import clean, named, plain

if TYPE_CHECKING:
    from gradsim.similarity import Similarity
    from gradsim.training import Results

__all__ = ["making_section"]


# Per task, and long: the label shares have a section, and the joint model's scores are in the file
_ELSEWHERE = ("label_shares", "dev_scores")


def making_section(similarity: Similarity | None, results: Results | None) -> Section:
    """What the files say of themselves, and what drew the page."""
    blocks: list[Block] = []
    if similarity is not None:
        facts: dict[str, Any] = {
            "kind": similarity.kind,
            "tasks": len(similarity.tasks),
            "groups of parameters": len(similarity.groups),
            "measurements of a pair, at most": int(similarity.count.max()) if similarity.count.numel() else 0,
            **{key: value for key, value in similarity.metadata.items() if key not in _ELSEWHERE},
        }
        blocks.append(_table("about-similarity", "The measurement", facts))
    if results is not None:
        blocks.append(_table("about-results", "The training", {**results.budget, "seeds": list(results.seeds)}))
    blocks.append(_table("about-page", "This page", _versions()))
    return Section("making", "How it was made", blocks)


def _table(name: str, caption: str, facts: Mapping[str, Any]) -> Table:
    rows = [[named(key), _short(value)] for key, value in _flat(facts)]
    return Table(name, caption, ["What", "Value"], rows, words=frozenset({0, 1}))


def _flat(facts: Mapping[str, Any], before: str = "") -> list[tuple[str, Any]]:
    """Nested settings as `a.b`, in their order."""
    found: list[tuple[str, Any]] = []
    for key, value in facts.items():
        if isinstance(value, Mapping) and value:
            found += _flat(value, f"{before}{key}.")
        else:
            found.append((f"{before}{key}", value))
    return found


def _short(value: Any) -> str:
    text = plain(value)
    return text if len(text) <= 600 else f"{text[:600]}… ({len(text):,} characters)"


def _versions() -> dict[str, str]:
    found = {"Python": platform.python_version()}
    for package in ("gradsim-kernels", "torch", "numpy", "scipy", "matplotlib"):
        try:
            found[package] = clean(version(package))
        except PackageNotFoundError:
            continue
    return found
