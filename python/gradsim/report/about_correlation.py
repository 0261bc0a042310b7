"""The sections that hold the similarity against something else: measured transfer, and typology."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gradsim.report.blocks import Block, Picture, Section, Table
from gradsim.report.correlation import SIGNIFICANT, Correlation, mantel
from gradsim.report.scatter import Points, scatter
from gradsim.report.words import clean, count, in_figure, named, signed
from gradsim.training import Results

__all__ = ["TEST", "complete", "transfer_gains", "transfer_section", "typology_section", "verdict_of"]

TEST = (
    "Correlations are Spearman's; p is Mantel's, from permuting the tasks, because pairs that share a task are not "
    "independent."
)


def transfer_gains(results: Results, tasks: Sequence[str]) -> NDArray[np.float64]:
    """`[i, j]`: how much better a model trained on j alone does on i than the model trained on i alone.

    Negative almost everywhere; the sign is turned where lower scores are better. NaN where it was not measured.
    """
    sign = 1.0 if results.higher_is_better else -1.0

    def score(trained: str, tested: str) -> float:
        return float(results.transfer.get(trained, {}).get(tested, np.nan))

    return np.array([[sign * (score(j, i) - score(i, i)) for j in tasks] for i in tasks], dtype=np.float64)


def complete(*matrices: NDArray[np.float64]) -> list[int]:
    """The tasks left when those with the most missing entries off the diagonal are dropped until none is missing."""
    missing = np.zeros(matrices[0].shape, dtype=bool)
    for matrix in matrices:
        missing |= ~np.isfinite(matrix)
    np.fill_diagonal(missing, False)
    kept = list(range(len(missing)))
    while True:
        part = missing[np.ix_(kept, kept)]
        bad = part.sum(axis=0) + part.sum(axis=1)
        if not bad.any():
            return kept
        kept.pop(int(bad.argmax()))


def transfer_section(
    results: Results, tasks: Sequence[str], matrix: NDArray[np.float64], unit: str
) -> tuple[Section, str] | None:
    """Similarity `[T, T]` of `tasks` against transfer, and the outcome in one sentence; None for under three tasks."""
    common = [task for task in tasks if task in results.tasks]
    rows = [tasks.index(task) for task in common]
    gains, similarity = transfer_gains(results, common), matrix[np.ix_(rows, rows)]
    kept = complete(gains, similarity)
    if len(kept) < 3:
        return None
    common = [common[k] for k in kept]
    gains, similarity = gains[np.ix_(kept, kept)], similarity[np.ix_(kept, kept)]
    found = mantel(similarity, gains)
    i, j = np.nonzero(~np.eye(len(common), dtype=bool))
    points = Points(
        names=[f"{clean(common[b])[:14]} → {clean(common[a])[:14]}" for a, b in zip(i, j, strict=True)],
        x=similarity[i, j],
        y=gains[i, j],
        x_label=f"mean {unit} of the two tasks' gradients",
        y_label=f"{in_figure(results.metric, 20)} on the test task,\nagainst a model trained on it",
    )
    said = f"Similarity against measured transfer: {verdict_of(found, _TRANSFER)}"
    best = int(np.argmax(points.y))
    top = f"{named(common[j[best]])} → {named(common[i[best]])} ({signed(float(points.y[best]))})"
    picture = Picture(
        name="transfer",
        figure=scatter([points]),
        title="Pairs of tasks: similarity against transfer",
        alt=f"Scatter plot of {count(len(points.names), 'ordered pair')} of tasks, training task → test task. "
        f"{said} The best transfer is {top}.",
        numbers={**points.to_dict(), **found.to_dict()},
    )
    direction = (
        f"A model was trained on one task alone and tested on another. Entry [i, j] is its {named(results.metric)} "
        "on i after training on j, less that of the model trained on i itself"
        + ("" if results.higher_is_better else " (sign turned, because lower is better)")
        + f": above 0, j serves i better than i's own data. It is held against the {unit} S[i, j]. {TEST}"
    )
    return Section("transfer", "Similarity and measured transfer", [direction, said, picture]), said


def typology_section(
    typology: Mapping[str, Any], tasks: Sequence[str], matrix: NDArray[np.float64], unit: str
) -> tuple[Section, str]:
    """Similarity `[T, T]` of `tasks` against every feature, and the outcome in one sentence.

    Raises `ValueError` where the typology knows fewer than three of the tasks.
    """
    names = list(typology["langs"])
    common = [task for task in tasks if task in names]
    rows = [tasks.index(task) for task in common]
    common = [common[k] for k in complete(matrix[np.ix_(rows, rows)])] if common else []
    if len(common) < 3:
        raise ValueError(
            f"typology must hold at least three of the tasks by their names, not {len(common)}: its languages are "
            f"{', '.join(map(repr, names[:6]))}, the tasks {', '.join(map(repr, tasks[:6]))}"
        )
    rows, places = [tasks.index(task) for task in common], [names.index(task) for task in common]
    similarity = matrix[np.ix_(rows, rows)]
    both = (similarity + similarity.T) / 2
    first, second = np.triu_indices(len(common), 1)
    pairs = [f"{clean(common[a])[:14]} – {clean(common[b])[:14]}" for a, b in zip(first, second, strict=True)]
    found: dict[str, Correlation] = {}
    panels = []
    for feature, values in typology["sim"].items():
        other = np.asarray(values, dtype=np.float64)[np.ix_(places, places)]
        found[feature] = mantel(similarity, other)
        panels.append(
            Points(
                names=pairs,
                x=other[first, second],
                y=both[first, second],
                x_label=f"typology: {in_figure(feature)}",
                y_label=f"mean {unit} of gradients",
            )
        )
    ranked = sorted(found.items(), key=lambda item: -abs(item[1].rho or 0.0))
    feature, top = ranked[0]
    features = count(len(found), "feature")
    said = f"Similarity against typology ({features}); strongest, {named(feature)}: {verdict_of(top, _TYPOLOGY)}"
    shown = panels[:6]
    listed = "; ".join(f"{named(name)} {_short(item)}" for name, item in found.items())
    picture = Picture(
        name="typology",
        figure=scatter(shown, labelled=6 if len(shown) == 1 else 3),
        title="Pairs of tasks: typology against similarity",
        alt=f"Scatter plots of {count(len(pairs), 'pair')} of tasks for {count(len(shown), 'feature')}. {listed}.",
        numbers={
            "tasks": common,
            "features": {
                name: {**found[name].to_dict(), "x": points.x.tolist(), "y": points.y.tolist(), "names": pairs}
                for name, points in zip(found, panels, strict=True)
            },
        },
    )
    table = Table(
        name="typology-table",
        caption="Rank correlation of the gradients' similarity with typological similarity",
        head=["Feature", "Spearman's rho", "p (Mantel)", "Verdict"],
        rows=[[named(name), signed(item.rho, 2), _p(item.p), _word(item).capitalize()] for name, item in found.items()],
        words=frozenset({0, 3}),
    )
    blocks: list[Block] = [
        f"{len(common)} of the {len(tasks)} tasks are known to the typology. {TEST}"
        + (f" {len(found)} features were tried; p is not corrected for that." if len(found) > 1 else ""),
        said,
        table,
        picture,
    ]
    source = typology.get("source")
    if source:
        blocks.append(f"Source of the typology: {clean(source)}.")
    return Section("typology", "Similarity and typology", blocks), said


_TRANSFER = ("the more alike two tasks, the better one serves the other", "the more alike two tasks, the worse")
_TYPOLOGY = ("the closer two languages by typology, the more alike their gradients", "the closer, the less alike")


def verdict_of(found: Correlation, meaning: tuple[str, str]) -> str:
    """The outcome in words; `meaning`: of a positive and of a negative correlation, if significant."""
    if found.rho is None:
        return "no correlation can be computed, because one of the two is the same for all pairs."
    text = f"Spearman's rho {signed(found.rho, 2)} over {count(found.tasks, 'task')}"
    if found.p is None:
        return f"{text}; too few tasks for a test."
    if not found.significant:
        return f"{text}, p\u00a0=\u00a0{_p(found.p)}: not significant."
    word = meaning[0] if found.rho > 0 else meaning[1]
    return f"{text}, p\u00a0=\u00a0{_p(found.p)}: significant at {SIGNIFICANT}; {word}."


def _short(found: Correlation) -> str:
    return f"rho {signed(found.rho, 2)}, p {_p(found.p)}"


def _word(found: Correlation) -> str:
    return "not tested" if found.p is None else "significant" if found.significant else "not significant"


def _p(value: float | None) -> str:
    return "–" if value is None else f"{value:.4f}" if value < 0.01 else f"{value:.2f}"
