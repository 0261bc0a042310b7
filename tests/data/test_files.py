"""One file of examples at a time: what of it is text, what is a label, and what is refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gradsim.data import Example, TaskSet, read_folder

Write = Callable[[dict[str, "str | bytes"]], Path]


def rows(tasks: TaskSet, task: str = "aa", split: str = "train") -> list[tuple[object, object]]:
    """(text, name of the label) of each example."""
    examples: tuple[Example, ...] = getattr(tasks.tasks[task], split)

    def named(label: object) -> object:
        if isinstance(label, tuple):
            return tuple(tasks.labels[k] for k in label)
        return tasks.labels[label] if isinstance(label, int) else None

    return [(example.text, named(example.label)) for example in examples]


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("text\tlabel\nhello\tgood\nbye\tbad\n", [("hello", "good"), ("bye", "bad")]),
        ("tweet\tlabel\nhello\tgood", [("hello", "good")]),
        ("words of the day\tlabel\nhello\tgood\n", [("hello", "good")]),
        # a row is split at its last tab, or where the label comes first at its first
        ("text\tlabel\na\tb\t\tc\tgood\n", [("a\tb\t\tc", "good")]),
        ("label\ttext\ngood\ta\tb\t\n", [("a\tb\t", "good")]),
        ("ID\ttweet\tlabel\nor_1\tSo\twhat\tgood\n", [("So\twhat", "good")]),
        ("label\ttext\tID\ngood\tSo\twhat\tor_1\n", [("So\twhat", "good")]),
        # quotes are letters like any other
        ('text\tlabel\n"so\tgood\n""x""\tbad\n', [('"so', "good"), ('""x""', "bad")]),
        # byte order mark, CRLF, empty lines, blanks around names
        (b"\xef\xbb\xbftext\tlabel\r\nhello\tgood\r\n\r\nbye\tbad\r\n", [("hello", "good"), ("bye", "bad")]),
        ("text\t label \n  a b \t good \n", [("  a b ", "good")]),
        ("label\ttext\r\ngood\ta b\r\n", [("a b", "good")]),
        # breaks that str.splitlines() knows, inside a tweet
        ("text\tlabel\na\u2028b\x0bc\x85d\x1ce\tgood\n", [("a\u2028b\x0bc\x85d\x1ce", "good")]),
        ("text\tlabel\na\rb\tgood\n", [("a\rb", "good")]),
        ("text\tlabel\n\tgood\n", [("", "good")]),
        ("text\nhello\tyou\nbye\n", [("hello\tyou", None), ("bye", None)]),
    ],
)
def test_tsv(write: Write, content: str | bytes, expected: list[tuple[str, str | None]]) -> None:
    assert rows(read_folder(write({"aa/train.tsv": content}))) == expected


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=50)
@given(
    st.lists(
        st.tuples(
            st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\n\r\ufeff")).filter(str.strip),
            st.sampled_from(["x", "y"]),
        ),
        min_size=1,
    )
)
def test_any_text_in_a_tsv_is_kept(tmp_path: Path, examples: list[tuple[str, str]]) -> None:
    folder = tmp_path / "aa"
    folder.mkdir(exist_ok=True)
    lines = ["text\tlabel", *(f"{text}\t{label}" for text, label in examples)]
    (folder / "train.tsv").write_bytes("\n".join(lines).encode())
    assert rows(read_folder(tmp_path)) == examples


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ('text,label\n"a, ""b""\nc",good\nd,bad\n', [('a, "b"\nc', "good"), ("d", "bad")]),
        (b"\xef\xbb\xbflabel,text\r\ngood,a\r\n", [("a", "good")]),
        ("id,tweet,label\n1,a,good\n\n", [("a", "good")]),
        ("text\na\n", [("a", None)]),
    ],
)
def test_csv(write: Write, content: str | bytes, expected: list[tuple[str, str | None]]) -> None:
    assert rows(read_folder(write({"aa/train.csv": content}))) == expected


@pytest.mark.parametrize(
    ("records", "expected"),
    [
        ([{"text": "a", "label": "good"}, {"label": "bad", "text": "b"}], [("a", "good"), ("b", "bad")]),
        ([{"tweet": "a", "label": 10}, {"tweet": "b", "label": 9}], [("a", "10"), ("b", "9")]),
        ([{"text": "a", "url": "x"}, {"text": "b"}], [("a", None), ("b", None)]),
        ([{"text": "a\tb\u2028c", "label": "good"}], [("a\tb\u2028c", "good")]),
        (
            [{"tokens": ["I", "saw", "Rome"], "ner_tags": ["O", "O", "LOC"]}, {"tokens": [], "ner_tags": []}],
            [(("I", "saw", "Rome"), ("O", "O", "LOC")), ((), ())],
        ),
        ([{"words": ["a"], "tags": [3], "label": "no"}], [(("a",), ("3",))]),
    ],
)
def test_jsonl(write: Write, records: list[dict[str, object]], expected: list[tuple[object, object]]) -> None:
    lines = "\n".join(json.dumps(record, ensure_ascii=False) for record in records)
    assert rows(read_folder(write({"aa/train.jsonl": lines}))) == expected


def test_columns_that_are_named(write: Write) -> None:
    folder = write({"aa/train.tsv": "id\tbody\tmood\ttext\n1\tso\twell\tgood\tT\n"})
    tasks = read_folder(folder, text_column="body", label_column="mood")
    assert rows(tasks) == [("so\twell", "good")]


HEAD = "text\tlabel\n"


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("train.tsv", HEAD + "a\tgood\nb\n", r"aa/train\.tsv, line 3: 1 of 2 columns \(text, label"),
        ("train.tsv", HEAD + "a\tgood\n\nb\t \n", r"aa/train\.tsv, line 4: the label is empty"),
        ("train.tsv", HEAD.encode() + b"a\tgood\nb\xff\tgood\n", r"aa/train\.tsv, line 3: not UTF-8 \(byte 0xff\)"),
        ("train.tsv", b"\xef\xbb\xbf" + HEAD.encode() + b"\xc3\tgood", r"line 2: not UTF-8 \(byte 0xc3\)"),
        ("train.tsv", "text\ttext\tlabel\n", r"aa/train\.tsv, line 1: the column 'text' is there twice"),
        ("train.tsv", "a\tb\tlabel\n", r"aa/train\.tsv: which column is the text\? The columns are 'a', 'b', 'label'"),
        ("train.tsv", "text\tmood\nx\ty\n", r"aa/train\.tsv: which column is the label\? .*say so with label_column"),
        ("dev.csv", "text,label\na,good,x\n", r"aa/dev\.csv, line 2: 3 columns, and the header has 2"),
        ("dev.csv", 'text,label\na,good\nb,"bad\n', r"aa/dev\.csv, line 3: unexpected end of data"),
        ("dev.csv", "text,label\na,\n", r"aa/dev\.csv, line 2: the label is empty"),
        ("test.jsonl", '{"text": "a", "label": "x"}\n{"text"', r"aa/test\.jsonl, line 2: not JSON"),
        ("test.jsonl", "[1]", r"aa/test\.jsonl, line 1: must be a JSON object, not list"),
        ("test.jsonl", '{"text": "a", "label": 0.5}', r"line 1: the label must be a string or an int, not float"),
        ("test.jsonl", '{"text": "a", "label": true}', r"line 1: the label must be a string or an int, not bool"),
        ("test.jsonl", '{"text": 3, "label": "x"}', r"line 1: the text must be a string, or a list of words"),
        ("test.jsonl", '{"tokens": ["a", "b"], "tags": ["x"]}', r"line 1: 2 words and 1 tags"),
        ("test.jsonl", '{"tokens": ["a"], "tags": "x"}', r"line 1: 1 words and no list of tags"),
        ("test.jsonl", '{"tokens": ["a"]}', r"line 1: 1 words and no list of tags"),
        ("test.jsonl", '{"tokens": [1], "tags": ["x"]}', r"line 1: the words must be strings"),
        (
            "test.jsonl",
            '{"tokens": ["a"], "tags": [null]}',
            r"line 1: the tag must be a string or an int, not NoneType",
        ),
        ("test.jsonl", '{"a": "x", "b": "y"}', r"line 1: which column is the text\?"),
    ],
)
def test_what_does_not_fit_is_refused_with_its_place(
    write: Write, name: str, content: str | bytes, message: str
) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        read_folder(write({f"aa/{name}": content}))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("argument", "column"), [("text_column", "body"), ("label_column", "mood")])
def test_an_unknown_column_is_refused(write: Write, argument: str, column: str) -> None:
    folder = write({"aa/train.tsv": HEAD + "a\tgood\n"})
    with pytest.raises(
        ValueError, match=rf"aa/train\.tsv: there is no column '{column}' \({argument}\); the columns are"
    ):
        read_folder(folder, **{argument: column})


def test_one_column_cannot_be_both(write: Write) -> None:
    folder = write({"aa/train.tsv": HEAD + "a\tgood\n"})
    with pytest.raises(ValueError, match="text_column and label_column are both 'text'"):
        read_folder(folder, text_column="text", label_column="text")
