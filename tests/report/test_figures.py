"""The figures alone: what they draw, that names are legible, and what they refuse."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.colors import to_rgb

from gradsim.report import arms, curves
from gradsim.report import choice as choosing
from gradsim.report.scatter import Points, scatter
from gradsim.report.style import BETWEEN, CLASSES, FAINT, INK, OTHER, WITHIN
from gradsim.report.tree import heatmap, leaves_of

TASKS = [f"task{place}" for place in range(8)]


def line(axes: Any, label: str) -> Any:
    return next(found for found in axes.lines if found.get_label() == label)


def test_steps_of_a_similarity(similarity: Callable[..., Any], tmp_path: Path) -> None:
    made = similarity(TASKS)
    figure = made.plot("steps", title="Along")
    drawn = line(figure.axes[0], "between tasks (mean)")
    off = ~np.eye(8, dtype=bool)
    expected = made.samples.numpy().mean(axis=1)[:, off].mean(axis=1)
    np.testing.assert_array_equal(drawn.get_xdata(), made.steps.numpy())
    np.testing.assert_allclose(drawn.get_ydata(), expected)
    assert figure.axes[0].get_xlabel() == "training step"
    assert figure.axes[0].get_title() == "Along"
    figure.savefig(tmp_path / "steps.png")
    with pytest.raises(ValueError, match="single measurements of at least one pair"):
        similarity(TASKS, samples=None, steps=None).plot("steps")
    with pytest.raises(ValueError, match="kind must be 'heatmap', 'dendrogram', 'layers' or 'steps'"):
        made.plot("step")


def test_curve_over_groups(similarity: Callable[..., Any]) -> None:
    found = curves.levels(similarity(TASKS))
    axes = curves.curve(found).axes[0]
    assert list(line(axes, "between tasks (mean)").get_ydata()) == [level.mean for level in found]
    assert list(line(axes, "within a task (mean)").get_ydata()) == [level.within for level in found]
    assert [label.get_text() for label in axes.get_xticklabels()] == [
        "embedding",
        "layers.0",
        "layers.1",
        "layers.2",
        "head",
    ]
    labels = {found.get_label() for found in axes.lines}
    assert not {"pairs of one class", "pairs of two classes"} & labels
    classes = {task: task[-1] for task in TASKS[:4]} | {"task4": "3"}
    axes = curves.curve(curves.levels(similarity(TASKS), classes=classes)).axes[0]
    assert {"pairs of one class", "pairs of two classes"} <= {found.get_label() for found in axes.lines}


@pytest.mark.parametrize("groups", [3, 100])
def test_names_of_groups_do_not_overlap(similarity: Callable[..., Any], groups: int) -> None:
    level = curves.levels(similarity(TASKS))[0]
    many = [curves.GroupLevel(f"layers.{k}.attention", 1, *[float(k)] * 4) for k in range(groups)]
    assert level.pairs == 56
    figure = curves.curve(many)
    figure.draw_without_rendering()
    starts = [label.get_window_extent().x1 for label in figure.axes[0].get_xticklabels()]
    assert len(starts) == min(groups, 34)
    assert min(np.diff(starts)) > 7  # pixels at 130 dpi between the ends of slanted names


def test_choice_with_the_random_band(choice: Callable[..., dict[str, Any]]) -> None:
    above, below = choosing.curve(choice()).axes
    assert list(line(above, "chosen groups").get_ydata()) == pytest.approx([0.4, 0.5, 0.6, 0.7, 0.8, 0.9])
    band = above.collections[0].get_paths()[0].vertices
    assert (band[:, 1].min(), band[:, 1].max()) == (pytest.approx(0.28), pytest.approx(0.82))
    assert list(line(above, "what chance lets a choice gain").get_ydata()) == pytest.approx(
        [0.33, 0.43, 0.53, 0.63, 0.73, 0.83]
    )
    assert set(line(above, "recommended: 3").get_xdata()) == {3}
    stability = below.lines[0].get_ydata()
    assert np.isnan(stability[0]) and stability[1] == pytest.approx(0.8)
    assert above.get_xlim() == below.get_xlim()
    none = choice()
    for row in none["candidates"]:
        row["stability_mean"] = row["stability_std"] = None
    assert len(choosing.curve(none).axes) == 1


def test_a_choice_is_taken_as_object_or_dict(choice: Callable[..., dict[str, Any]]) -> None:
    class Choice:
        def to_dict(self) -> dict[str, Any]:
            return {**choice(), "candidates": choice()["candidates"][::-1]}

    assert choosing.as_choice(Choice()) == choosing.as_choice(choice())
    assert [row["num_groups"] for row in choosing.as_choice(Choice())["candidates"]] == [1, 2, 3, 4, 5, 6]
    with pytest.raises(TypeError, match="choice must be a GroupingChoice or the dict of one, not int"):
        choosing.as_choice(3)
    with pytest.raises(ValueError, match="it has no 'reason'"):
        choosing.as_choice({"recommended": 1, "candidates": choice()["candidates"]})
    with pytest.raises(ValueError, match="at least one candidate"):
        choosing.as_choice({**choice(), "candidates": []})
    broken = choice()
    del broken["candidates"][2]["gain"]
    with pytest.raises(ValueError, match="it has no 'gain'"):
        choosing.as_choice(broken)


def test_dots_show_every_seed(results: Callable[..., Any]) -> None:
    made = results(TASKS, [TASKS[:4], TASKS[4:]])
    axes = arms.dots(made).axes[0]
    names = [label.get_text() for label in axes.get_yticklabels()]
    assert names == ["groups", "groups, GradVac", "all in one", "one model per task", "random groups, sum (3)"]
    dots = {
        y: sorted(
            x
            for found in axes.lines
            if found.get_marker() == "o" and found.get_ydata()[0] == y
            for x in found.get_xdata()
        )
        for y in range(5)
    }
    for y, arm in enumerate(made.arms[:4]):
        assert dots[y] == sorted(arm.by_seed())
    random = [arm for arm in made.arms if arm.kind == "random"]
    assert dots[4] == sorted(seed for arm in random for seed in arm.by_seed())
    bars = [found.get_xdata()[0] for found in axes.lines if found.get_linewidth() == 2.4]
    assert bars[0] == pytest.approx(np.mean(made.arms[0].by_seed()))
    assert bars[4] == pytest.approx(np.mean([arm.by_seed() for arm in random]))
    span = next(found for found in axes.lines if found.get_linewidth() == 1.4)
    assert list(span.get_xdata()) == pytest.approx(
        [np.mean(random[0].by_seed()), np.mean(random[2].by_seed())], abs=0.02
    )
    base = next(found for found in axes.lines if found.get_linestyle() == "--")
    assert base.get_xdata()[0] == pytest.approx(np.mean(made.arms[2].by_seed()))
    majority = results(TASKS, [TASKS], arms=[made.arms[-1]])
    with pytest.raises(ValueError, match="no arm that was trained"):
        arms.dots(majority)


def test_labels_of_a_scatter_cover_nothing() -> None:
    random = np.random.default_rng(0)
    x, y = random.normal(size=(2, 60))
    x[:2], y[:2] = (-2.0, -1.8), 4.0  # the name of the topmost would lie on its neighbour
    points = Points([f"pair {k}" for k in range(60)], x, y, "x", "y")
    figure = scatter([points], labelled=6)
    axes = figure.axes[0]
    boxes = {text.get_text(): text.get_window_extent() for text in axes.texts}
    assert 3 <= len(boxes) <= 6
    assert f"pair {points.y.argmax()}" in boxes or f"pair {points.y.argmin()}" in boxes
    found = list(boxes.values())
    assert not any(a.overlaps(b) for k, a in enumerate(found) for b in found[:k])
    dots = axes.transData.transform(np.stack([points.x, points.y], axis=1))
    for name, box in boxes.items():
        place = int(name.split()[1])
        assert not any(box.contains(x, y) for k, (x, y) in enumerate(dots) if k != place)
        assert abs(dots[place] - [box.x0, (box.y0 + box.y1) / 2]).min() < 12  # beside its own dot


def test_scatters_of_several_features_and_of_one_point() -> None:
    panel = Points(["a"], np.array([0.5]), np.array([0.1]), "x", "y", "panel")
    assert len(scatter([panel] * 5).axes) == 5
    assert scatter([panel]).axes[0].collections[0].get_offsets().tolist() == [[0.5, 0.1]]
    many = Points(["n"] * 4000, np.arange(4000.0), np.arange(4000.0), "x", "y")
    assert scatter([many]).axes[0].collections[0].get_rasterized()


def luminance(colour: str) -> float:
    """Relative luminance of sRGB (WCAG 2.1)."""
    red, green, blue = (c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in to_rgb(colour))
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


@pytest.mark.parametrize("colour", [*CLASSES, BETWEEN, WITHIN, OTHER, FAINT, INK])
def test_colours_of_words_have_contrast(colour: str) -> None:
    """At least 4.5 : 1 against white (WCAG 2.1, AA)."""
    assert 1.05 / (luminance(colour) + 0.05) >= 4.5


def test_numbers_in_the_cells_of_a_heatmap(similarity: Callable[..., Any]) -> None:
    matrix = similarity(TASKS).mean().numpy().copy()
    matrix[0, 1] = matrix[1, 0] = -0.004
    matrix[0, 2] = matrix[2, 0] = -0.47
    matrix[0, 3] = matrix[3, 0] = 0.998
    axes = next(axes for axes in heatmap(matrix, TASKS, {}, "").axes if axes.images)
    texts = {text.get_position(): text for text in axes.texts}
    assert len(texts) == 8 * 7
    order = leaves_of(matrix)
    image = axes.images[0]
    for (x, y), text in texts.items():
        value = matrix[order[y], order[x]]
        assert float(text.get_text().replace("−", "-")) == pytest.approx(value, abs=0.0051)
        back, ink = image.cmap(image.norm(value))[:3], text.get_color()
        light, dark = sorted([luminance(back), luminance(ink)], reverse=True)
        assert (light + 0.05) / (dark + 0.05) >= 3.5


def test_many_tasks_are_named_now_and_then() -> None:
    random = np.random.default_rng(0).uniform(size=(60, 60))
    figure = heatmap((random + random.T) / 2, [f"task{k}" for k in range(60)], {}, "")
    axes = next(axes for axes in figure.axes if axes.images)
    assert len(axes.get_yticklabels()) == 30 and not axes.texts
    figure.draw_without_rendering()
    boxes = [label.get_window_extent() for label in axes.get_yticklabels()]
    assert not any(a.overlaps(b) for a, b in zip(boxes, boxes[1:], strict=False))
    assert max(figure.get_size_inches()) < 18


def test_names_with_formulas_and_controls_are_drawn(similarity: Callable[..., Any], hostile: list[str]) -> None:
    made = similarity(hostile)
    for kind in ("heatmap", "dendrogram", "steps"):
        made.plot(kind, classes={task: task for task in hostile})
