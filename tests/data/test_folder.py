"""Folders of tasks: which splits, which tasks, which labels in which order."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path

import pytest

from gradsim.data import Example, TaskData, read_folder

Write = Callable[[dict[str, "str | bytes"]], Path]
HEAD = "text\tlabel\n"


def test_splits_and_their_other_names(write: Write) -> None:
    folder = write(
        {
            "b/train.tsv": HEAD + "one\tx\n",
            "b/validation.csv": "text,label\ntwo,y\n",
            "b/test.jsonl": '{"text": "three", "label": "x"}',
            "a/valid.tsv": HEAD + "four\ty\n",
            "a/dev.txt": "no",
            "README.txt": "no task",
            ".cache/train.tsv": "no task",
        }
    )
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        tasks = read_folder(folder)
    assert tasks.names == ["a", "b"]
    assert (tasks.problem, tasks.labels, tasks.source) == ("classification", ("x", "y"), str(folder))
    assert tasks.tasks["a"] == TaskData((), (Example("four", 1),), ())
    assert tasks.tasks["b"] == TaskData((Example("one", 0),), (Example("two", 1),), (Example("three", 0),))
    assert tasks.trainable().names == ["b"]


@pytest.mark.parametrize("content", ["", HEAD, HEAD.strip(), "\n", b"\xef\xbb\xbf"])
def test_an_empty_file_is_an_empty_split(write: Write, content: str | bytes) -> None:
    tasks = read_folder(write({"a/train.tsv": content, "a/test.tsv": HEAD + "one\tx\n"}))
    assert tasks.tasks["a"] == TaskData(test=(Example("one", 0),))


def test_a_folder_without_splits_is_ignored_with_a_warning(write: Write) -> None:
    folder = write({"a/train.tsv": HEAD + "one\tx\n", "notes/todo.txt": "nothing"})
    with pytest.warns(UserWarning, match=r"notes is ignored: it holds no \{train,dev,test\}\.\{tsv,csv,jsonl\}"):
        assert read_folder(folder).names == ["a"]


def test_several_folders_are_one_task_each(write: Write) -> None:
    folder = write({"x/hau/train.tsv": HEAD + "one\tp\n", "y/amh/train.jsonl": '{"text": "two", "label": "q"}'})
    tasks = read_folder([folder / "x" / "hau", str(folder / "y" / "amh")])
    assert tasks.names == ["hau", "amh"]
    assert tasks.labels == ("p", "q")


@pytest.mark.parametrize(
    ("found", "order"),
    [
        (["good", "bad", "neutral"], ("bad", "good", "neutral")),
        (["10", "9", "-1", "0"], ("-1", "0", "9", "10")),
        (["10", "9", "x"], ("10", "9", "x")),
    ],
)
def test_labels_have_one_order_for_all_tasks(write: Write, found: list[str], order: tuple[str, ...]) -> None:
    files = {f"t{k}/train.tsv": HEAD + f"text {label}\t{label}\n" for k, label in enumerate(found)}
    tasks = read_folder(write(dict(files)))
    assert tasks.labels == order
    assert [tasks.labels[tasks.tasks[f"t{k}"].train[0].label] for k in range(len(found))] == found  # type: ignore[index]


def test_labels_that_are_given(write: Write) -> None:
    folder = write({"a/train.tsv": HEAD + "one\tgood\ntwo\tbad\n"})
    tasks = read_folder(folder, labels=["good", "so-so", "bad"])
    assert tasks.labels == ("good", "so-so", "bad")
    assert [example.label for example in tasks.tasks["a"].train] == [0, 2]
    with pytest.raises(ValueError, match=r"a/train\.tsv, line 3: the label 'bad' is none of 'good', 'so-so'"):
        read_folder(folder, labels=["good", "so-so"])
    with pytest.raises(ValueError, match="labels must be one or more different names"):
        read_folder(folder, labels=["good", "good"])
    with pytest.raises(TypeError, match="labels must be a list of names"):
        read_folder(folder, labels="good")


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"README.txt": "x"}, r"holds no task: no folder in it holds a \{train,dev,test\}"),
        ({"train.tsv": HEAD + "a\tx\n"}, r"train\.tsv lies in it directly: a task is a folder inside it"),
        ({"a/train.tsv": HEAD, "a/train.csv": ""}, r"a holds both train\.tsv and train\.csv: which is the train split"),
        ({"a/dev.tsv": HEAD, "a/valid.tsv": HEAD}, r"a holds both dev\.tsv and valid\.tsv: which is the dev split"),
        ({"a/train.tsv": HEAD, "b/test.tsv": ""}, "holds no example"),
        (
            {"a/train.tsv": HEAD + "one\tx\n", "a/test.jsonl": '\n{"text": "two"}'},
            r"a/test\.jsonl, line 2 is a text without a label, but a/train\.tsv, line 2 is a text with a label",
        ),
        (
            {"a/train.tsv": HEAD + "one\tx\n", "b/test.jsonl": '{"tokens": ["two"], "tags": ["x"]}'},
            r"b/test\.jsonl, line 1 is a list of words, but a/train\.tsv, line 2 is a text with a label",
        ),
    ],
)
def test_what_is_no_task_set_is_refused(write: Write, files: dict[str, str | bytes], message: str) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        read_folder(write(files))
    assert "\n" not in str(caught.value)


def test_folders_that_are_not_there(write: Write) -> None:
    folder = write({"file": "", "x/hau/train.tsv": HEAD, "y/hau/train.tsv": HEAD, "empty/x": ""})
    with pytest.raises(ValueError, match=r"there is no folder .*nowhere"):
        read_folder(folder / "nowhere")
    with pytest.raises(ValueError, match="file is no folder"):
        read_folder(folder / "file")
    with pytest.raises(ValueError, match=r"there is no folder .*nowhere"):
        read_folder([folder / "nowhere"])
    with pytest.raises(ValueError, match="two of the folders are called 'hau'"):
        read_folder([folder / "x" / "hau", folder / "y" / "hau"])
    with pytest.raises(ValueError, match=r"empty holds no \{train,dev,test\}"):
        read_folder([folder / "empty"])
    with pytest.raises(ValueError, match="a list of at least one, and is empty"):
        read_folder([])


def test_plain_text_has_no_labels(write: Write) -> None:
    folder = write({"a/train.jsonl": '{"text": "one"}\n{"text": "two"}'})
    tasks = read_folder(folder)
    assert (tasks.problem, tasks.labels) == ("text", ())
    assert tasks.tasks["a"].train == (Example("one"), Example("two"))
    with pytest.raises(ValueError, match=r"labels were given, but .* has none"):
        read_folder(folder, labels=["x"])
