"""Measurements and trainings to report on, the pages made of them, an HTML parser's view of a page, and a browser."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from gradsim.grouping import group_tasks
from gradsim.report import write_report
from gradsim.report.blocks import Picture, Table
from gradsim.report.contents import contents
from gradsim.similarity import Similarity
from gradsim.training import Arm, Results

HOSTILE = [
    "<script>alert(1)</script>",
    "\"quoted' & co",
    "😀 emoji",
    "العربية",
    "עברית",
    "$x^2$ \\foo{",
    "a" * 120,
    "tab\there\x1b",
    "</style></svg>",
    '" onload="alert(2)',
    "{{ 7 * 7 }}",
    "日本語",
]
GROUPS = ["embedding", "layers.0", "layers.1", "layers.2", "head"]
VOID = {"meta", "link", "img", "br", "hr", "input", "image"}


def make_similarity(tasks: list[str], *, measurements: int = 6, seed: int = 0, **changes: Any) -> Similarity:
    """Cosines around three clusters that grow with depth and shrink with time, each measurement with its own noise."""
    random = np.random.default_rng(seed)
    directions = random.normal(size=(3, 8))[np.arange(len(tasks)) % 3] + 0.6 * random.normal(size=(len(tasks), 8))
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    base = directions @ directions.T
    shape = (measurements, len(GROUPS), len(tasks), len(tasks))
    noise = 0.05 * random.normal(size=shape)
    depth = np.linspace(0.4, 0.9, len(GROUPS))[None, :, None, None]
    time = np.linspace(1.0, 0.6, measurements)[:, None, None, None]
    samples = np.clip(base * depth * time + (noise + noise.swapaxes(2, 3)) / 2, -1, 1)
    samples[..., np.arange(len(tasks)), np.arange(len(tasks))] = 1.0
    within = 0.8 + 0.01 * random.normal(size=(len(GROUPS), len(tasks)))
    fields: dict[str, Any] = {
        "tasks": tasks,
        "groups": GROUPS,
        "cosine": torch.tensor(samples.mean(axis=0)),
        "count": torch.full(shape[1:], measurements),
        "std": torch.tensor(samples.std(axis=0)),
        "within": torch.tensor(within),
        "samples": torch.tensor(samples),
        "steps": torch.arange(1, measurements + 1) * 50,
        "metadata": {"model": "builtin", "data": {"source": "made up"}, "settings": {"seed": seed}},
    }
    return Similarity(**{**fields, **changes})


def make_results(tasks: list[str], groups: list[list[str]], *, seeds: int = 3, **changes: Any) -> Results:
    """Every kind of arm, three random ones, and a transfer matrix."""
    random = np.random.default_rng(5)
    level = random.normal(size=len(tasks)) * 0.05

    def arm(name: str, kind: str, method: str, sets: list[list[str]], middle: float) -> Arm:
        scores = middle + level[:, None] + 0.01 * random.normal(size=(len(tasks), seeds))
        return Arm(name, kind, method, sets, dict(zip(tasks, scores.round(4).tolist(), strict=True)))

    arms = [
        arm("groups", "groups", "sum", groups, 0.61),
        arm("groups, GradVac", "groups", "gradvac", groups, 0.62),
        arm("all in one", "all", "sum", [tasks], 0.60),
        arm("one model per task", "single", "sum", [[task] for task in tasks], 0.57),
        *(arm(f"random {k}", "random", "sum", groups, 0.58 + 0.01 * k) for k in range(3)),
        arm("majority", "majority", "none", [], 0.3),
    ]
    transfer = {a: {b: float(0.6 - (a != b) * 0.1 + 0.02 * random.normal()) for b in tasks} for a in tasks}
    budget = {"steps": 300, "samples per step and task": 16, "learning rate": 5e-4}
    fields: dict[str, Any] = {
        "tasks": tasks,
        "seeds": list(range(seeds)),
        "metric": "weighted F1",
        "higher_is_better": True,
        "budget": budget,
        "arms": arms,
        "transfer": transfer,
    }
    return Results(**{**fields, **changes})


def make_choice(most: int = 6) -> dict[str, Any]:
    """What `GroupingChoice.to_dict()` gives, with no stability for one group."""
    candidates = [
        {
            "num_groups": k,
            "score": 0.3 + 0.1 * k,
            "random_mean": 0.2 + 0.1 * k,
            "random_std": 0.02,
            "random_best": 0.25 + 0.1 * k,
            "gain": 0.1,
            "chance_gain": 0.03,
            "z": 5.0,
            "stability_mean": None if k == 1 else 0.9 - 0.05 * k,
            "stability_std": None if k == 1 else 0.04,
        }
        for k in range(1, most + 1)
    ]
    return {"recommended": 3, "reason": "3 groups are the fewest near the greatest gain.", "candidates": candidates}


def make_typology(tasks: list[str]) -> dict[str, Any]:
    """Two features: one that repeats the clusters, and noise."""
    clusters = [[float(i % 3 == j % 3) + 0.01 * abs(i - j) for j in range(len(tasks))] for i in range(len(tasks))]
    noise = np.random.default_rng(3).uniform(size=(len(tasks), len(tasks)))
    return {"langs": tasks, "sim": {"clusters": clusters, "noise": (noise + noise.T).tolist()}, "source": "made up"}


@pytest.fixture(scope="session")
def build() -> Callable[..., dict[str, Any]]:
    """The arguments of `write_report` for the given tasks, all of them filled."""

    def arguments(tasks: list[str], num_groups: int = 3, seeds: int = 3) -> dict[str, Any]:
        similarity = make_similarity(tasks)
        grouping = group_tasks(similarity, num_groups)
        return {
            "similarity": similarity,
            "grouping": grouping,
            "choice": make_choice(),
            "results": make_results(tasks, [list(map(str, group)) for group in grouping.groups], seeds=seeds),
            "typology": make_typology(tasks),
            "classes": {task: f"class {place % 3}" for place, task in enumerate(tasks)},
            "title": "A title",
            "notes": ["A note."],
            "commands": ["gradsim similarity --data here --out run"],
        }

    return arguments


@pytest.fixture(scope="session")
def similarity() -> Callable[..., Similarity]:
    """A `Similarity` with samples; see `make_similarity`."""
    return make_similarity


@pytest.fixture(scope="session")
def results() -> Callable[..., Results]:
    """A `Results`; see `make_results`."""
    return make_results


@pytest.fixture(scope="session")
def choice() -> Callable[..., dict[str, Any]]:
    """The dict of a choice; see `make_choice`."""
    return make_choice


@pytest.fixture(scope="session")
def hostile() -> list[str]:
    """Names that would break a page which does not escape them."""
    return HOSTILE


@dataclass
class Seen(HTMLParser):
    """A page as html.parser reads it: its elements with their attributes, its text by element, its tag errors."""

    elements: list[tuple[str, dict[str, str]]] = field(default_factory=list)
    texts: list[tuple[str, str]] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, {key: value or "" for key, value in attrs}))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, {key: value or "" for key, value in attrs}))

    def handle_endtag(self, tag: str) -> None:
        if tag in VOID:
            return
        if not self.open or self.open[-1] != tag:
            self.wrong.append(f"</{tag}> closes {self.open[-1:]}")
        else:
            self.open.pop()

    def handle_data(self, data: str) -> None:
        self.texts.append((self.open[-1] if self.open else "", data))

    def all(self, tag: str) -> list[dict[str, str]]:
        """The attributes of every element with this tag."""
        return [attributes for name, attributes in self.elements if name == tag]

    def words(self, tag: str | None = None) -> str:
        """The text of all elements with this tag, or all that a reader sees."""
        return " ".join(" ".join(text for at, text in self.texts if (at == tag if tag else at != "style")).split())


def read(page: Path) -> Seen:
    """Parse a page."""
    seen = Seen()
    seen.feed(page.read_text(encoding="utf-8"))
    seen.close()
    return seen


@pytest.fixture(scope="session")
def parse() -> Callable[[Path], Seen]:
    """Parse a page."""
    return read


@dataclass(frozen=True)
class Told:
    """What a page would hold, without the drawing: its sections, its paragraphs, the rows of its tables."""

    summary: str
    sections: list[str]
    pictures: list[str]
    words: str
    tables: dict[str, list[list[str]]]


@pytest.fixture(scope="session")
def tell() -> Callable[..., Told]:
    """`write_report` without the page, for what is said: drawing is nearly all of its time."""

    def told(**given: Any) -> Told:
        nothing = dict.fromkeys(("similarity", "grouping", "choice", "results", "typology", "groups"))
        summary, sections = contents(**{**nothing, "classes": {}, **given})
        blocks = [block for section in sections for block in section.blocks]
        return Told(
            summary=" ".join(sentence for sentences in summary.values() for sentence in sentences),
            sections=[section.name for section in sections],
            pictures=[block.name for block in blocks if isinstance(block, Picture)],
            words=" ".join(block for block in blocks if isinstance(block, str)),
            tables={block.name: [list(row) for row in block.rows] for block in blocks if isinstance(block, Table)},
        )

    return told


@dataclass(frozen=True)
class Pages:
    """Two pages with everything on them: one with plain names and its figures, one with hostile names."""

    plain: Path
    figures: Path
    arguments: dict[str, Any]
    hostile: Path


@pytest.fixture(scope="session")
def pages(tmp_path_factory: pytest.TempPathFactory, build: Callable[..., dict[str, Any]]) -> Pages:
    """Written once for all tests."""
    folder = tmp_path_factory.mktemp("pages")
    arguments = build([f"task{place}" for place in range(8)])
    plain = write_report(folder / "plain.html", **arguments, figures=folder / "figures")
    evil = build(HOSTILE)
    evil |= {"title": HOSTILE[0], "notes": HOSTILE, "commands": HOSTILE}
    evil["classes"] = {task: f"<u>{task}" for task in HOSTILE}
    evil["similarity"].metadata.update({"<i>": "<img src=x onerror=alert(3)>", "model": "<b>model</b>"})
    evil["choice"]["reason"] = "</p><script>alert(4)</script>"
    evil["typology"]["sim"]["<em>feature</em>"] = evil["typology"]["sim"].pop("noise")
    return Pages(plain, folder / "figures", arguments, write_report(folder / "hostile.html", **evil))


def _browser_path() -> str | None:
    names = ("chromium", "chromium-browser", "google-chrome", "chrome")
    return os.environ.get("GRADSIM_BROWSER") or next(filter(None, map(shutil.which, names)), None)


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    """A headless Chromium that is there already; skips without one, unless GRADSIM_BROWSER_REQUIRED=1."""
    path = _browser_path()
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        path, sync_playwright = None, None
    if path is None:
        reason = "no headless browser: needs playwright, and Chromium on the PATH or in GRADSIM_BROWSER"
        if os.environ.get("GRADSIM_BROWSER_REQUIRED") == "1":
            pytest.fail(reason)
        pytest.skip(reason)
    quiet = ["--disable-gpu", "--no-first-run", "--disable-background-networking", "--disable-component-update"]
    with sync_playwright() as driver:
        started = driver.chromium.launch(
            executable_path=path, args=["--headless", "--no-sandbox", "--disable-sync", *quiet]
        )
        yield started
        started.close()
