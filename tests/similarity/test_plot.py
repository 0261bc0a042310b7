"""The figures: what they show, in which order, and what they refuse."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from gradsim.similarity import Similarity

pytest.importorskip("matplotlib")
pytest.importorskip("scipy")


def blocks() -> Similarity:
    """Two clusters, interleaved in the order of the tasks, so that the figure has something to put in order."""
    same = torch.tensor([[float(i % 2 == j % 2) for j in range(6)] for i in range(6)], dtype=torch.float64)
    noise = torch.rand(6, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(0)) * 0.1
    cosine = torch.stack([0.7 * same + (noise + noise.T) / 2, 0.2 * same]).contiguous()
    cosine.diagonal(dim1=1, dim2=2).fill_(1.0)
    tasks = [f"task {i}" for i in range(6)]
    within = torch.full((2, 6), 0.8, dtype=torch.float64)
    return Similarity(tasks, ["low", "high"], cosine, torch.ones(2, 6, 6, dtype=torch.int64), within=within)


def image_of(figure: Any) -> tuple[Any, Any]:
    axes = next(axes for axes in figure.axes if axes.images)
    return axes, axes.images[0].get_array()


def test_heatmap_is_ordered_by_the_dendrogram(tmp_path: Path) -> None:
    similarity = blocks()
    figure = similarity.plot("heatmap", groups=["low"], classes={"task 0": "even", "task 1": "odd"})
    axes, shown = image_of(figure)
    order = [label.get_text() for label in axes.get_yticklabels()]
    parity = [int(name[-1]) % 2 for name in order]
    assert parity in ([0, 0, 0, 1, 1, 1], [1, 1, 1, 0, 0, 0])
    rows = [similarity.tasks.index(name) for name in order]
    expected = similarity.cosine[0].numpy()[np.ix_(rows, rows)]
    off = ~np.eye(6, dtype=bool)
    np.testing.assert_array_equal(np.asarray(shown)[off], expected[off])
    assert shown.mask.diagonal().all()  # 1 by definition, would flatten the scale
    figure.savefig(tmp_path / "heat.png")
    assert (tmp_path / "heat.png").stat().st_size > 5000


def test_labels_do_not_overlap_and_carry_their_class_colour() -> None:
    similarity = blocks()
    figure = similarity.plot(
        "heatmap", classes={task: "even" if int(task[-1]) % 2 == 0 else "odd" for task in similarity.tasks}
    )
    figure.draw_without_rendering()
    axes, _ = image_of(figure)
    boxes = [label.get_window_extent() for label in axes.get_yticklabels()]
    assert not any(a.overlaps(b) for i, a in enumerate(boxes) for b in boxes[:i])
    for axis in (axes.xaxis, axes.yaxis):
        drawn = [tick.label1 if tick.label1.get_visible() else tick.label2 for tick in axis.get_major_ticks()]
        colours = {(int(label.get_text()[-1]) % 2, label.get_color()) for label in drawn}
        assert len(colours) == 2 and len({colour for _, colour in colours}) == 2


@pytest.mark.parametrize("kind", ["dendrogram", "layers"])
def test_other_kinds(kind: str, tmp_path: Path) -> None:
    figure = blocks().plot(kind, title="a title")
    figure.savefig(tmp_path / "figure.png")
    assert (tmp_path / "figure.png").stat().st_size > 3000


def test_refusals() -> None:
    with pytest.raises(ValueError, match="kind must be"):
        blocks().plot("pie")
    with pytest.raises(ValueError, match="groups must be among"):
        blocks().plot("layers", groups=["middle"])
    with pytest.raises(ValueError, match="groups must be among"):
        blocks().plot("heatmap", groups=["middle"])
    unmeasured = blocks()
    unmeasured.count[:, 2, 4] = 0
    with pytest.raises(ValueError, match="'task 2' and 'task 4' was never measured"):
        unmeasured.plot("heatmap")
    one = Similarity(["a"], ["g"], torch.ones(1, 1, 1, dtype=torch.float64), torch.ones(1, 1, 1, dtype=torch.int64))
    with pytest.raises(ValueError, match="at least two tasks"):
        one.plot("dendrogram")


def test_without_matplotlib_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(ImportError, match=r"pip install 'gradsim-kernels\[plots\]'"):
        blocks().plot("heatmap")
