"""The page as a file: its sections, its words and numbers, its escaping, and what is refused before it is written."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.stats import spearmanr

from gradsim.grouping import TaskGrouping, choose_num_groups
from gradsim.report import write_report
from gradsim.training import Arm, Results

SECTIONS = {
    "similarity": "similarity",
    "layers": "similarity",
    "steps": "similarity",
    "groups": "grouping",
    "choice": "choice",
    "results": "results",
    "transfer": "results",
    "typology": "typology",
}
FIGURES = {"heatmap", "dendrogram", "layers", "steps", "choice", "arms", "transfer", "typology"}


@pytest.mark.parametrize("which", ["plain", "hostile"])
def test_is_well_formed_and_fetches_nothing(pages: Any, parse: Callable[[Path], Any], which: str) -> None:
    seen = parse(getattr(pages, which))
    assert seen.wrong == [] and seen.open == []
    assert not {"script", "iframe", "object", "embed", "link", "img", "base", "form"} & {
        tag for tag, _ in seen.elements
    }
    links = [
        value for _, of in seen.elements for key, value in of.items() if key in ("href", "src", "xlink:href", "action")
    ]
    outside = [link for link in links if not link.startswith(("#", "data:image/png;base64,"))]
    assert outside == ["https://arxiv.org/abs/2310.15269", "https://arxiv.org/abs/2010.05874"]
    text = getattr(pages, which).read_text(encoding="utf-8")
    assert not re.search(r"url\((?!#)|@import|purl\.org|<!DOCTYPE svg", text)
    assert not any(key.startswith("on") for _, of in seen.elements for key in of)
    assert len(seen.all("style")) == 1  # a figure's own would dress the whole page


@pytest.mark.parametrize("which", ["plain", "hostile"])
def test_ids_are_unique_and_references_are_met(pages: Any, parse: Callable[[Path], Any], which: str) -> None:
    seen = parse(getattr(pages, which))
    ids = [of["id"] for _, of in seen.elements if "id" in of]
    assert len(ids) == len(set(ids)) > 100
    wanted = {part for _, of in seen.elements for part in of.get("aria-labelledby", "").split()}
    wanted |= {of["href"][1:] for _, of in seen.elements if of.get("href", "").startswith("#")}
    wanted |= {
        name for _, of in seen.elements for value in of.values() for name in re.findall(r"url\(#([^)]+)\)", value)
    }
    assert len(wanted) > 30
    assert wanted <= set(ids)


def test_semantics(pages: Any, parse: Callable[[Path], Any]) -> None:
    seen = parse(pages.plain)
    assert seen.all("html") == [{"lang": "en"}]
    assert len(seen.all("h1")) == len(seen.all("main")) == len(seen.all("nav")) == 1
    assert len(seen.all("svg")) == len(FIGURES) == len(seen.all("figcaption"))
    assert all(of["role"] == "img" and of["aria-labelledby"] for of in seen.all("svg"))
    assert len(seen.all("caption")) == len(seen.all("table")) >= 8
    assert all(of["scope"] in ("row", "col") for of in seen.all("th"))
    assert "width=device-width" in str(seen.all("meta"))
    assert "default-src 'none'" in str(seen.all("meta"))  # the browser refuses what a slip might let in


def test_hostile_names_are_text(pages: Any, parse: Callable[[Path], Any], hostile: list[str]) -> None:
    seen = parse(pages.hostile)
    assert seen.words("h1") == "<script>alert(1)</script>"
    heads = [text for tag, text in seen.texts if tag == "span"]
    for name in hostile:
        shown = name.replace("\t", "\ufffd").replace("\x1b", "\ufffd")
        assert any(shown == text.strip("\u2068\u2069") for text in heads)
    words = seen.words()
    for text in ("<img src=x onerror=alert(3)>", "<b>model</b>", "</p><script>alert(4)</script>", "<em>feature</em>"):
        assert text in words
    assert "{{ 7 * 7 }}" in words and " 49 " not in words


@pytest.mark.parametrize("given", ["similarity", "grouping", "choice", "results"])
def test_sections_only_for_what_is_given(given: str, pages: Any, parse: Callable[[Path], Any], tmp_path: Path) -> None:
    page = write_report(tmp_path / "page.html", **{given: pages.arguments[given]})
    seen = parse(page)
    sections = [of["id"] for of in seen.all("section")]
    expected = [name for name, of in SECTIONS.items() if of == given and name != "transfer"]
    assert sections == [*expected, "making", "cite"]
    assert [of["href"][1:] for of in seen.all("a")[: len(sections)]] == sections
    assert "Which tasks to train together" in seen.words("h1")
    assert "Commands" not in seen.words("h3") and "Notes" not in seen.words("dt")


def test_everything_has_its_section(pages: Any, parse: Callable[[Path], Any]) -> None:
    seen = parse(pages.plain)
    assert [of["id"] for of in seen.all("section")] == [*SECTIONS, "making", "cite"]
    assert seen.words("dt") == "Measured Grouped How many Trained Compared Notes"
    assert "A note." in seen.words("dd")
    assert "gradsim similarity --data here --out run" in seen.words("code")


def row(seen: Any, first: str, after: str) -> list[str]:
    """The cells of the first table row that begins with `first` after the caption `after`."""
    spans = [text.strip() for tag, text in seen.texts if tag in ("span", "strong")]
    start = next(place for place, text in enumerate(spans) if text.startswith(after))
    return spans[spans.index(first, start) :]


def test_numbers_of_the_summary(pages: Any, parse: Callable[[Path], Any]) -> None:
    similarity, grouping = pages.arguments["similarity"], pages.arguments["grouping"]
    matrix = similarity.cosine.numpy().mean(axis=0)
    off = ~np.eye(8, dtype=bool)
    words = parse(pages.plain).words("dd")
    assert "The similarity of the gradients of 8 tasks was measured up to 6 times a pair" in words
    assert f"mean cosine of {matrix[off].mean():.3f}; two batches of one task, {similarity.within.mean():.3f}" in words
    i, j = np.unravel_index(np.where(off, matrix, -9).argmax(), matrix.shape)
    assert f"closest pair is task{min(i, j)} and task{max(i, j)} ({matrix[i, j]:.3f})" in words
    assert f"3 groups (proven to be the best, score {grouping.score:.3f}): 1: " in words
    assert "Recommended number of groups: 3. 3 groups are the fewest" in words
    assert "The groups against all in one: " in words and " over 3 seeds: " in words


def test_takes_a_real_choice(similarity: Any, parse: Callable[[Path], Any], tmp_path: Path) -> None:
    made = choose_num_groups(similarity(["a", "b", "c", "d"]), resamples=3, random_groupings=5, shuffles=19)
    words = parse(write_report(tmp_path / "page.html", choice=made, figures=tmp_path)).words()
    best = next(row for row in made.candidates if row.num_groups == made.recommended)
    assert made.reason in words
    assert f"of random groups of the same sizes {best.random_mean:.3f}" in words
    numbers = json.loads((tmp_path / "choice.json").read_text(encoding="utf-8"))
    assert [row["score"] for row in numbers["candidates"]] == pytest.approx([row.score for row in made.candidates])


def test_the_table_of_groups(pages: Any, parse: Callable[[Path], Any]) -> None:
    similarity, grouping = pages.arguments["similarity"], pages.arguments["grouping"]
    matrix = similarity.cosine.numpy().mean(axis=0)
    seen = parse(pages.plain)
    for place, group in enumerate(grouping.groups, 1):
        inside = [similarity.tasks.index(task) for task in group]
        pairs = [matrix[i, j] for i in inside for j in inside if i != j]
        others = [matrix[i, j] for i in inside for j in range(8) if j not in inside]
        cells = row(seen, str(place), "The groups: mean cosine")[1:4]
        assert cells[0].replace(" and ", ", ").split(", ") == group
        assert cells[1] == (f"{np.mean(pairs):.3f}" if pairs else "–")
        assert cells[2] == f"{np.mean(others):.3f}".replace("-", "−")


def test_the_tables_of_results(pages: Any, parse: Callable[[Path], Any]) -> None:
    results = pages.arguments["results"]
    seen = parse(pages.plain)
    base = np.array(results.arms[2].by_seed())
    for place, arm in enumerate(results.arms):
        seeds = np.array(arm.by_seed())
        cells = row(seen, arm.name, "Arms: mean ± standard deviation over 3 seeds")
        assert cells[1] == ("–" if arm.kind == "majority" else str(len(arm.groups)))
        assert cells[2] == f"{100 * seeds.mean():.2f} ± {100 * seeds.std(ddof=1):.2f}"
        gain = 100 * (seeds - base)
        expected = f"{gain.mean():+.2f} ± {gain.std(ddof=1):.2f}".replace("-", "−")
        assert cells[3] == ("–" if place == 2 else expected)
        best = max(arm.by_task(), key=lambda task: arm.by_task()[task])
        assert cells[4] == f"{best} {100 * arm.by_task()[best]:.2f}"
    strong = [text for tag, text in seen.texts if tag == "strong"]
    for task in results.tasks:
        means = [100 * float(np.mean(arm.scores[task])) for arm in results.arms]
        cells = row(seen, task, "Every task: mean")[1 : 1 + len(means)]
        assert [float(cell.split(" ± ")[0]) for cell in cells] == pytest.approx(means, abs=0.0051)
        assert cells[int(np.argmax(means))] in strong
    assert len(strong) == 8 + 1 + 1  # the best of every task, the best arm, the recommended number


def test_one_seed_and_lower_is_better(pages: Any, parse: Callable[[Path], Any], results: Any, tmp_path: Path) -> None:
    tasks = [f"task{place}" for place in range(4)]
    made = results(tasks, [tasks[:2], tasks[2:]], seeds=1, metric="bits per token", higher_is_better=False)
    seen = parse(write_report(tmp_path / "page.html", results=made))
    words = seen.words()
    assert "lower is better" in words and "one seed, so no spread" in words
    means = {arm.name: float(np.mean([arm.scores[task] for task in tasks])) for arm in made.arms}
    assert row(seen, "groups", "Arms: one seed")[2] == f"{means['groups']:.3f}"
    gain = means["all in one"] - means["groups"]  # turned: fewer bits are a gain
    assert row(seen, "groups", "Arms: one seed")[3] == f"{gain:+.3f}".replace("-", "−")
    assert f"{min(means.values()):.3f}" in [text for tag, text in seen.texts if tag == "strong"]
    assert not any(" ± " in cell for cell in row(seen, "groups", "Arms: one seed")[:40])


def test_significance_is_said_as_it_is(pages: Any, parse: Callable[[Path], Any]) -> None:
    """The made-up typology has a feature that is the clusters, and one that is noise; transfer is noise too."""
    seen = parse(pages.plain)
    assert row(seen, "clusters", "Rank correlation")[3] == "Significant"
    assert row(seen, "noise", "Rank correlation")[3] == "Not significant"
    words = seen.words("dd")
    assert "strongest, clusters: Spearman's rho +0." in words
    assert "the closer two languages by typology, the more alike their gradients" in words
    assert re.search(r"measured transfer: Spearman's rho \S+ over 8 tasks, p\s=\s0\.\d+: not significant", words)
    assert "2 features were tried; p is not corrected for that" in seen.words("p")


def test_typology_is_matched_by_name(pages: Any, tell: Callable[..., Any]) -> None:
    """Its languages stand in another order, with one that was not measured and without one that was."""
    similarity, typology = pages.arguments["similarity"], pages.arguments["typology"]
    order = [6, 1, 7, 2, 0, 4, 5]
    names = [typology["langs"][k] for k in order]
    values = np.array(typology["sim"]["clusters"])[np.ix_(order, order)]
    moved = {"langs": [*names, "other"], "sim": {"clusters": np.pad(values, (0, 1), constant_values=9.0).tolist()}}
    told = tell(similarity=similarity, typology=moved)
    kept = sorted(order)
    above = np.triu_indices(7, 1)
    first = similarity.mean().numpy()[np.ix_(kept, kept)][above]
    second = np.array(typology["sim"]["clusters"])[np.ix_(kept, kept)][above]
    assert told.tables["typology-table"][0][:2] == ["clusters", f"{spearmanr(first, second).statistic:+.2f}"]
    assert "7 of the 8 tasks are known to the typology" in told.words


def test_the_papers_claim_is_the_papers(pages: Any, parse: Callable[[Path], Any]) -> None:
    similarity = pages.arguments["similarity"]
    words = parse(pages.plain).words("p")
    assert "low layers carry the language, high layers the task. That is the paper's claim" in words
    off = ~np.eye(8, dtype=bool)
    levels = similarity.cosine.numpy()[:, off].mean(axis=1)
    assert f"{levels[0]:.3f} in the first group (embedding) and {levels[-1]:.3f} in the last (head)" in words
    rho = np.corrcoef(np.argsort(np.argsort(levels)), np.arange(5))[0, 1]
    assert f"Its rank correlation with the depth is {rho:+.2f} over 5 groups" in words.replace("−", "-")


def test_figures_beside_the_page(pages: Any) -> None:
    assert {file.stem for file in pages.figures.glob("*.png")} == FIGURES
    assert {file.stem for file in pages.figures.glob("*.json")} == FIGURES
    assert all(file.read_bytes().startswith(b"\x89PNG") for file in pages.figures.glob("*.png"))
    assert len(list(pages.figures.iterdir())) == 2 * len(FIGURES)  # nothing half-written is left
    heat = json.loads((pages.figures / "heatmap.json").read_text(encoding="utf-8"))
    similarity = pages.arguments["similarity"]
    order = [similarity.tasks.index(task) for task in heat["tasks"]]
    np.testing.assert_allclose(heat["matrix"], similarity.mean().numpy()[np.ix_(order, order)])
    arms = json.loads((pages.figures / "arms.json").read_text(encoding="utf-8"))["arms"]
    assert arms[0]["by_seed"] == pytest.approx([100 * value for value in pages.arguments["results"].arms[0].by_seed()])
    for name in FIGURES:
        content = json.loads((pages.figures / f"{name}.json").read_text(encoding="utf-8"))
        assert content["title"] and len(content["text"]) > 40


def test_alternative_texts_hold_the_key_numbers(pages: Any, parse: Callable[[Path], Any]) -> None:
    seen = parse(pages.plain)
    texts = [text for tag, text in seen.texts if tag == "desc"]
    assert len(texts) == len(FIGURES)
    similarity = pages.arguments["similarity"]
    off = ~np.eye(8, dtype=bool)
    assert f"{similarity.mean().numpy()[off].mean():.3f}" in texts[0]
    assert "Recommended: 3" in texts[4]
    assert f"{100 * np.mean(pages.arguments['results'].arms[0].by_seed()):.2f}" in texts[5]
    assert "Not in the figure: majority (" in texts[5]


def test_the_same_input_gives_the_same_bytes(pages: Any, tmp_path: Path) -> None:
    chosen = {key: pages.arguments[key] for key in ("grouping", "choice")}
    first, second = (write_report(tmp_path / name, **chosen).read_bytes() for name in ("a.html", "b.html"))
    assert first == second


@pytest.mark.parametrize("tasks", [1, 2, 3])
def test_few_tasks(tasks: int, build: Any, tell: Callable[..., Any], tmp_path: Path) -> None:
    arguments = build([f"task{place}" for place in range(tasks)], num_groups=1)
    arguments = {key: arguments[key] for key in ("similarity", "grouping", "results", "typology", "classes")}
    if tasks == 2:
        with pytest.raises(ValueError, match=r"typology must hold at least three of the tasks by their names"):
            write_report(tmp_path / "page.html", **arguments)
        assert not (tmp_path / "page.html").exists()
        del arguments["typology"]
        assert write_report(tmp_path / "page.html", similarity=arguments["similarity"]).exists()
    told = tell(**arguments)
    assert ("layers" in told.sections) == ("heatmap" in told.pictures) == (tasks > 1)
    assert ("transfer" in told.sections) == ("typology" in told.sections) == (tasks == 3)
    if tasks == 1:
        assert "No pair of different tasks was measured." in told.words
    if tasks == 3:
        assert "too few tasks for a test" in told.summary


def test_pairs_that_were_never_measured(similarity: Any, tell: Callable[..., Any]) -> None:
    made = similarity(["a", "b", "c"])
    made.count[:, 0, 2] = 0
    told = tell(similarity=made)
    assert "the similarity of a and c was never measured" in told.words
    assert told.pictures == ["layers", "steps"]


def test_affinity_has_a_direction_and_no_claim(similarity: Any, tell: Callable[..., Any]) -> None:
    told = tell(similarity=similarity(["a", "b", "c"], kind="affinity", samples=None, steps=None))
    assert "row i, column j holds what training on task j does for task i" in told.words
    assert "The TAG affinity of 3 tasks" in told.summary and "mean affinity of" in told.summary
    assert "low layers carry the language" not in told.words


def test_parameter_groups_overlap_and_numbered_tasks(similarity: Any, tell: Callable[..., Any]) -> None:
    """`groups` picks what is averaged, but not what the curve over groups shows."""
    made = similarity(["a", "b", "c", "d"])
    grouping = TaskGrouping([[0, 1, 2], [2, 3]], [[0, 1], [2, 3]], 0.5, float("inf"), False, "local_search")
    told = tell(similarity=made, grouping=grouping, groups=["head"])
    matrix = made.cosine[-1].numpy()
    assert f"mean cosine of {matrix[~np.eye(4, dtype=bool)].mean():.3f}".replace("-", "−") in told.summary
    assert "over 5 groups" in told.words
    assert told.tables["groups-table"][0][1:3] == ["a, b and c", "a and b"]
    assert "Groups overlap" in told.words and "no bound is known" in told.words


def test_arms_without_groups_are_told_by_their_means(results: Any, tell: Callable[..., Any]) -> None:
    """A comparison of methods alone, as the demo's: nothing to judge groups by."""
    made = results(["a", "b"], [["a", "b"]])
    told = tell(results=results(["a", "b"], [], arms=made.arms[2:3], transfer={}))
    assert "Mean weighted F1 in % over 2 tasks: all in one " in told.summary


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"similarity": None, "grouping": None, "choice": None, "results": None}, ValueError, "nothing to report"),
        ({"similarity": None}, ValueError, "typology is held against a similarity, and there is none"),
        ({"notes": "a note"}, TypeError, "notes and commands must be lists of strings"),
        ({"commands": "a command"}, TypeError, "notes and commands must be lists of strings"),
        ({"groups": ["tail"]}, ValueError, "groups must be among"),
        ({"groups": "head"}, TypeError, "groups must be a list of names"),
        ({"choice": 4}, TypeError, "choice must be a GroupingChoice"),
        (
            {"typology": {"langs": ["x"], "sim": {"f": [[1.0]]}}},
            ValueError,
            "at least three of the tasks by their names",
        ),
        ({"typology": {"langs": ["x"]}}, ValueError, "typology must hold an object with the keys"),
        (
            {"grouping": TaskGrouping([["x"]], [["x"]], 1.0, 1.0, True, "exact")},
            ValueError,
            "grouping holds the task 'x', which the similarity does not",
        ),
    ],
)
def test_refusals(pages: Any, tmp_path: Path, change: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        write_report(tmp_path / "page.html", figures=tmp_path / "figures", **{**pages.arguments, **change})
    assert list(tmp_path.iterdir()) == []


def test_refuses_results_with_holes(results: Any, tmp_path: Path) -> None:
    made = results(["a", "b"], [["a", "b"]])
    made.arms[1].scores["b"].pop()
    with pytest.raises(ValueError, match="the arm 'groups, GradVac' must have 3 scores of task 'b', not 2"):
        write_report(tmp_path / "page.html", results=made)
    with pytest.raises(ValueError, match="at least one arm"):
        write_report(tmp_path / "page.html", results=results(["a"], [["a"]], arms=[]))


def test_a_page_is_replaced_whole_or_not_at_all(pages: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = tmp_path / "page.html"
    page.write_text("before", encoding="utf-8")

    def full(*_: Any) -> None:
        raise OSError("no space left")

    monkeypatch.setattr("os.replace", full)
    with pytest.raises(OSError, match="no space left"):
        write_report(page, choice=pages.arguments["choice"])
    assert page.read_text(encoding="utf-8") == "before"
    assert list(tmp_path.iterdir()) == [page]


@pytest.mark.parametrize("missing", ["jinja2", "matplotlib", "scipy"])
def test_without_a_library_one_sentence(
    pages: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, missing: str
) -> None:
    monkeypatch.setitem(sys.modules, missing, None)
    with pytest.raises(ImportError, match=rf"needs {missing}: pip install 'gradsim-kernels\[report\]'"):
        write_report(tmp_path / "page.html", choice=pages.arguments["choice"])


@pytest.mark.slow
def test_two_hundred_tasks(build: Any, parse: Callable[[Path], Any], tmp_path: Path) -> None:
    tasks = [f"task{place}" for place in range(200)]
    page = write_report(tmp_path / "page.html", **build(tasks, num_groups=8))
    assert page.stat().st_size < 4_000_000
    seen = parse(page)
    assert seen.wrong == []
    assert "Every 5th task is named." in " ".join(text for tag, text in seen.texts if tag == "desc")


def test_a_budget_speaks_for_itself(tmp_path: Path) -> None:
    words = "Every model makes 7 steps with 5 samples of each of its tasks."
    arm = Arm("all in one", "all", "sum", [["a", "b"]], {"a": [0.5], "b": [0.25]})
    results = Results(["a", "b"], [0], "accuracy", True, {"words": words, "clip_norm": 1.5}, [arm])
    page = write_report(tmp_path / "page.html", results=results).read_text(encoding="utf-8")
    outcome, making = page.split('id="making"')
    assert words in outcome and "clip_norm" not in outcome
    assert "clip_norm" in making
