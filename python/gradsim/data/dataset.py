"""Tasks in a Hugging Face dataset with a column that names them, such as the language."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import Any

from gradsim.data.columns import choose
from gradsim.data.files import row_of
from gradsim.data.folder import ALIASES
from gradsim.data.rows import Row, Splits, assemble, check_labels
from gradsim.data.tasks import SPLITS, TaskSet

__all__ = ["read_dataset"]


def read_dataset(
    source: Any,
    *,
    task_column: str,
    text_column: str | None = None,
    label_column: str | None = None,
    config: str | None = None,
    labels: Sequence[str] | None = None,
) -> TaskSet:
    """The tasks of a dataset, in the order of their names.

    Args:
        source: a `datasets.Dataset` (all of it for training), a `DatasetDict` or a dict of datasets, the path of one
            that was saved with `save_to_disk`, or what `datasets.load_dataset` takes: a name or a path.
        task_column: the column whose values name the tasks, such as the language.
        text_column, label_column: None for the usual names, as `read_folder` has them.
        config: the configuration that `load_dataset` is to take.
        labels: the names of all labels, in their order; None for those of a `ClassLabel` column, else those that occur.

    The splits are train, validation (or dev, valid) and test; others are ignored with a warning, and one that is not
    there is empty. Words with a list of tags are tagged; without a label it is plain text.

    Raises `ValueError` for a dataset that cannot be loaded, an unknown column or an example that does not fit, with
    its split and number, and `ImportError` without `datasets`.
    """
    try:
        import datasets
    except ImportError as error:
        raise ImportError("reading a dataset needs datasets: pip install 'gradsim-kernels[hf]'") from error

    if labels is not None:
        labels = check_labels(labels)
    name = str(source) if isinstance(source, str | PathLike) else "the dataset"
    loaded = _load(source, config) if isinstance(source, str | PathLike) else source
    if isinstance(loaded, datasets.Dataset):
        loaded = {"train": loaded}
    if not isinstance(loaded, Mapping) or not all(isinstance(part, datasets.Dataset) for part in loaded.values()):
        raise TypeError(f"source must be a Dataset, a dict of them, a name or a path, not {type(source).__name__}")
    found: dict[str, dict[str, list[Row]]] = {}
    for split, part in _splits(loaded, name).items():
        columns = [column for column in part.column_names if column != task_column]
        if len(columns) == len(part.column_names):
            listed = ", ".join(map(repr, columns))
            raise ValueError(f"{name}, {split}: there is no column {task_column!r} (task_column); it has {listed}")
        chosen = choose(columns, text_column, label_column, where=f"{name}, {split}", others=True)
        for task, row in _rows(part, task_column, *chosen, where=f"{name}, {split}"):
            found.setdefault(task, {}).setdefault(split, []).append(row)
        if labels is None and chosen[1] is not None:
            labels = _class_names(part.features[chosen[1]])
    places = {split: f"{name}, {split}" for split in SPLITS}
    return assemble({task: Splits(found[task], places) for task in sorted(found)}, labels, name)


def _load(source: str | PathLike[str], config: str | None) -> Any:
    import datasets

    path = Path(source)
    try:
        if any((path / file).is_file() for file in ("dataset_dict.json", "state.json")):
            return datasets.load_from_disk(str(source))
        return datasets.load_dataset(str(source), config)
    # what the library raises for a name that is not there, no network, a broken file, or a dataset that is a script
    except (OSError, ValueError, RuntimeError, datasets.exceptions.DatasetsError) as error:
        reason = " ".join(str(error).split())
        raise ValueError(f"cannot load the dataset {str(source)!r}: {reason or type(error).__name__}") from error


def _splits(loaded: Mapping[str, Any], name: str) -> dict[str, Any]:
    result: dict[str, Any] = {}
    for split in SPLITS:
        there = [alias for alias in ALIASES[split] if alias in loaded]
        if len(there) > 1:
            raise ValueError(f"{name} has both {there[0]!r} and {there[1]!r}: which is the {split} split?")
        if there:
            result[split] = loaded[there[0]]
    others = [split for split in loaded if split not in sum(ALIASES.values(), ())]
    if not result:
        raise ValueError(f"{name} has none of the splits train, validation and test, but {', '.join(others) or 'none'}")
    if others:
        warnings.warn(f"the splits {', '.join(others)} of {name} are ignored", stacklevel=3)
    return result


def _rows(part: Any, task: str, text: str, label: str | None, where: str) -> Iterator[tuple[str, Row]]:
    features = part.features
    wanted = [task, text, *([label] if label is not None else [])]
    columns = part.with_format(None).select_columns(wanted)[:]
    values = columns[label] if label is not None else [None] * len(part)
    for number, (owner, content, value) in enumerate(zip(columns[task], columns[text], values, strict=True)):
        here = f"{where}, line {number}"
        if label is not None:
            value = _named(features[label], value, here)
        owner = _named(features[task], owner, here)
        if isinstance(owner, bool) or not isinstance(owner, str | int):
            raise ValueError(f"{here}: the task ({task}) must be a string or an int, not {type(owner).__name__}")
        yield str(owner), row_of(number, content, value, here)


def _named(feature: Any, value: Any, here: str) -> Any:
    """The name of a class for its number, and of the classes for a list of numbers."""
    names = _class_names(feature)
    if names is None or value is None:
        return value
    if isinstance(value, list):
        return [_one_name(names, number, here) for number in value]
    return _one_name(names, value, here)


def _one_name(names: Sequence[str], number: int | None, here: str) -> str | None:
    if number is not None and not 0 <= number < len(names):
        raise ValueError(f"{here}: the label is {number}, and there are {len(names)} classes")
    return None if number is None else names[number]


def _class_names(feature: Any) -> tuple[str, ...] | None:
    """The names of a ClassLabel or of a list of them; None for any other feature."""
    names = getattr(getattr(feature, "feature", feature), "names", None)
    return None if names is None else tuple(names)
