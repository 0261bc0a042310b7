"""The files a resumed run stands on: whole or not at all, damage noticed, the state of another training refused."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch

from gradsim.training import files
from gradsim.training.checkpoint import Checkpoint, differences
from gradsim.training.files import locked, replace_file, write_json
from gradsim.training.randomness import random_state, seeded, set_random_state

SETTINGS = {"budget": {"steps": 10}, "seed": 0}
CPU = torch.device("cpu")


def state() -> dict[str, object]:
    return {"tensor": torch.arange(5.0), "number": 3, "text": "Yorùbá", "nested": {"tuple": (1, 2.5, None)}}


def test_comes_back_as_it_was(tmp_path: Path) -> None:
    file = Checkpoint(tmp_path / "c", SETTINGS)
    assert file.load() is None
    file.save(state())
    held = Checkpoint(tmp_path / "c", SETTINGS).load()
    assert held is not None and torch.equal(held.pop("tensor"), torch.arange(5.0))
    assert held == {key: value for key, value in state().items() if key != "tensor"}
    assert os.listdir(tmp_path) == ["c"]
    file.remove()
    file.remove()
    assert os.listdir(tmp_path) == []


def test_any_flipped_byte_and_any_missing_end_is_noticed(tmp_path: Path) -> None:
    file = Checkpoint(tmp_path / "c", SETTINGS)
    file.save(state())
    whole = (tmp_path / "c").read_bytes()
    generator = random.Random(0)
    places = [*generator.sample(range(len(whole)), 40), 0, len(whole) - 1]
    damaged = [whole[:i] + bytes([whole[i] ^ 1]) + whole[i + 1 :] for i in places]
    damaged += [whole[:i] for i in (0, 1, 50, len(whole) // 2, len(whole) - 1)] + [whole + b"\n", b"\0" * 200]
    for content in damaged:
        (tmp_path / "c").write_bytes(content)
        with pytest.warns(UserWarning, match="c is damaged; this training starts again from its first step"):
            assert file.load() is None


def test_nothing_is_unpickled(tmp_path: Path) -> None:
    """A file with a right checksum that asks for a call: made by hand, since `save` writes no such thing."""

    class Call:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return os.mkdir, (str(tmp_path / "called"),)

    file = Checkpoint(tmp_path / "c", SETTINGS)
    file.save({"bad": Call()})
    with pytest.raises(Exception, match=r"[Ww]eights.only"):
        file.load()
    assert not (tmp_path / "called").exists()


def test_refuses_the_state_of_another_training(tmp_path: Path) -> None:
    Checkpoint(tmp_path / "c", SETTINGS).save(state())
    other = Checkpoint(tmp_path / "c", {"budget": {"steps": 20}, "seed": 0})
    with pytest.raises(
        ValueError, match=r"c is the checkpoint of another training: budget.steps is 10 there and 20 here"
    ):
        other.load()


def test_differences_are_named() -> None:
    held = {"a": 1, "b": {"c": 2, "d": [1]}, "e": "x" * 100}
    assert differences(held, held) == []
    assert differences(held, {"a": 1, "b": {"c": 3, "d": [1]}, "f": None}) == [
        "b.c is 2 there and 3 here",
        "f is missing there and None here",
        f"e is '{'x' * 59}... there and missing here",
    ]


def test_is_due_after_the_time_and_not_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr("time.monotonic", lambda: now)
    file = Checkpoint(tmp_path / "c", SETTINGS, seconds=30)
    assert not file.due()
    now = 130.0
    assert file.due()
    file.save({})
    assert not file.due()
    assert Checkpoint(tmp_path / "c", SETTINGS, seconds=0).due()
    with pytest.raises(ValueError, match="checkpoint_seconds must be at least 0"):
        Checkpoint(tmp_path / "c", SETTINGS, seconds=-1)


def test_a_failed_writing_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "f"
    write_json(path, {"old": 1})

    def fails(file: object) -> None:
        file.write(b"half")  # type: ignore[attr-defined]
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        replace_file(path, fails)
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(path, {"bad": float("nan")})
    assert path.read_text() == '{\n "old": 1\n}\n'
    assert os.listdir(tmp_path) == ["f"]


def test_the_lock_ends_with_its_process(tmp_path: Path) -> None:
    code = (  # the file alone needs no torch
        "import importlib.util, pathlib, sys, time\n"
        "spec = importlib.util.spec_from_file_location('files', sys.argv[1])\n"
        "files = importlib.util.module_from_spec(spec)\nspec.loader.exec_module(files)\n"
        "with files.locked(pathlib.Path(sys.argv[2])):\n    print('held', flush=True)\n    time.sleep(60)\n"
    )
    arguments = [sys.executable, "-c", code, str(files.__file__), str(tmp_path)]
    with subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None and other.stdout.readline() == "held\n"
        with pytest.raises(ValueError, match="is being written by another process"), locked(tmp_path):
            pass
        other.send_signal(signal.SIGKILL)
    with locked(tmp_path):  # the file is still there, and locks nothing
        assert (tmp_path / ".lock").exists()
    with locked(tmp_path):
        pass


def draws() -> list[float]:
    return [float(torch.rand(())), float(np.random.rand()), float(np.random.randn()), random.random()]


def test_random_states_are_seeded_and_given_back() -> None:
    torch.manual_seed(1)
    np.random.seed(1)
    random.seed(1)
    expected = draws()
    torch.manual_seed(1)
    np.random.seed(1)
    random.seed(1)
    with seeded(5, CPU):
        first = draws()
    with pytest.raises(KeyError), seeded(5, CPU):
        assert draws() == first
        raise KeyError
    assert draws() == expected
    with seeded(6, CPU):
        assert all(a != b for a, b in zip(draws(), first, strict=True))


def test_random_states_go_on_from_a_file(tmp_path: Path) -> None:
    with seeded(5, CPU):
        draws()
        file = Checkpoint(tmp_path / "c", SETTINGS)
        file.save({"random": random_state(CPU)})
        expected = draws()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        held = file.load()
    assert held is not None
    with seeded(7, CPU):
        set_random_state(held["random"], CPU)
        assert draws() == expected
