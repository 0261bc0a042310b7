"""The sections on groups of parameters, in the order of the model, and on training steps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from gradsim.report import along, curves
from gradsim.report.blocks import Picture, Section, Table
from gradsim.report.words import count, named, number, signed

if TYPE_CHECKING:
    from gradsim.similarity import Similarity

__all__ = ["along_section", "layers_section"]

_CLAIM = (
    "GradSim (Wang et al., EMNLP 2023) reads such curves so: low layers carry the language, high layers the task. "
    "That is the paper's claim about its models and data, not a finding of this page. What these data say:"
)


def layers_section(similarity: Similarity, groups: Sequence[str], classes: Mapping[str, str]) -> Section | None:
    """The curve over groups of parameters; None where no group holds a pair."""
    found = curves.levels(similarity, groups, classes)
    if not found:
        return None
    unit = similarity.kind
    said = _levels_said(found, unit)
    picture = Picture(
        name="layers",
        figure=curves.curve(found, unit),
        title="Similarity by group of parameters",
        alt=f"Curves of the mean {unit} over {count(len(found), 'group')} of parameters in the order of the "
        f"model. {said}",
        numbers={"groups": [group.to_dict() for group in found]},
    )
    kinds = {"same": "pairs of one class", "different": "pairs of two classes", "within": "within a task"}
    extra = [key for key in kinds if any(getattr(group, key) is not None for group in found)]
    if all(group.same is None for group in found) and "different" in extra:
        extra.remove("different")
    table = Table(
        name="layers-table",
        caption=f"Mean {unit} in every group of parameters",
        head=[
            "Group",
            "Between tasks",
            "Lower quartile",
            "Upper quartile",
            *(kinds[key].capitalize() for key in extra),
        ],
        rows=[
            [
                named(g.group),
                *map(number, (g.mean, g.lower, g.upper)),
                *(number(getattr(g, key)) for key in extra),
            ]
            for g in found
        ],
        folded="The numbers of this figure",
    )
    claim = [_CLAIM] if unit == "cosine" else []
    return Section("layers", "Layer by layer", [*claim, said, picture, table])


def _levels_said(found: Sequence[curves.GroupLevel], unit: str) -> str:
    """What the curve shows, computed: the ends, the extremes, and whether it goes with the depth."""
    first, last = found[0], found[-1]
    if len(found) == 1:
        return f"There is one group of parameters, {named(first.group)}, with a mean {unit} of {number(first.mean)}."
    high, low = max(found, key=lambda g: g.mean), min(found, key=lambda g: g.mean)
    text = (
        f"The mean {unit} between tasks is {number(first.mean)} in the first group ({named(first.group)}) and "
        f"{number(last.mean)} in the last ({named(last.group)}); it is highest in {named(high.group)} "
        f"({number(high.mean)}) and lowest in {named(low.group)} ({number(low.mean)})."
    )
    if len(found) >= 4:
        from scipy.stats import rankdata

        ranks = rankdata([g.mean for g in found])
        if np.ptp(ranks):
            rho = float(np.corrcoef(np.arange(len(found)), ranks)[0, 1])
            text += f" Its rank correlation with the depth is {signed(rho, 2)} over {len(found)} groups."
    gaps = [(g.same - g.different, g) for g in found if g.same is not None and g.different is not None]
    if len(gaps) > 1:
        most, least = max(gaps, key=lambda pair: pair[0]), min(gaps, key=lambda pair: pair[0])
        text += (
            f" The lead of pairs of one class over pairs of two is greatest in {named(most[1].group)} "
            f"({signed(most[0])}) and smallest in {named(least[1].group)} ({signed(least[0])})."
        )
    return text


def along_section(similarity: Similarity, groups: Sequence[str]) -> Section | None:
    """The curve over training steps; None where single measurements were not kept."""
    course = along.along(similarity, groups)
    if course is None or len(course.steps) < 2:
        return None
    unit = similarity.kind
    word = "step" if course.numbered else "measurement"
    said = (
        f"Over {len(course.steps)} measurements, from {word} {course.steps[0]:,} to {course.steps[-1]:,}, the mean "
        f"{unit} between tasks goes from {number(course.between[0])} to {number(course.between[-1])}"
    )
    if course.within is not None:
        said += f"; within a task it is {number(course.within)} on average"
    picture = Picture(
        name="steps",
        figure=along.curve(course, unit),
        title="Similarity along training" if course.numbered else "Similarity, measurement by measurement",
        alt=f"Curves of the {unit} between tasks. {said}. Closest pairs: "
        + "; ".join(f"{named(t.pair[0])} and {named(t.pair[1])}, mean {number(t.mean)}" for t in course.closest)
        + ". Farthest pairs: "
        + (
            "; ".join(f"{named(t.pair[0])} and {named(t.pair[1])}, mean {number(t.mean)}" for t in course.farthest)
            or "none"
        )
        + ".",
        numbers=course.to_dict(),
    )
    return Section(
        "steps", "Along training" if course.numbered else "Measurement by measurement", [f"{said}.", picture]
    )
