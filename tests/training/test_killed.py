"""Really killed, at random moments and in the middle of writing, a run ends with the numbers of an undisturbed one."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from gradsim.similarity import Similarity

HERE = Path(__file__).parent


def kill(folder: Path, kills: int, seed: int) -> dict[str, dict[str, int]]:
    """How often each run was killed, by the kind of moment; the folders `whole` and `killed` are left."""
    environment = {**os.environ, "PYTHONPATH": str(HERE.parent), "OMP_NUM_THREADS": "1"}
    arguments = [sys.executable, str(HERE / "killer.py"), str(folder), str(kills), str(seed)]
    done = subprocess.run(arguments, env=environment, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    counts: dict[str, dict[str, int]] = json.loads(done.stdout)
    return counts


def files(folder: Path) -> dict[str, object]:
    """The content of every file; of a cell without the seconds that it took."""
    found: dict[str, object] = {}
    for path in sorted(folder.rglob("*")):
        if path.suffix == ".json" and path.parent.name == "cells":
            content = json.loads(path.read_text())
            assert content["about"].pop("seconds") > 0
            found[path.name] = content
        elif path.is_file():
            found[path.name] = path.read_bytes()
    return found


def check(folder: Path) -> None:
    whole, killed = files(folder / "train" / "whole"), files(folder / "train" / "killed")
    assert list(whole) == list(killed)
    assert whole["results.json"] == killed["results.json"]
    assert whole == killed
    assert len(whole) == 3 + 6  # lock, settings and results, and a file for each cell

    paths = [folder / "measure" / name / "similarity.safetensors" for name in ("whole", "killed")]
    one, other = map(Similarity.load, paths)
    assert one == other  # metadata too
    assert one.samples is not None and len(one.samples) == 5
    names = {path.name for path in paths[1].parent.iterdir()}
    begun = {name for name in names if name.startswith(".similarity.safetensors.")}  # what a kill may leave
    assert names - begun == {".lock", "similarity.safetensors"}
    assert [name for name in names if name.endswith(".safetensors")] == ["similarity.safetensors"]


def test_killed_at_random_moments_and_in_writing(tmp_path: Path) -> None:
    counts = kill(tmp_path, 3, 0)
    check(tmp_path)
    assert all(count["half written"] >= 1 and count["not renamed"] >= 1 for count in counts.values())


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(1, 6))
def test_killed_again_and_again(tmp_path: Path, seed: int) -> None:
    counts = kill(tmp_path, 25, seed)
    check(tmp_path)
    assert all(sum(count.values()) >= 3 for count in counts.values())
