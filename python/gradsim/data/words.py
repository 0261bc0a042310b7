"""The names of the Unicode CLDR as tasks: which concept does this name mean in this language?"""

from __future__ import annotations

from collections.abc import Sequence

from gradsim.data.cldr import shared_names
from gradsim.data.holdout import hold_out
from gradsim.data.languages import LANGUAGES, Language
from gradsim.data.tasks import Example, TaskData, TaskSet

__all__ = ["cldr_tasks"]


def cldr_tasks(languages: Sequence[Language] = LANGUAGES, *, held_out: float = 0.25, seed: int = 0) -> TaskSet:
    """Classification of names by their concept, one task per language, called by its CLDR code.

    The labels are the concepts that every language has a name for. Each language keeps back its own random share
    `held_out` of them (`hold_out`): `test`, whose concepts were trained on in other languages only; all others are
    `train`. `dev` is empty: a part of the few hundred names would be too few to choose by.

    Raises `ValueError` for a share outside [0, 1) or a bad list of languages, and `ImportError` without Babel.
    """
    table = shared_names(languages)
    held = hold_out(len(table.concepts), [held_out] * len(table.languages), seed=seed)
    tasks = {}
    for code, names, kept in zip(table.codes, table.names, held.tolist(), strict=True):
        examples = [Example(name, concept) for concept, name in enumerate(names)]
        tasks[code] = TaskData(
            train=tuple(example for example, test in zip(examples, kept, strict=True) if not test),
            test=tuple(example for example, test in zip(examples, kept, strict=True) if test),
        )
    return TaskSet(tasks, "classification", table.concepts, "cldr")
