"""Which column holds the text and which the label."""

from __future__ import annotations

from collections.abc import Collection, Sequence

__all__ = ["choose"]

TEXTS = ("text", "tweet")
WORDS = ("tokens", "words")
LABELS = ("label",)
TAGS = ("tags", "ner_tags", "pos_tags")


def choose(
    columns: Sequence[str], text_column: str | None, label_column: str | None, *, where: str, others: bool = False
) -> tuple[str, str | None]:
    """The names of the text column and of the label column, None where there are no labels.

    Without being told, the text is `text`, `tweet`, `tokens`, `words`, or the only column that is not the label; the
    label is `label`, or beside words `tags`, `ner_tags` or `pos_tags`. Without a label column the text must be the
    only column, unless `others` may stand beside it: else a label of another name would be overlooked.

    Raises `ValueError` that begins with `where` for a column that is not there, or where several would do.
    """
    listed = ", ".join(map(repr, columns)) or "none"
    for argument, column in (("text_column", text_column), ("label_column", label_column)):
        if column is not None and column not in columns:
            raise ValueError(f"{where}: there is no column {column!r} ({argument}); the columns are {listed}")
    if text_column is not None and text_column == label_column:
        raise ValueError(f"{where}: text_column and label_column are both {text_column!r}")
    text, label = text_column, label_column
    if text is None:
        text = _first([name for name in (*TEXTS, *WORDS) if name != label], columns)
    if label is None:
        label = _first([name for name in (LABELS if text not in WORDS else (*TAGS, *LABELS)) if name != text], columns)
    if text is None:
        rest = [column for column in columns if column != label]
        if len(rest) != 1:
            raise ValueError(f"{where}: which column is the text? The columns are {listed}; say so with text_column")
        text = rest[0]
    if label is None and not others and len(columns) > 1:
        raise ValueError(f"{where}: which column is the label? The columns are {listed}; say so with label_column")
    return text, label


def _first(names: Collection[str], columns: Sequence[str]) -> str | None:
    return next((name for name in names if name in columns), None)
