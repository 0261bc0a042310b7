"""Hugging Face datasets with a column that names the task: in memory, saved, and from files."""

from __future__ import annotations

import json
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from gradsim.data import Example, TaskData, read_dataset, read_tasks

datasets = pytest.importorskip("datasets")

ROWS = {"language": ["sw", "am", "sw"], "text": ["one", "two", "three"], "label": ["good", "bad", "good"]}


def table(rows: Mapping[str, object], **features: Any) -> Any:
    """A dataset; the columns that are named have these features."""
    made = datasets.Dataset.from_dict(rows)
    return made.cast(datasets.Features({**made.features, **features}))


@pytest.fixture
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """The libraries ask nobody, instead of asking again and again for half a minute."""
    import huggingface_hub

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)


def test_a_dataset_is_all_for_training() -> None:
    tasks = read_dataset(table(ROWS), task_column="language")
    assert tasks.names == ["am", "sw"]
    assert (tasks.problem, tasks.labels, tasks.source) == ("classification", ("bad", "good"), "the dataset")
    assert tasks.tasks["sw"] == TaskData(train=(Example("one", 1), Example("three", 1)))


def test_splits_of_a_dict() -> None:
    one = {"language": ["am"], "text": ["four"], "label": ["bad"]}
    parts = datasets.DatasetDict(train=table(ROWS), validation=table(one), extra=table(one))
    with pytest.warns(UserWarning, match="the splits extra of the dataset are ignored"):
        tasks = read_dataset(parts, task_column="language")
    assert tasks.tasks["am"] == TaskData((Example("two", 0),), (Example("four", 0),))
    assert tasks.tasks["sw"].dev == tasks.tasks["sw"].test == ()
    plain = {"test": table(one)}
    assert read_dataset(plain, task_column="language").tasks["am"] == TaskData(test=(Example("four", 0),))


def test_class_labels_keep_their_names_and_their_order() -> None:
    names = datasets.ClassLabel(names=["positive", "neutral", "negative"])
    rows = {"lang": [1, 0], "tweet": ["one", "two"], "label": [2, 0]}
    data = table(rows, label=names, lang=datasets.ClassLabel(names=["hau", "yor"]))
    tasks = read_dataset(data, task_column="lang")
    assert tasks.labels == ("positive", "neutral", "negative")
    assert tasks.tasks["yor"].train == (Example("one", 2),)
    assert tasks.tasks["hau"].train == (Example("two", 0),)
    chosen = read_dataset(data, task_column="lang", labels=["negative", "positive"])
    assert chosen.tasks["yor"].train == (Example("one", 0),)


def test_lists_of_class_labels_are_tags() -> None:
    tags = datasets.Sequence(datasets.ClassLabel(names=["O", "LOC"]))
    rows = {"lang": ["sw", "sw"], "tokens": [["I", "saw", "Rome"], []], "ner_tags": [[0, 0, 1], []]}
    tasks = read_dataset(table(rows, ner_tags=tags), task_column="lang")
    assert (tasks.problem, tasks.labels) == ("tagging", ("O", "LOC"))
    assert tasks.tasks["sw"].train == (Example(("I", "saw", "Rome"), (0, 0, 1)), Example((), ()))


def test_columns_that_are_named_and_plain_text() -> None:
    rows = {"l": ["a"], "body": ["x"], "mood": [3], "image": [b"big"]}
    tasks = read_dataset(table(rows), task_column="l", text_column="body", label_column="mood")
    assert tasks.labels == ("3",)
    assert tasks.tasks["a"].train == (Example("x", 0),)
    text = read_dataset(table({"l": ["a"], "text": ["x"], "url": ["u"]}), task_column="l")
    assert (text.problem, text.tasks["a"].train) == ("text", (Example("x"),))


def test_a_format_that_was_set_does_not_matter() -> None:
    data = table({"language": ["a", "a"], "text": ["x", "y"], "label": [0, 1]}).with_format("numpy")
    assert read_dataset(data, task_column="language").tasks["a"].train == (Example("x", 0), Example("y", 1))


def test_saved_datasets(tmp_path: Path) -> None:
    datasets.disable_progress_bars()
    data = table(ROWS)
    data.save_to_disk(tmp_path / "one")
    datasets.DatasetDict(train=data, test=data).save_to_disk(tmp_path / "both")
    expected = read_dataset(data, task_column="language").tasks["sw"].train
    for name, test in (("one", ()), ("both", expected)):
        for tasks in (
            read_dataset(tmp_path / name, task_column="language"),
            read_tasks(str(tmp_path / name), task_column="language"),
        ):
            assert tasks.tasks["sw"] == TaskData(expected, (), test)
            assert tasks.source == str(tmp_path / name)


def test_files_that_load_dataset_reads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, no_network: None) -> None:
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    lines = [json.dumps(dict(zip(ROWS, row, strict=True))) for row in zip(*ROWS.values(), strict=True)]
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "train.jsonl").write_text("\n".join(lines))
    tasks = read_dataset(str(tmp_path / "data"), task_column="language")
    assert tasks.tasks["sw"].train == (Example("one", 1), Example("three", 1))


def test_a_name_that_cannot_be_reached(no_network: None) -> None:
    with pytest.raises(ValueError, match=r"cannot load the dataset 'nobody/nothing': .*nobody/nothing") as caught:
        read_dataset("nobody/nothing", task_column="language")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("rows", "arguments", "message"),
    [
        (ROWS, {"task_column": "lang"}, r"the dataset, train: there is no column 'lang' \(task_column\); it has 'lang"),
        (ROWS, {"label_column": "mood"}, r"the dataset, train: there is no column 'mood' \(label_column\)"),
        ({**ROWS, "label": ["x", None, "x"]}, {}, "the dataset, train, line 1 is a text without a label"),
        ({**ROWS, "label": [0.5, 1.0, 2.0]}, {}, "line 0: the label must be a string or an int, not float"),
        ({**ROWS, "language": ["sw", None, "sw"]}, {}, r"line 1: the task \(language\) must be a string or an int"),
        ({"language": ["sw"], "a": ["x"], "b": ["y"]}, {}, r"which column is the text\? The columns are 'a', 'b'"),
        (ROWS, {"labels": ["good"]}, r"train, line 1: the label 'bad' is none of 'good'"),
    ],
)
def test_refusals(rows: dict[str, list[Any]], arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        read_dataset(table(rows), **{"task_column": "language", **arguments})


def test_a_class_that_is_not_there_is_refused() -> None:
    data = table({**ROWS, "label": [0, -1, 1]}, label=datasets.ClassLabel(names=["x", "y"]))
    with pytest.raises(ValueError, match="the dataset, train, line 1: the label is -1, and there are 2 classes"):
        read_dataset(data, task_column="language")


def test_what_is_no_dataset_is_refused() -> None:
    for source in (3, {"train": [1]}, [table(ROWS)]):
        with pytest.raises(TypeError, match="source must be a Dataset, a dict of them, a name or a path"):
            read_dataset(source, task_column="language")
    with pytest.raises(ValueError, match="has none of the splits train, validation and test, but other"):
        read_dataset({"other": table(ROWS)}, task_column="language")
    with pytest.raises(ValueError, match="has both 'dev' and 'validation'"):
        read_dataset({"dev": table(ROWS), "validation": table(ROWS)}, task_column="language")
    with pytest.raises(ValueError, match="holds no example"):
        read_dataset(table(ROWS).select([]), task_column="language")


def test_without_the_library(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "datasets", None)
    with pytest.raises(ImportError, match=r"pip install 'gradsim-kernels\[hf\]'"):
        read_dataset("x", task_column="language")


def test_reading_warns_of_nothing_else() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        read_dataset(datasets.DatasetDict(train=table(ROWS)), task_column="language")
