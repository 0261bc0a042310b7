"""How the similarities between tasks are spread in every group of parameters."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from matplotlib.figure import Figure

if TYPE_CHECKING:
    from gradsim.similarity import Similarity

__all__ = ["layers"]


def layers(similarity: Similarity, groups: Sequence[str], title: str) -> Figure:
    """One box per group: the similarities of all measured pairs of different tasks, in the order of the model.

    The box is the middle half, the line its median, the whiskers reach the least and the most. Where the similarity
    holds it, a diamond marks the mean similarity within a task: what two batches of one task agree on. Raises
    `ValueError` for an unknown group and for one without a measured pair.
    """
    unknown = [name for name in groups if name not in similarity.groups]
    if unknown or not groups:
        raise ValueError(f"groups must be among {similarity.groups}, not {unknown or list(groups)}")
    different = ~torch.eye(len(similarity.tasks), dtype=torch.bool, device=similarity.cosine.device)
    values = []
    for name in groups:
        k = similarity.groups.index(name)
        pairs = similarity.cosine[k][different & (similarity.count[k] > 0)]
        if not len(pairs):
            raise ValueError(f"the group {name!r} holds no measured pair of different tasks")
        values.append(pairs.cpu().numpy())
    figure = Figure(figsize=(max(4.5, 0.42 * len(groups) + 2.5), 4.2), dpi=130, layout="constrained")
    axes = figure.add_subplot()
    axes.axhline(0.0, color="#999999", linewidth=0.8)
    axes.boxplot(values, whis=(0, 100), medianprops={"color": "#b2182b"})
    if similarity.within is not None:
        within = [float(similarity.within[similarity.groups.index(name)].nanmean()) for name in groups]
        axes.plot(range(1, len(groups) + 1), within, "D", color="#2166ac", markersize=5, label="within a task (mean)")
        axes.legend(frameon=False, fontsize=8)
    long = max(map(len, groups)) * len(groups) > 60
    axes.set_xticks(range(1, len(groups) + 1), groups, rotation=45 if long else 0, ha="right" if long else "center")
    axes.set_xlabel("group of parameters")
    axes.set_ylabel(f"{similarity.kind} of two tasks' gradients")
    axes.set_title(title, fontsize=11)
    return figure
