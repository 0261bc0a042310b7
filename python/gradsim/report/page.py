"""`write_report`: everything about one comparison on one self-contained HTML page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gradsim.atomic import write_whole
from gradsim.report.words import clean

if TYPE_CHECKING:
    from gradsim.grouping import TaskGrouping
    from gradsim.similarity import Similarity
    from gradsim.training import Results

__all__ = ["write_report"]


def write_report(
    path: str | PathLike[str],
    *,
    similarity: Similarity | None = None,
    grouping: TaskGrouping | None = None,
    choice: Any = None,
    results: Results | None = None,
    typology: Mapping[str, Any] | None = None,
    classes: Mapping[str, str] | None = None,
    title: str | None = None,
    notes: Sequence[str] = (),
    commands: Sequence[str] = (),
    groups: Sequence[str] | None = None,
    figures: str | PathLike[str] | None = None,
) -> Path:
    """Write one HTML page with a section for whatever is given, and return its path.

    The page needs nothing else: figures are inline SVG, there is no script, nothing is fetched. It is readable on a
    phone, by a screen reader and on paper.

    Args:
        path: the file; the folder must be there. Written whole or not at all.
        similarity: heat map, dendrogram, curves over groups of parameters and over training steps.
        grouping: the table of the groups. Numbered tasks are those of `similarity`.
        choice: a `GroupingChoice` or the dict of one: scores and stability for every number of groups.
        results: arms and tasks of a training comparison; with transfer and `similarity`, their correlation.
        typology: as `read_typology` returns it; its correlation with `similarity`.
        classes: task -> class, such as a language's family: colours, and the agreement of the groups with them.
        title: the heading.
        notes: sentences for the summary, each a paragraph.
        commands: the command lines that made it.
        groups: the groups of parameters to average over; None for all.
        figures: a folder, made if it is not there: every figure as NAME.png, and NAME.json with the numbers it shows.

    Raises `ValueError` or `TypeError` for nothing to report, an unknown group of parameters, a grouping of other tasks
    than the similarity's, a typology of other languages and anything malformed; `ImportError` where jinja2, matplotlib
    or scipy is not installed; all of these before anything is written. `OSError` where a file cannot be written: the
    page comes last.
    """
    if similarity is None and grouping is None and choice is None and results is None:
        raise ValueError("there is nothing to report: give a similarity, a grouping, a choice or results")
    if typology is not None and similarity is None:
        raise ValueError("typology is held against a similarity, and there is none")
    if isinstance(notes, str) or isinstance(commands, str):
        raise TypeError("notes and commands must be lists of strings, not a string")
    try:
        import jinja2  # noqa: F401 (only to see whether they are there)
        import matplotlib  # noqa: F401
        import scipy  # noqa: F401
    except ImportError as error:
        raise ImportError(
            f"the report needs {error.name}: pip install 'gradsim-kernels[report]'", name=error.name
        ) from error
    from gradsim.report.contents import contents
    from gradsim.report.render import inline_svg, pictures, write_picture

    summary, sections = contents(
        similarity=similarity,
        grouping=grouping,
        choice=choice,
        results=results,
        typology=typology,
        classes=dict(classes or {}),
        groups=groups,
    )
    heading = clean(title or "Which tasks to train together")
    html = _template().render(
        title=heading,
        summary=summary | ({"Notes": [clean(note) for note in notes]} if notes else {}),
        sections=sections,
        commands=[clean(command) for command in commands],
        svg={picture.name: inline_svg(picture) for picture in pictures(sections)},
    )
    path = Path(path)
    if figures is not None:
        folder = Path(figures)
        folder.mkdir(parents=True, exist_ok=True)
        for picture in pictures(sections):
            write_picture(picture, folder)
    write_whole(path, html.encode())
    return path


def _template() -> Any:
    from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape

    environment = Environment(
        loader=PackageLoader("gradsim.report", ""),
        autoescape=select_autoescape(default=True, default_for_string=True),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("page.html")
