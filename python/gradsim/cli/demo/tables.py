"""The tables that the demo prints."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import mean

from rich.console import Group
from rich.table import Table

from gradsim.cli.demo.comparison import Comparison
from gradsim.cli.demo.groupings import Agreement
from gradsim.cli.demo.training import METHODS
from gradsim.cli.tables import titled
from gradsim.data import Language, NameTable
from gradsim.similarity import Similarity

__all__ = ["agreement_table", "comparison_table", "similarity_table", "verdicts", "words_table"]


def words_table(table: NameTable, families: Sequence[str]) -> Group:
    """One concept in one language of every family, to show what the data are."""
    concept = table.concepts.index("territory:DE") if "territory:DE" in table.concepts else 0
    title = f"{len(table.languages)} languages, {len(table.concepts)} shared concepts"
    result = Table("family", "languages", table.concepts[concept])
    for family in families:
        members = [i for i, language in enumerate(table.languages) if language.family == family]
        codes = " ".join(table.languages[i].code for i in members)
        result.add_row(family, codes, f"{table.names[members[0]][concept]} ({table.languages[members[0]].name})")
    return titled(title, result)


def similarity_table(similarity: Similarity, languages: Sequence[Language]) -> Group:
    """Mean cosine by group of parameters: inside families, between them, and within a language."""
    title = f"Cosine of the languages' gradients, mean of {int(similarity.count.max())} measurements along training"
    result = Table("group of parameters")
    for column in ("same family", "different families", "within a language"):
        result.add_column(column, justify="right")
    for k, group in enumerate(similarity.groups):
        values: dict[bool, list[float]] = {True: [], False: []}
        for i, first in enumerate(languages):
            for j, second in enumerate(languages[:i]):
                values[first.family == second.family].append(float(similarity.cosine[k, i, j]))
        within = "" if similarity.within is None else f"{float(similarity.within[k].mean()):.3f}"
        result.add_row(group, f"{mean(values[True]):.3f}", f"{mean(values[False]):.3f}", within)
    return titled(title, result)


def agreement_table(rows: Sequence[Agreement], families: int, scripts: int) -> Group:
    """Adjusted Rand index by group of parameters."""
    title = "Average linkage of all languages: adjusted Rand index (1: same partition, 0: chance)"
    result = Table("group of parameters")
    result.add_column(f"{families} families", justify="right")
    result.add_column(f"{scripts} scripts", justify="right")
    for row in rows:
        result.add_row(row.groups, f"{row.families:.2f}", f"{row.scripts:.2f}")
    return titled(title, result)


def comparison_table(comparison: Comparison) -> Group:
    """Held-out accuracy by method: mean and standard deviation over seeds, and the gain over the plain sum."""
    seeds = len(comparison.trained[METHODS[0]])
    worst = comparison.worst()
    columns = {
        f"all {len(comparison.tasks)}": comparison.tasks,
        f"{len(comparison.low)} low-resource": comparison.low,
        f"worst ({worst})": [worst],
    }
    title = (
        f"Held-out accuracy in %: mean ± standard deviation over {seeds} seeds; below it the gain over the plain sum "
        "from the same seed. Corrected: share of the visited pairs. Dictionary: no model, names that another language "
        "spells the same in its training."
    )
    result = Table("method", show_lines=True)
    for column in columns:
        result.add_column(column, justify="right")
    result.add_column("corrected", justify="right")
    result.add_column("s a run", justify="right")
    for method in METHODS:
        cells = []
        for tasks in columns.values():
            row = comparison.row(method, tasks)
            cell = f"{100 * row.mean:.1f} ± {100 * row.std:.1f}"
            cells.append(cell if method == METHODS[0] else f"{cell}\n{100 * row.gain:+.1f} ± {100 * row.gain_std:.1f}")
        runs = comparison.trained[method]
        shares = [run.corrections for run in runs if run.corrections is not None]
        corrected = f"{100 * mean(shares):.0f} %" if shares else ""
        result.add_row(method, *cells, corrected, f"{mean(run.seconds for run in runs):.1f}")
    lookup = [f"{100 * comparison.lookup_of(tasks):.1f}" for tasks in columns.values()]
    result.add_row("dictionary", *lookup, "", "", style="dim")
    return titled(title, result)


def verdicts(comparison: Comparison) -> list[str]:
    """One sentence per method: whether its gain over the plain sum is more than its spread over the seeds."""
    sentences = []
    for method in METHODS[1:]:
        row = comparison.row(method, comparison.tasks)
        gain = f"{method} against the plain sum: {100 * row.gain:+.2f} ± {100 * row.gain_std:.2f} points"
        verdict = "no difference beyond the spread of the seeds"
        if abs(row.gain) > row.gain_std:
            verdict = "better" if row.gain > 0 else "worse"
            verdict += (
                f", by {abs(row.gain) / row.gain_std:.1f} times the spread" if row.gain_std else ", in every seed alike"
            )
        sentences.append(f"{gain}: {verdict}")
    return sentences
