"""The demo's HTML page: the same report that `gradsim report` writes."""

from __future__ import annotations

from pathlib import Path

from gradsim.cli.demo.comparison import Comparison
from gradsim.cli.demo.groupings import SHOWN
from gradsim.cli.demo.settings import Settings
from gradsim.data import LANGUAGES
from gradsim.grouping import GroupingChoice, TaskGrouping
from gradsim.report import write_report
from gradsim.similarity import Similarity
from gradsim.training import Arm, Results

__all__ = ["comparison_results", "write_page"]

_METHODS = {"plain sum": "sum", "PCGrad": "pcgrad", "GradVac": "gradvac"}
_NOTES = (
    "The data are names of countries, languages and currencies from the Unicode CLDR, as Babel carries it. A task is a "
    "language: to tell what a name stands for.",
    '"East Asian" and "Arabic script" are no families but areas that share a script or much of a vocabulary.',
    f"Heat map, tree and groups are of one group of parameters, the {SHOWN}, which touches the words themselves.",
    "The trainings are of 16 of the languages, all in one model: the same first weights, batches and steps for every "
    "method.",
)


def comparison_results(comparison: Comparison, settings: Settings) -> Results:
    """The demo's comparison in the form of `gradsim train`: three ways to train all languages in one model."""
    tasks = comparison.tasks
    arms = [
        Arm(
            name=name,
            kind="all",
            method=_METHODS[name],
            groups=[tasks],
            scores={task: [run.accuracy[row] for run in runs] for row, task in enumerate(tasks)},
        )
        for name, runs in comparison.trained.items()
    ]
    budget = {
        "steps": settings.surgery_steps,
        "names per language and step": settings.batch,
        "learning rate": settings.learning_rate,
    }
    seeds = list(range(settings.seed, settings.seed + settings.seeds))
    return Results(tasks, seeds, "held-out accuracy", True, budget, arms)


def write_page(
    path: Path,
    similarity: Similarity,
    clusters: TaskGrouping,
    choice: GroupingChoice,
    comparison: Comparison,
    settings: Settings,
) -> Path:
    """Write the page, with its figures in the folder `figures` beside it."""
    return write_report(
        path,
        similarity=similarity,
        grouping=clusters,
        choice=choice.to_dict(),
        results=comparison_results(comparison, settings),
        classes={language.name: language.family for language in LANGUAGES},
        groups=[SHOWN],
        title=f"Gradient similarity of {len(LANGUAGES)} languages",
        notes=_NOTES,
        figures=path.parent / "figures",
    )
