"""`gradsim demo`: its options, and their checks."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from gradsim.cli.demo.run import run
from gradsim.cli.demo.settings import Settings
from gradsim.cli.files import prepare
from gradsim.cli.options import check_common, need

__all__ = ["demo"]


def demo(
    out: Annotated[Path, typer.Option(help="Folder for the files; made if it is not there.")] = Path("demo-out"),
    seed: Annotated[int, typer.Option(help="The first seed; everything random follows from it.")] = 0,
    seeds: Annotated[int, typer.Option(min=2, help="Seeds of the comparison of the three methods.")] = 3,
    steps: Annotated[int | None, typer.Option(min=1, help="Steps of the joint training.", show_default="600")] = None,
    device: Annotated[str, typer.Option(help="cpu, cuda or cuda:N.")] = "cpu",
    quick: Annotated[bool, typer.Option("--quick", help="A few steps only: shows the way, not a result.")] = False,
) -> None:
    """Names of countries, languages and currencies in 36 languages: measured, grouped, trained three ways.

    Trains a small model on all languages, measures the similarity of their gradients on the way, groups the languages
    by it, and compares training with and without gradient surgery (PCGrad, GradVac) on held-out names. No file and
    no network is needed; it takes about two minutes on two cores.
    """
    need("babel", "matplotlib", "scipy", "jinja2")
    check_common(seed, device)
    settings = Settings.choose(out, seed=seed, seeds=seeds, device=device, steps=steps, quick=quick)
    prepare(out)
    run(settings)
