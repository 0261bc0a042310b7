"""The names of the CLDR and the held-out split."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from gradsim.data import LANGUAGES, SELECTION, hold_out, shared_names

pytest.importorskip("babel")


def test_languages() -> None:
    assert len(LANGUAGES) == 36
    assert len({language.code for language in LANGUAGES}) == 36
    assert len({language.name for language in LANGUAGES}) == 36
    families = [language.family for language in LANGUAGES]
    assert len(set(families)) == 8
    assert min(families.count(family) for family in families) >= 3
    assert len(SELECTION) == 16
    assert [language.family for language in SELECTION] == [f for f in dict.fromkeys(families) for _ in range(2)]


def test_every_language_names_every_shared_concept() -> None:
    table = shared_names()
    print(f"{len(table.concepts)} shared concepts")
    assert len(table.concepts) >= 500  # 599 with Babel 2.18; another CLDR may name a few more or fewer
    assert len(table.names) == 36
    assert all(len(names) == len(table.concepts) and all(names) for names in table.names)
    assert len(set(table.concepts)) == len(table.concepts)
    by_code = dict(zip(table.codes, table.names, strict=True))
    germany = table.concepts.index("territory:DE")
    assert (by_code["fr"][germany], by_code["ru"][germany], by_code["ja"][germany]) == (
        "Allemagne",
        "Германия",
        "ドイツ",
    )
    assert by_code["es"][table.concepts.index("language:de")] == "alemán"


def test_selection_keeps_the_concepts() -> None:
    table = shared_names()
    chosen = table.select(SELECTION)
    assert chosen.concepts == table.concepts
    assert chosen.names[1] == table.names[table.languages.index(SELECTION[1])]
    with pytest.raises(ValueError, match=r"not \['es'\]"):
        table.select(SELECTION[2:]).select(SELECTION[:1])
    with pytest.raises(ValueError, match="different languages"):
        shared_names([LANGUAGES[0], LANGUAGES[0]])


@given(
    st.integers(1, 60), st.lists(st.sampled_from([0.0, 0.25, 0.75, 0.99]), min_size=2, max_size=6), st.integers(0, 99)
)
def test_hold_out(num_concepts: int, shares: list[float], seed: int) -> None:
    held = hold_out(num_concepts, shares, seed=seed)
    assert held.shape == (len(shares), num_concepts) and held.dtype == torch.bool
    assert not held.all(dim=0).any()  # every concept is trained on somewhere
    missing = [round(share * num_concepts) - int(row.sum()) for share, row in zip(shares, held, strict=True)]
    assert min(missing) >= 0 and sum(count > 0 for count in missing) <= 1
    assert torch.equal(held, hold_out(num_concepts, shares, seed=seed))


def test_hold_out_differs_from_task_to_task_and_refuses() -> None:
    held = hold_out(599, [0.25] * 12)
    assert len({tuple(row) for row in held.tolist()}) == 12
    assert held.sum(dim=1).tolist() == [150] * 12
    with pytest.raises(ValueError, match=r"shares\[1\] must be in \[0, 1\), not 1.0"):
        hold_out(10, [0.5, 1.0])
    with pytest.raises(ValueError, match="num_concepts"):
        hold_out(0, [0.5])
