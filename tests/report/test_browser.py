"""The pages in a real browser: nothing fetched, nothing run, nothing that a phone must scroll sideways for."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

WIDTHS = (360, 768, 1280)


class Tab:
    """A tab that notes every request but that for the page itself, every message of the console and every dialog."""

    def __init__(self, browser: Any, address: str, width: int = 1280) -> None:
        self.page = browser.new_page(viewport={"width": width, "height": 800})
        self.requests: list[str] = []
        self.complaints: list[str] = []
        self.page.on("console", lambda message: self.complaints.append(message.text))
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.on("dialog", lambda dialog: (self.complaints.append(dialog.message), dialog.dismiss()))

        def route(call: Any) -> None:
            if call.request.url == address:
                call.continue_()
            else:
                self.requests.append(call.request.url)
                call.abort()

        self.page.route("**/*", route)
        self.page.goto(address)


@pytest.fixture
def open_page(browser: Any) -> Iterator[Callable[..., Tab]]:
    """Open a file in a tab that is closed after the test."""
    tabs: list[Tab] = []

    def opened(path: Path, width: int = 1280) -> Tab:
        tabs.append(Tab(browser, path.as_uri(), width))
        return tabs[-1]

    yield opened
    for tab in tabs:
        tab.page.close()


def test_the_tab_notices(open_page: Callable[..., Tab], tmp_path: Path) -> None:
    """The tests below stand on this."""
    page = tmp_path / "bad.html"
    page.write_text(
        "<!DOCTYPE html><title>x</title><link rel=stylesheet href='http://example.invalid/a.css'>"
        "<script>console.log('said'); alert('asked'); throw new Error('thrown')</script>"
    )
    tab = open_page(page)
    assert tab.requests == ["http://example.invalid/a.css"]
    assert {"said", "asked", "thrown"} <= set(tab.complaints)


@pytest.mark.parametrize("which", ["plain", "hostile"])
def test_opens_with_no_request_and_no_complaint(open_page: Callable[..., Tab], pages: Any, which: str) -> None:
    tab = open_page(getattr(pages, which))
    assert tab.requests == []
    assert tab.complaints == []
    assert tab.page.title() == ("A title" if which == "plain" else "<script>alert(1)</script>")
    headings = [heading.inner_text() for heading in tab.page.query_selector_all("main h2")]
    assert headings == [
        "Similarity of the tasks",
        "Layer by layer",
        "Along training",
        "The groups",
        "How many groups",
        "Training the groups",
        "Similarity and measured transfer",
        "Similarity and typology",
        "How it was made",
        "How to cite",
    ]


@pytest.mark.parametrize("which", ["plain", "hostile"])
def test_fits_every_width(open_page: Callable[..., Tab], pages: Any, which: str) -> None:
    tab = open_page(getattr(pages, which))
    tab.page.eval_on_selector_all("details", "all => all.forEach(one => one.open = true)")
    for width in WIDTHS:
        tab.page.set_viewport_size({"width": width, "height": 800})
        assert tab.page.evaluate("document.scrollingElement.scrollWidth") <= width
        # what is wider than the screen scrolls inside its own box, which the keyboard can reach
        wide = tab.page.evaluate(
            "[...document.querySelectorAll('svg, table')].filter(x => x.getBoundingClientRect().right > innerWidth)"
            ".map(x => { const box = x.closest('.scroll'); return box && box.tabIndex === 0 && "
            "getComputedStyle(box).overflowX === 'auto' && box.getBoundingClientRect().right <= innerWidth })"
        )
        assert all(wide)
        assert bool(wide) or width > 360
        # names of a row stand still beside the numbers: a long one is broken, so that it leaves them room
        names = tab.page.evaluate(
            "[...document.querySelectorAll('tbody th')].map(x => [x.offsetWidth, x.scrollWidth - x.clientWidth])"
        )
        assert names and all(wide < 0.55 * width and over <= 1 for wide, over in names)


def test_text_on_a_phone_is_large_enough(open_page: Callable[..., Tab], pages: Any) -> None:
    tab = open_page(pages.plain, width=360)
    sizes = tab.page.evaluate(
        "[...document.querySelectorAll('body *')].filter(x => !x.closest('svg') && x.innerText)"
        ".map(x => [parseFloat(getComputedStyle(x).fontSize), x.tagName])"
    )
    assert min(sizes)[0] >= 11
    # smaller inside figures, which can be zoomed and hold a description, but no dust
    drawn = tab.page.evaluate(
        "[...document.querySelectorAll('svg text')].map(x => parseFloat(getComputedStyle(x).fontSize)"
        " * x.ownerSVGElement.getBoundingClientRect().width / x.ownerSVGElement.viewBox.baseVal.width)"
    )
    assert len(drawn) > 100 and min(drawn) >= 8


def test_figures_have_a_size_and_an_accessible_name(open_page: Callable[..., Tab], pages: Any) -> None:
    tab = open_page(pages.plain)
    names = [
        "Heat map, in the order of the dendrogram",
        "Dendrogram (average linkage)",
        "Similarity by group of parameters",
        "Similarity along training",
        "Score and stability by number of groups",
        "Every arm: dots are seeds (3), bars their mean",
        "Pairs of tasks: similarity against transfer",
        "Pairs of tasks: typology against similarity",
    ]
    figures = tab.page.query_selector_all("svg[role=img]")
    assert len(figures) == len(tab.page.query_selector_all("svg, img")) == len(names)
    for figure in figures:
        box = figure.bounding_box()
        assert box["width"] > 200 and box["height"] > 80
    for name in names:  # as the browser tells a screen reader: title and description
        assert tab.page.get_by_role("img", name=name).count() == 1


def test_a_figure_shows_what_was_measured(open_page: Callable[..., Tab], pages: Any) -> None:
    """Not only an element of some size: the heat map has dark pixels, and the names of all tasks as text."""
    tab = open_page(pages.plain)
    texts = tab.page.eval_on_selector_all("svg[aria-labelledby^=heatmap] text", "all => all.map(x => x.textContent)")
    assert {f"task{place}" for place in range(8)} <= set(texts)
    image = tab.page.eval_on_selector("svg[aria-labelledby^=heatmap] image", "x => x.getBoundingClientRect().width")
    assert image > 200


def test_hostile_names_are_text(open_page: Callable[..., Tab], pages: Any, hostile: list[str]) -> None:
    tab = open_page(pages.hostile)
    assert tab.page.query_selector_all("script, img, em, u, b, i") == []
    assert tab.page.evaluate("[...document.querySelectorAll('*')].every(x => !x.hasAttribute('onload'))")
    shown = tab.page.eval_on_selector_all("#tasks-table-caption", "all => all[0].closest('table').innerText")
    for name in hostile:
        assert name.replace("\t", "\ufffd").replace("\x1b", "\ufffd") in shown.replace("\u2068", "").replace(
            "\u2069", ""
        )
    assert "\u2068עברית\u2069" in shown  # isolated: a right-to-left name turns nothing around it


def test_prints(open_page: Callable[..., Tab], pages: Any) -> None:
    tab = open_page(pages.plain, width=700)
    tab.page.emulate_media(media="print")
    assert not tab.page.is_visible("nav")
    assert tab.page.is_visible("h1")
    for box in tab.page.evaluate("[...document.querySelectorAll('svg')].map(x => x.getBoundingClientRect().right)"):
        assert box <= 700
    assert tab.page.evaluate("getComputedStyle(document.querySelector('.scroll')).overflowX") == "visible"
    assert len(tab.page.pdf(format="A4")) > 20_000


def test_links_lead_to_sections(open_page: Callable[..., Tab], pages: Any) -> None:
    tab = open_page(pages.plain)
    targets = tab.page.eval_on_selector_all("nav a", "all => all.map(a => a.getAttribute('href'))")
    assert len(targets) == 10
    for target in targets:
        assert tab.page.query_selector(f"section{target} > h2") is not None
