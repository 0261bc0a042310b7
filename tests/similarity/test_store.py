"""The file of a similarity: it comes back equal, or it is refused in one sentence."""

from __future__ import annotations

import json
import math
import pickle
import stat
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from gradsim.similarity import Similarity, store

values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**60), 2**60)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)
names = st.text(min_size=1, max_size=8).filter(lambda text: text.isprintable())


@st.composite
def similarities(draw: st.DrawFn) -> Similarity:
    tasks = draw(st.lists(names, min_size=1, max_size=4, unique=True))
    groups = draw(st.lists(names, min_size=1, max_size=3, unique=True))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**31)))
    shape = (len(groups), len(tasks), len(tasks))
    cosine = torch.randn(shape, dtype=torch.float64, generator=generator)
    cosine.view(-1)[0] = draw(st.sampled_from([0.25, math.nan, -0.0, 1e-300]))
    optional: dict[str, Any] = {
        name: torch.randn(size, dtype=torch.float64, generator=generator)
        for name, size in (("std", shape), ("within", shape[:2]), ("norms", shape[:2]))
        if draw(st.booleans())
    }
    if draw(st.booleans()):
        length = draw(st.integers(0, 3))
        optional["samples"] = torch.randn(length, *shape, dtype=torch.float64, generator=generator)
        if draw(st.booleans()):
            optional["steps"] = torch.randint(0, 10**9, (length,), generator=generator)
    optional["metadata"] = draw(st.dictionaries(st.text(max_size=5), values, max_size=3))
    count = torch.randint(0, 9, shape, generator=generator)
    return Similarity(tasks, groups, cosine, count, kind=draw(st.sampled_from(["cosine", "affinity"])), **optional)


@settings(max_examples=60)
@given(similarities())
def test_round_trip(tmp_path_factory: pytest.TempPathFactory, similarity: Similarity) -> None:
    path = tmp_path_factory.mktemp("store") / "s.safetensors"
    similarity.save(path)
    loaded = Similarity.load(path)
    assert loaded == similarity
    assert loaded.tensors().keys() == similarity.tensors().keys()


@pytest.fixture
def stored(tmp_path: Path) -> tuple[Similarity, Path]:
    eye = torch.eye(3, dtype=torch.float64).repeat(2, 1, 1)
    similarity = Similarity(["a", "b", "c"], ["x", "y"], eye, torch.ones(2, 3, 3, dtype=torch.int64), std=eye.clone())
    path = tmp_path / "s.safetensors"
    similarity.save(path)
    return similarity, path


@settings(max_examples=150)
@given(data=st.data())
def test_any_damaged_byte_is_noticed(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    eye = torch.eye(2, dtype=torch.float64)[None]
    original = Similarity(
        ["a", "b"],
        ["x"],
        eye,
        torch.ones(1, 2, 2, dtype=torch.int64),
        samples=torch.stack([eye, eye * 0.5]),
        steps=torch.tensor([3, 70]),
        metadata={"model": {"layers": [1, 2]}},
    )
    path = tmp_path_factory.mktemp("damage") / "s.safetensors"
    original.save(path)
    content = bytearray(path.read_bytes())
    where = data.draw(st.integers(0, len(content) - 1))
    content[where] ^= 1 << data.draw(st.integers(0, 7))
    path.write_bytes(bytes(content))
    try:
        loaded = Similarity.load(path)
    except ValueError as error:
        assert str(path) in str(error) and "\n" not in str(error)
    else:
        assert loaded == original  # a byte that carries nothing


def test_cut_off_file(stored: tuple[Similarity, Path]) -> None:
    _, path = stored
    content = path.read_bytes()
    for length in (0, 4, 8, 40, len(content) // 2, len(content) - 1):
        path.write_bytes(content[:length])
        with pytest.raises(ValueError, match=r"damaged or no safetensors"):
            Similarity.load(path)


def test_foreign_files(tmp_path: Path) -> None:
    path = tmp_path / "weights.safetensors"
    safetensors.torch.save_file({"weight": torch.zeros(2)}, path)
    with pytest.raises(ValueError, match="no similarity"):
        Similarity.load(path)
    path.write_text("task,other,value\n")
    with pytest.raises(ValueError, match="no safetensors"):
        Similarity.load(path)


def forged(path: Path, text: str, **changes: torch.Tensor) -> None:
    """A file with these names and a checksum that fits."""
    tensors = {"cosine": torch.eye(2, dtype=torch.float64)[None], "count": torch.ones(1, 2, 2, dtype=torch.int64)}
    tensors |= changes
    metadata = {"format": store.FORMAT, "names": text, "sha256": store._checksum(text, tensors)}
    safetensors.torch.save_file(tensors, path, metadata)


NAMES = {"tasks": ["a", "b"], "groups": ["x"], "kind": "cosine", "metadata": {}}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("not JSON", "its names are no JSON"),
        ("[1, 2]", "its names are a JSON list, not an object"),
        (json.dumps(NAMES | {"metadata": [1]}), "metadata must be a mapping, not list"),
        (json.dumps(NAMES | {"metadata": {"x": float("nan")}}), "metadata must hold only what JSON can"),
        (json.dumps(NAMES | {"tasks": ["a", "a"]}), "doubled: a"),
        (json.dumps(NAMES | {"surprise": 1}), "unexpected keyword argument 'surprise'"),
        (json.dumps({"tasks": ["a", "b"]}), "missing 1 required positional argument: 'groups'"),
    ],
)
def test_names_that_are_none(tmp_path: Path, text: str, words: str) -> None:
    path = tmp_path / "s.safetensors"
    forged(path, text)
    with pytest.raises(ValueError, match=words) as caught:
        Similarity.load(path)
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"samples": torch.zeros(3, 1, 2, 2)}, "samples must be torch.float64"),
        ({"samples": torch.zeros(3, 2, 2, dtype=torch.float64)}, "samples must have the shape"),
        ({"steps": torch.zeros(3, dtype=torch.int64)}, "steps are those of the samples, and there are none"),
        (
            {"samples": torch.zeros(3, 1, 2, 2, dtype=torch.float64), "steps": torch.zeros(2, dtype=torch.int64)},
            r"steps must have the shape \[3\], not \[2\]",
        ),
        ({"weights": torch.zeros(3)}, "unexpected keyword argument 'weights'"),
    ],
)
def test_tensors_that_do_not_fit(tmp_path: Path, changes: dict[str, torch.Tensor], words: str) -> None:
    path = tmp_path / "s.safetensors"
    forged(path, json.dumps(NAMES))
    assert Similarity.load(path).tasks == ["a", "b"]  # forged well
    forged(path, json.dumps(NAMES), **changes)
    with pytest.raises(ValueError, match=words):
        Similarity.load(path)


def test_metadata_that_json_cannot_hold(tmp_path: Path, stored: tuple[Similarity, Path]) -> None:
    similarity, path = stored
    fields = {name: getattr(similarity, name) for name in ("tasks", "groups", "cosine", "count")}
    for bad in ({"x": object()}, {"x": float("inf")}, {"x": torch.zeros(1)}):
        with pytest.raises(TypeError, match="metadata must hold only what JSON can"):
            Similarity(**fields, metadata=bad)
    before = path.read_bytes()
    similarity.metadata["x"] = object()  # after the check
    with pytest.raises(TypeError):
        similarity.save(path)
    assert path.read_bytes() == before
    nested = Similarity(**fields, metadata={"sizes": (1, 2), 3: {"deep": None}})
    assert nested.metadata == {"sizes": [1, 2], "3": {"deep": None}}  # what a file gives back


class Bomb:
    exploded = False

    def __reduce__(self) -> tuple[Any, ...]:
        return (setattr, (Bomb, "exploded", True))


def test_nothing_is_unpickled(tmp_path: Path) -> None:
    path = tmp_path / "s.safetensors"
    for dump in (lambda: path.write_bytes(pickle.dumps(Bomb())), lambda: torch.save(Bomb(), path)):
        dump()
        with pytest.raises(ValueError, match="no safetensors"):
            Similarity.load(path)
    assert not Bomb.exploded


def test_missing_file_and_folder(tmp_path: Path, stored: tuple[Similarity, Path]) -> None:
    with pytest.raises(FileNotFoundError):
        Similarity.load(tmp_path / "nothing.safetensors")
    with pytest.raises(FileNotFoundError):
        stored[0].save(tmp_path / "no" / "folder.safetensors")


def test_a_failed_save_leaves_the_old_file_and_nothing_else(
    stored: tuple[Similarity, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    similarity, path = stored
    before = path.read_bytes()
    monkeypatch.setattr("os.replace", lambda *_: (_ for _ in ()).throw(OSError("disk full")))
    similarity.cosine[0, 0, 1] = 0.5
    with pytest.raises(OSError, match="disk full"):
        similarity.save(path)
    assert path.read_bytes() == before
    assert [entry.name for entry in path.parent.iterdir()] == [path.name]


def test_others_may_read_the_file(stored: tuple[Similarity, Path], tmp_path: Path) -> None:
    plain = tmp_path / "plain"
    plain.write_text("")
    assert stat.S_IMODE(stored[1].stat().st_mode) == stat.S_IMODE(plain.stat().st_mode)
