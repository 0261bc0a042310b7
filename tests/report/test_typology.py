"""Reading typological similarities, and refusing what holds none."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from gradsim.report import read_typology
from gradsim.report.typology import check_typology

GOOD: dict[str, Any] = {"langs": ["a", "b"], "sim": {"syntax": [[1.0, 0.5], [0.5, 1]]}, "source": "here"}


def test_reads_the_reference(shared: Path) -> None:
    path = shared / "reference" / "afrisenti_lang2vec_similarity.json"
    found = read_typology(path)
    assert found == json.loads(path.read_text(encoding="utf-8"))
    assert len(found["langs"]) == 12 and "family" in found["sim"]


def test_reads_what_was_written(tmp_path: Path) -> None:
    path = tmp_path / "typology.json"
    path.write_text(json.dumps(GOOD), encoding="utf-8")
    assert read_typology(path) == GOOD


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"langs": "ab"}, "'langs' must be a list of names"),
        ({"langs": ["a", 2]}, "'langs' must be a list of names"),
        ({"langs": []}, "different names, at least one"),
        ({"langs": ["a", "a"]}, "different names"),
        ({"sim": {}}, "'sim' must hold at least one feature"),
        ({"sim": [1]}, "'sim' must hold at least one feature"),
        ({"sim": {"x": [[1.0, 0.5]]}}, "'x' must be a matrix of 2 x 2 numbers"),
        ({"sim": {"x": [[1.0, 0.5], [1.0]]}}, "'x' must be a matrix of 2 x 2 numbers"),
        ({"sim": {"x": ["ab", "ab"]}}, "'x' must be a matrix of 2 x 2 numbers"),
        ({"sim": {"x": 3}}, "'x' must be a matrix of 2 x 2 numbers"),
        ({"sim": {"x": [[1.0, "0.5"], [0.5, 1.0]]}}, "'x' must hold finite numbers only"),
        ({"sim": {"x": [[1.0, float("nan")], [0.5, 1.0]]}}, "'x' must hold finite numbers only"),
        ({"sim": {"x": [[1.0, True], [0.5, 1.0]]}}, "'x' must hold finite numbers only"),
    ],
)
def test_refuses_with_one_sentence(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        check_typology({**GOOD, **change})


def test_refuses_what_is_no_such_file(tmp_path: Path) -> None:
    path = tmp_path / "typology.json"
    path.write_text("{", encoding="utf-8")
    with pytest.raises(ValueError, match=r"typology\.json is not a JSON file"):
        read_typology(path)
    path.write_bytes(b"\xff\xfe{}")
    with pytest.raises(ValueError, match="is not a JSON file"):
        read_typology(path)
    path.write_text('{"langs": ["a"]}', encoding="utf-8")
    with pytest.raises(ValueError, match="must hold an object with the keys 'langs' and 'sim'"):
        read_typology(path)
    with pytest.raises(OSError):
        read_typology(tmp_path / "absent.json")
