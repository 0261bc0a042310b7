"""The rows of one file of examples: TSV, CSV or JSONL."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from gradsim.data.columns import TAGS, WORDS, choose
from gradsim.data.rows import Row

__all__ = ["SUFFIXES", "read_rows"]

SUFFIXES = (".tsv", ".csv", ".jsonl")


def read_rows(path: Path, where: str, *, text_column: str | None, label_column: str | None) -> list[Row]:
    """The examples of a file, by its suffix; an empty file has none.

    `where` is what messages call the file. The bytes are UTF-8, with or without a byte order mark; lines end in LF or
    CRLF; empty lines are skipped.

    - `.tsv`: a header, then a row a line. There is no quoting: what surplus tabs a row has belong to its text, so that
      a row of text and label is split at its last tab, and one of label and text at its first.
    - `.csv`: a header, then rows as Python's csv module reads them, with quotes.
    - `.jsonl`: an object a line. A label that is a string or an int classifies the text; words with a list of tags
      are tagged; without a label it is plain text.

    Raises `ValueError` with the file and the line, and `OSError` for a file that cannot be read.
    """
    text = _decode(path.read_bytes(), where)
    if path.suffix == ".jsonl":
        return list(_jsonl(text, where, text_column, label_column))
    read = _tsv if path.suffix == ".tsv" else _csv
    return list(read(text, where, text_column, label_column))


def _decode(data: bytes, where: str) -> str:
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        # counted in what was handed over: the codec may have taken the mark off before it counted
        line = error.object[: error.start].count(b"\n") + 1
        raise ValueError(f"{where}, line {line}: not UTF-8 (byte 0x{error.object[error.start]:02x})") from None


def _lines(text: str) -> Iterator[tuple[int, str]]:
    """The lines that hold something, with their numbers; a tweet may hold any of the breaks splitlines() knows."""
    for number, line in enumerate(text.split("\n"), start=1):
        line = line.removesuffix("\r")
        if line.strip():
            yield number, line


def _header(names: list[str], where: str) -> list[str]:
    columns = [name.strip() for name in names]
    doubled = [name for name in columns if columns.count(name) > 1]
    if doubled:
        raise ValueError(f"{where}, line 1: the column {doubled[0]!r} is there twice")
    return columns


def _tsv(text: str, where: str, text_column: str | None, label_column: str | None) -> Iterator[Row]:
    lines = _lines(text)
    _, head = next(lines, (0, ""))
    if not head:
        return
    columns = _header(head.split("\t"), where)
    chosen, label = choose(columns, text_column, label_column, where=where)
    before = columns.index(chosen)
    after = len(columns) - 1 - before
    for number, line in lines:
        fields = line.split("\t")
        if len(fields) < len(columns):
            found = f"{len(fields)} of {len(columns)} columns"
            raise ValueError(f"{where}, line {number}: {found} ({', '.join(columns)}, with a tab between)")
        end = len(fields) - after
        row = [*fields[:before], "\t".join(fields[before:end]), *fields[end:]]
        yield Row(number, row[before], None if label is None else _label(row[columns.index(label)], where, number))


def _csv(text: str, where: str, text_column: str | None, label_column: str | None) -> Iterator[Row]:
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    try:
        rows = [(reader.line_num, row) for row in reader if row]
    except csv.Error as error:
        raise ValueError(f"{where}, line {reader.line_num}: {error}") from None
    if not rows:
        return
    columns = _header(rows[0][1], where)
    chosen, label = choose(columns, text_column, label_column, where=where)
    for number, row in rows[1:]:
        if len(row) != len(columns):
            raise ValueError(f"{where}, line {number}: {len(row)} columns, and the header has {len(columns)}")
        value = None if label is None else _label(row[columns.index(label)], where, number)
        yield Row(number, row[columns.index(chosen)], value)


def _jsonl(text: str, where: str, text_column: str | None, label_column: str | None) -> Iterator[Row]:
    for number, line in _lines(text):
        here = f"{where}, line {number}"
        try:
            record = json.loads(line)
        except ValueError as error:
            raise ValueError(f"{here}: not JSON ({error})") from None
        if not isinstance(record, dict):
            raise ValueError(f"{here}: must be a JSON object, not {type(record).__name__}")
        chosen, label = choose(list(record), text_column, label_column, where=here, others=True)
        yield row_of(number, record[chosen], None if label is None else record[label], here)


def row_of(number: int, text: Any, label: Any, here: str) -> Row:
    """A row out of a value of JSON for the text (or words) and for the label (or tags)."""
    if isinstance(text, list):
        if not all(isinstance(word, str) for word in text):
            raise ValueError(f"{here}: the words must be strings")
        if not isinstance(label, list) or len(label) != len(text):
            found = f"{len(label)} tags" if isinstance(label, list) else "no list of tags"
            raise ValueError(f"{here}: {len(text)} words and {found} ({' or '.join(TAGS)})")
        return Row(number, tuple(text), tuple(_name(tag, here, "tag") for tag in label))
    if not isinstance(text, str):
        raise ValueError(
            f"{here}: the text must be a string, or a list of words ({' or '.join(WORDS)}), not {type(text).__name__}"
        )
    return Row(number, text, None if label is None else _name(label, here, "label"))


def _name(value: Any, here: str, what: str) -> str:
    if isinstance(value, bool) or not isinstance(value, str | int):
        raise ValueError(f"{here}: the {what} must be a string or an int, not {type(value).__name__}")
    return _filled(str(value), here, what)


def _label(value: str, where: str, number: int) -> str:
    return _filled(value, f"{where}, line {number}", "label")


def _filled(value: str, here: str, what: str) -> str:
    name = value.strip()
    if not name:
        raise ValueError(f"{here}: the {what} is empty")
    return name
