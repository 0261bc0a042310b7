"""Task sets: the names of the CLDR, what `--data` may say, and fewer examples of each."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gradsim.data import LANGUAGES, Example, TaskData, TaskSet, cldr_tasks, hold_out, limit, read_tasks, shared_names

Write = Callable[[dict[str, "str | bytes"]], Path]


def some_tasks(*numbers: int) -> TaskSet:
    """Tasks `a`, `b`, ... with so many training examples, half as many to test on."""

    def examples(task: str, number: int) -> tuple[Example, ...]:
        return tuple(Example(f"{task} {k}", k % 2) for k in range(number))

    tasks = {name: TaskData(examples(name, n), (), examples(name, n // 2)) for name, n in zip("abcd", numbers)}  # noqa: B905
    return TaskSet(tasks, "classification", ("x", "y"), "made up")


class TestCldr:
    @pytest.fixture(autouse=True)
    def babel(self) -> None:
        pytest.importorskip("babel")

    def test_every_name_is_trained_on_or_held_out(self) -> None:
        languages = LANGUAGES[:4]
        table = shared_names(languages)
        tasks = cldr_tasks(languages, held_out=0.4, seed=2)
        held = hold_out(len(table.concepts), [0.4] * 4, seed=2)
        assert tasks.names == [language.code for language in languages]
        assert (tasks.problem, tasks.labels, tasks.source) == ("classification", table.concepts, "cldr")
        for row, (task, names) in enumerate(zip(tasks.tasks.values(), table.names, strict=True)):
            assert task.dev == ()
            assert len(task.test) == int(held[row].sum())
            for split, kept in ((task.train, False), (task.test, True)):
                for example in split:
                    assert isinstance(example.label, int)
                    assert example.text == names[example.label]
                    assert bool(held[row, example.label]) is kept
            assert sorted(e.label for e in (*task.train, *task.test)) == list(range(len(names)))  # type: ignore[type-var]

    def test_all_languages_share_their_labels(self) -> None:
        tasks = cldr_tasks()
        assert len(tasks.tasks) == 36
        assert len(tasks.labels) > 500
        assert tasks.fingerprint() == cldr_tasks().fingerprint() != cldr_tasks(seed=1).fingerprint()
        assert tasks.fingerprint() == read_tasks("cldr").fingerprint()

    def test_refusals(self) -> None:
        with pytest.raises(ValueError, match=r"shares\[0\] must be in \[0, 1\), not 1"):
            cldr_tasks(LANGUAGES[:2], held_out=1.0)
        with pytest.raises(ValueError, match="label_column has no meaning for 'cldr'"):
            read_tasks("cldr", label_column="x")


class TestReadTasks:
    def test_folders(self, write: Write) -> None:
        folder = write({"a/train.tsv": "body\tmood\none\tgood\n", "b/train.tsv": "body\tmood\ntwo\tbad\n"})
        columns: Any = {"text_column": "body", "label_column": "mood", "labels": ["good", "bad"]}
        assert read_tasks(folder, **columns).names == ["a", "b"]
        assert read_tasks([str(folder)], **columns).labels == ("good", "bad")
        assert read_tasks([folder / "b", folder / "a"], **columns).names == ["b", "a"]

    def test_one_sentence_for_what_fits_none(self, tmp_path: Path, write: Write) -> None:
        saved = write({"saved/dataset_dict.json": "{}"}) / "saved"
        for source, message in (
            ("masakhane/afrisenti", "'masakhane/afrisenti' is neither 'cldr' nor a folder, and a dataset needs"),
            (tmp_path / "nowhere", "is neither 'cldr' nor a folder"),
            (saved, r"saved holds a saved dataset, and needs the column that names the tasks \(task_column\)"),
            (3, r"a dataset \(int\) needs the column"),
            ([], "a list of at least one"),
        ):
            with pytest.raises(ValueError, match=message):
                read_tasks(source)
        with pytest.raises(ValueError, match="config is for a dataset"):
            read_tasks("cldr", config="en")


class TestLimit:
    @given(st.integers(0, 30), st.integers(0, 30), st.integers(0, 5))
    def test_takes_a_part_in_its_order(self, train: int, more: int, seed: int) -> None:
        tasks = some_tasks(20, 7)
        small = limit(tasks, train=train, test=2, seed=seed)
        large = limit(tasks, train=train + more, seed=seed)
        for name, whole in tasks.tasks.items():
            kept = small.tasks[name]
            assert len(kept.train) == min(train, len(whole.train))
            assert len(kept.test) == min(2, len(whole.test))
            assert [e for e in whole.train if e in set(kept.train)] == list(kept.train)
            assert set(kept.train) <= set(large.tasks[name].train)
            assert large.tasks[name].test == whole.test

    def test_seed_task_and_split_decide(self) -> None:
        tasks = some_tasks(100, 100)
        chosen = limit(tasks, train=10, test=10, seed=1)
        assert limit(tasks.select(["b"]), train=10, test=10, seed=1).tasks["b"] == chosen.tasks["b"]
        assert limit(tasks, train=10, test=10, seed=2).tasks["b"] != chosen.tasks["b"]

        def indices(task: str, split: str) -> list[str]:
            return [str(example.text).split()[1] for example in getattr(chosen.tasks[task], split)]

        assert indices("a", "train") != indices("b", "train")
        assert indices("a", "train") != indices("a", "test")
        assert indices("a", "train") != [str(k) for k in range(10)]

    def test_keeps_the_rest(self) -> None:
        tasks = some_tasks(5)
        assert limit(tasks) == tasks
        assert limit(tasks, train=0).tasks["a"] == TaskData((), (), tasks.tasks["a"].test)
        with pytest.raises(ValueError, match="dev must be at least 0, not -1"):
            limit(tasks, dev=-1)


class TestTaskSet:
    def test_select_and_trainable(self) -> None:
        tasks = some_tasks(2, 0, 4)
        assert tasks.names == ["a", "b", "c"]
        assert tasks.select(["c", "a"]).names == ["c", "a"]
        assert tasks.trainable().names == ["a", "c"]
        with pytest.raises(ValueError, match="made up has no task 'z'; its tasks are a, b, c"):
            tasks.select(["a", "z"])
        with pytest.raises(ValueError, match="no task of made up has training examples"):
            tasks.select(["b"]).trainable()

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            (({}, "text", (), "it"), "it holds no task"),
            (({"a": TaskData()}, "regression", (), "it"), "problem must be one of .*, not 'regression'"),
            (({"a": TaskData()}, "classification", ("x", "x"), "it"), "labels must be different"),
        ],
    )
    def test_refusals(self, arguments: Any, message: str) -> None:
        with pytest.raises(ValueError, match=message):
            TaskSet(*arguments)

    def test_fingerprint_sees_every_change_but_the_source(self) -> None:
        def made(**changes: Any) -> str:
            fields = {"tasks": {"a": TaskData((Example("t", 0),))}, "problem": "classification", "labels": ("x", "y")}
            return TaskSet(**{**fields, "source": "here", **changes}).fingerprint()

        others = [
            made(),
            made(tasks={"b": TaskData((Example("t", 0),))}),
            made(tasks={"a": TaskData((), (Example("t", 0),))}),
            made(tasks={"a": TaskData((Example("t", 1),))}),
            made(tasks={"a": TaskData((Example("u", 0),))}),
            made(tasks={"a": TaskData((Example("\ud800", 0),))}),
            made(tasks={"a": TaskData((Example("t", 0), Example("t", 0)))}),
            made(labels=("y", "x")),
            made(problem="text"),
        ]
        assert len(set(others)) == len(others)
        assert made(source="there") == made()
