"""The demo from beginning to end."""

from __future__ import annotations

import platform
from dataclasses import asdict
from importlib.metadata import version
from statistics import mean

from rich.console import Console

from gradsim.cli.demo import groupings, tables
from gradsim.cli.demo.comparison import compare
from gradsim.cli.demo.page import write_page
from gradsim.cli.demo.picture import heatmap
from gradsim.cli.demo.settings import Settings
from gradsim.cli.demo.training import METHODS, train_and_measure
from gradsim.cli.demo.words import Words
from gradsim.cli.files import Files
from gradsim.cli.screen import Clock, steps
from gradsim.cli.tables import grouping_table
from gradsim.data import LANGUAGES, SELECTION, shared_names
from gradsim_kernels import __version__

__all__ = ["run"]

_FAMILIES = list(dict.fromkeys(language.family for language in LANGUAGES))
_SCRIPTS = {language.script for language in LANGUAGES}
_SELECTION_TITLE = (
    f"{len(SELECTION)} of them, the two of each family with the most speakers: so every family can be a group, and the "
    "exact solver takes a second. No language alone. Best grouping"
)


def run(settings: Settings) -> None:
    """Do everything that the settings say, print it, and leave the files in `settings.out`."""
    screen = Console(highlight=False)
    files = Files(settings.out)
    clock = Clock()
    table = shared_names(LANGUAGES)
    screen.print(tables.words_table(table, _FAMILIES))

    with clock("joint training"), steps(f"joint training, {len(LANGUAGES)} languages", settings.steps) as tick:
        words = Words(table, [settings.held_out] * len(LANGUAGES), seed=settings.seed, device=settings.device)
        similarity, accuracy = train_and_measure(words, settings, tick)
    similarity.save(files.path("similarity.safetensors"))
    similarity.to_json(files.path("similarity.json"))
    screen.print(
        f"held-out accuracy of the joint model: {100 * mean(accuracy):.1f} % (mean of {len(accuracy)} languages)"
    )
    screen.print(tables.similarity_table(similarity, LANGUAGES))

    with clock("grouping"):
        agreement = groupings.agreements(similarity, LANGUAGES)
        clusters = groupings.all_languages(similarity, len(_FAMILIES))
        best = groupings.selection(similarity, settings.num_groups)
    with clock("number of groups"), steps("every number of groups", len(settings.candidates)) as tick:
        choice = groupings.numbers(similarity, settings, tick)
    all_groups = {"all": clusters.to_dict(), "selection": best.to_dict(), "choice": choice.to_dict()}
    files.write_json("groups.json", all_groups)
    screen.print(tables.agreement_table(agreement, len(_FAMILIES), len(_SCRIPTS)))
    screen.print(grouping_table(f"All {len(LANGUAGES)} languages by average linkage", clusters))
    screen.print(grouping_table(_SELECTION_TITLE, best))
    screen.print(f"Number of groups of all {len(LANGUAGES)}: {choice.recommended} recommended. {choice.reason}")
    with clock("heat map"):
        heatmap(similarity, LANGUAGES, groupings.SHOWN, files)

    total = len(METHODS) * settings.seeds * settings.surgery_steps
    with clock("comparison"), steps(f"{', '.join(METHODS)} on {len(SELECTION)} languages", total) as tick:
        comparison = compare(table.select(SELECTION), settings, tick)
    screen.print(tables.comparison_table(comparison))
    for sentence in tables.verdicts(comparison):
        screen.print(sentence)

    with clock("report"):
        page = write_page(files.path("report.html"), similarity, clusters, choice, comparison, settings)
    files.written.append(page.parent / "figures")
    results = {
        "settings": asdict(settings) | {"out": str(settings.out)},
        "versions": _versions(),
        "seconds": clock.seconds,
        "concepts": len(table.concepts),
        "joint_held_out_accuracy": dict(zip(similarity.tasks, accuracy, strict=True)),
        "adjusted_rand_index": [asdict(row) for row in agreement],
        "comparison": comparison.to_dict(),
    }
    files.write_json("results.json", results)
    screen.print(clock.summary())
    screen.print("files: " + " ".join(map(str, files.written)), soft_wrap=True)


def _versions() -> dict[str, str]:
    names = ("torch", "numpy", "scipy", "babel")
    return {"python": platform.python_version(), "gradsim-kernels": __version__} | {n: version(n) for n in names}
