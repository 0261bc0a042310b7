"""`gradsim report`: one HTML page of what the other commands left."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from gradsim.cli.errors import UserError
from gradsim.cli.files import prepare, read_grouping, read_json, read_similarity
from gradsim.cli.options import Device, Seed, check_common, names, need, read_classes
from gradsim.grouping import TaskGrouping
from gradsim.report import read_typology, write_report
from gradsim.similarity import Similarity
from gradsim.training import Results

__all__ = ["report"]


@dataclass
class _Found:
    """What there is to report."""

    similarity: Similarity | None = None
    grouping: TaskGrouping | None = None
    choice: dict[str, Any] | None = None
    results: Results | None = None
    files: dict[str, Path] = field(default_factory=dict)


def report(
    paths: Annotated[
        list[Path],
        typer.Argument(help="What the other commands left: files, or folders that hold them.", show_default=False),
    ],
    out: Annotated[Path, typer.Option(help="Folder for report.html and its figures.")] = Path("report"),
    families: Annotated[Path | None, typer.Option(help="A JSON object task -> family.", show_default="none")] = None,
    typology: Annotated[
        Path | None, typer.Option(help='JSON {"langs": [...], "sim": {feature: matrix}}.', show_default="none")
    ] = None,
    layers: Annotated[
        str | None, typer.Option(help="Groups of parameters in heat map and groups, as a,b,c.", show_default="all")
    ] = None,
    title: Annotated[str | None, typer.Option(help="The title of the page.", show_default="made up")] = None,
    seed: Seed = 0,
    device: Device = "cpu",
) -> None:
    """Write one self-contained HTML page: heat map, dendrogram, layers, training curve, groups, results, correlations.

    Sections are there for what there is: similarities, groups, trainings. Beside the page lie its figures as PNG, each
    with its numbers as JSON. Nothing is fetched when the page is read.
    """
    need("matplotlib", "scipy", "jinja2")
    check_common(seed, device)
    found = _Found()
    for path in paths:
        _take(found, path)
    if not found.files:
        raise UserError(f"nothing to report in {', '.join(map(str, paths))}; the other commands leave what it needs")
    classes = read_classes(families)
    prepare(out)
    try:
        page = write_report(
            out / "report.html",
            similarity=found.similarity,
            grouping=found.grouping,
            choice=found.choice,
            results=found.results,
            typology=None if typology is None else read_typology(typology),
            classes=classes,
            groups=names(layers),
            title=title,
            figures=out / "figures",
        )
    except (TypeError, ValueError) as error:
        raise UserError(str(error)) from error
    Console(highlight=False).print(f"files: {page} {out / 'figures'}", soft_wrap=True)


def _take(found: _Found, path: Path) -> None:
    """Take what a path holds; two of a kind are refused."""
    if path.is_dir():
        files = [file for file in sorted(path.rglob("*")) if file.suffix in (".safetensors", ".json")]
        for file in files:
            kind = _kind(file)
            if kind is not None:
                _put(found, kind, file)
        return
    if not path.is_file():
        raise UserError(f"{path} is not there")
    kind = _kind(path)
    if kind is None:
        raise UserError(f"{path} is neither a similarity nor a task grouping nor the results of a training")
    _put(found, kind, path)


def _kind(file: Path) -> str | None:
    """What a file is, by its content."""
    if file.suffix == ".safetensors":
        return "similarity"
    content = read_json(file)
    if not isinstance(content, dict):
        return None
    if {"arms", "metric", "seeds"} <= content.keys():
        return "results"
    return "grouping" if {"groups", "serves", "score"} <= content.keys() else None


def _put(found: _Found, kind: str, file: Path) -> None:
    earlier = found.files.get(kind)
    if earlier is not None and earlier.resolve() != file.resolve():
        raise UserError(f"{earlier} and {file} are both a {kind}; name the one to report")
    found.files[kind] = file
    if kind == "similarity":
        found.similarity = read_similarity(file)
    elif kind == "grouping":
        found.grouping, found.choice = read_grouping(file)
    else:
        try:
            found.results = Results.load(file)
        except ValueError as error:
            raise UserError(str(error)) from error
