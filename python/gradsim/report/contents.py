"""Which sections a page has, and its summary."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from gradsim.report import (
    about_correlation,
    about_groups,
    about_labels,
    about_layers,
    about_making,
    about_results,
    about_similarity,
)
from gradsim.report.blocks import Section
from gradsim.report.choice import as_choice
from gradsim.report.scores import in_points, means, said
from gradsim.report.typology import check_typology
from gradsim.report.words import clean, count, listed, named, number

if TYPE_CHECKING:
    from gradsim.grouping import TaskGrouping
    from gradsim.similarity import Similarity
    from gradsim.training import Results

__all__ = ["contents"]


def contents(
    *,
    similarity: Similarity | None,
    grouping: TaskGrouping | None,
    choice: Any,
    results: Results | None,
    typology: Mapping[str, Any] | None,
    classes: Mapping[str, str],
    groups: Sequence[str] | None,
) -> tuple[dict[str, list[str]], list[Section]]:
    """The summary, word -> sentences, and the sections, as `write_report` describes them."""
    summary: dict[str, list[str]] = {}
    sections: list[Section | None] = []
    seen, tasks, unit, matrix = None, [], "cosine", None
    if similarity is not None:
        names = similarity.groups if groups is None else list(groups)
        similarity.mean(groups)  # raises for groups that are not there
        tasks, unit = similarity.tasks, similarity.kind
        seen = about_similarity.overall(similarity, names)
        matrix = None if seen is None else seen.matrix
        summary["Measured"] = [_measured(similarity, names, seen)]
        sections += [
            about_similarity.heat_section(similarity, names, classes, seen),
            about_layers.layers_section(similarity, similarity.groups, classes),
            about_layers.along_section(similarity, names),
        ]
    if grouping is not None:
        sets = about_groups.named_groups(grouping, similarity)
        summary["Grouped"] = [_grouped(sets[1], grouping)]
        sections.append(about_groups.groups_section(grouping, sets, tasks, matrix, classes, unit))
        found = about_groups.agreement(sets[1], classes)
        if found:
            summary["Grouped"].append(
                f"Against the known classes the groups have an adjusted Rand index of {number(found[0], 2)}."
            )
    if choice is not None:
        chosen = as_choice(choice)
        summary["How many"] = [f"Recommended number of groups: {chosen['recommended']}. {clean(chosen['reason'])}"]
        sections.append(about_groups.choice_section(chosen))
    if results is not None:
        _check(results)
        summary["Trained"] = said(results) or [means(in_points(results))]
        sections.append(about_results.results_section(results))
        if results.transfer and matrix is not None:
            transfer = about_correlation.transfer_section(in_points(results), tasks, matrix, unit)
            if transfer is not None:
                sections.append(transfer[0])
                summary.setdefault("Compared", []).append(transfer[1])
    if similarity is not None and matrix is not None:
        labels = about_labels.label_section(similarity.metadata, tasks, matrix, unit)
        if labels is not None:
            sections.append(labels[0])
            summary.setdefault("Compared", []).append(labels[1])
    if typology is not None and matrix is not None:
        held = about_correlation.typology_section(check_typology(typology), tasks, matrix, unit)
        sections.append(held[0])
        summary.setdefault("Compared", []).append(held[1])
    sections.append(about_making.making_section(similarity, results))
    return summary, [section for section in sections if section is not None]


def _measured(similarity: Similarity, groups: Sequence[str], seen: about_similarity.Overall | None) -> str:
    model = similarity.metadata.get("model")
    of = f" of the model {named(model)}" if isinstance(model, str) else ""
    text = (
        f"The {'TAG affinity' if similarity.kind == 'affinity' else 'similarity of the gradients'} of "
        f"{count(len(similarity.tasks), 'task')} was measured up to {count(int(similarity.count.max()), 'time')} a "
        f"pair, in {count(len(groups), 'group')} of parameters{of}."
    )
    return f"{text} {seen.sentence(similarity.kind)}" if seen else f"{text} No pair of different tasks has a value."


def _grouped(serves: Sequence[Sequence[str]], grouping: TaskGrouping) -> str:
    most = max(3, 60 // len(serves))
    shown = "; ".join(f"{place}: {listed(group, most)}" for place, group in enumerate(serves[:20], 1))
    shown += f"; and {len(serves) - 20} more" if len(serves) > 20 else ""
    proof = "proven to be the best" if grouping.optimal else "not proven to be the best"
    return f"{count(len(serves), 'group')} ({proof}, score {number(grouping.score)}): {shown}."


def _check(results: Results) -> None:
    """One sentence for results that hold no arm, or an arm without a score for every task and seed."""
    if not results.arms:
        raise ValueError("results must hold at least one arm")
    for arm in results.arms:
        for task in results.tasks:
            if len(arm.scores.get(task, ())) != len(results.seeds):
                raise ValueError(
                    f"results: the arm {arm.name!r} must have {count(len(results.seeds), 'score')} of task {task!r}, "
                    f"not {len(arm.scores.get(task, ()))}"
                )
