"""`gradsim demo` and `gradsim doctor` as users run them: a process of their own, its output, files and exit code."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from gradsim.cli import main
from gradsim.similarity import Similarity

for needed in ("typer", "rich", "babel", "matplotlib", "scipy"):
    pytest.importorskip(needed)

SOURCES = Path(__file__).resolve().parents[2]


def gradsim(*arguments: str | Path, before: str = "", **env: str) -> subprocess.CompletedProcess[str]:
    """Run the command line; `before` is Python code that runs first in the same process."""
    code = f"import sys\n{before}\nfrom gradsim.cli import main\nsys.exit(main())"
    paths = os.pathsep.join([str(SOURCES), str(SOURCES / "python")])
    environment = os.environ | {"PYTHONPATH": paths, "COLUMNS": "120", "OMP_NUM_THREADS": "1"} | env
    command = [sys.executable, "-c", code, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, env=environment, timeout=300, check=False)


def error_of(done: subprocess.CompletedProcess[str]) -> str:
    """The one line that a user's error leaves."""
    assert done.returncode == 2, done.stderr
    assert done.stderr.count("\n") == 1 and "Traceback" not in done.stderr, done.stderr
    assert done.stderr.startswith("gradsim: ")
    return done.stderr


@pytest.fixture(scope="module")
def quick(tmp_path_factory: pytest.TempPathFactory) -> tuple[subprocess.CompletedProcess[str], Path]:
    folder = tmp_path_factory.mktemp("demo") / "not" / "there yet"
    return gradsim("demo", "--quick", "--seeds", "2", "--steps", "6", "--out", folder), folder


def test_it_ends_well_and_names_its_files(quick: tuple[subprocess.CompletedProcess[str], Path]) -> None:
    done, folder = quick
    assert done.returncode == 0, done.stderr
    expected = {
        "heatmap.png",
        "heatmap.json",
        "similarity.safetensors",
        "similarity.json",
        "groups.json",
        "results.json",
        "report.html",
        "figures",
    }
    assert {path.name for path in folder.iterdir()} == expected
    for name in expected:
        assert str(folder / name) in done.stdout


def test_its_tables(quick: tuple[subprocess.CompletedProcess[str], Path]) -> None:
    output = quick[0].stdout
    for words in ("36 languages", "adjusted Rand index", "proven optimal", "plain sum", "PCGrad", "GradVac", "±"):
        assert words in output, words
    assert "Held-out accuracy in %: mean ± standard deviation over 2 seeds" in " ".join(output.split())


def test_its_files_fit_together(quick: tuple[subprocess.CompletedProcess[str], Path]) -> None:
    folder = quick[1]
    similarity = Similarity.load(folder / "similarity.safetensors")
    assert len(similarity.tasks) == 36 and similarity.groups == ["embedding", "hidden", "output"]
    assert int(similarity.count.min()) == 2
    assert similarity.to_dict() == json.loads((folder / "similarity.json").read_text(encoding="utf-8"))
    heatmap = json.loads((folder / "heatmap.json").read_text(encoding="utf-8"))
    assert heatmap["matrix"] == similarity.mean(["embedding"]).tolist()
    assert (folder / "heatmap.png").read_bytes().startswith(b"\x89PNG")
    page = (folder / "report.html").read_text(encoding="utf-8")
    assert "Portuguese" in page and "adjusted Rand index" in page and 'id="results"' in page and 'id="choice"' in page
    assert {path.stem for path in (folder / "figures").glob("*.png")} >= {"heatmap", "steps", "arms"}
    groups = json.loads((folder / "groups.json").read_text(encoding="utf-8"))
    assert sorted(x for group in groups["all"]["groups"] for x in group) == sorted(similarity.tasks)
    assert [row["num_groups"] for row in groups["choice"]["candidates"]] == [1, 8]
    assert groups["selection"]["optimal"] and not groups["all"]["optimal"]
    assert len(groups["selection"]["groups"]) == 8
    results = json.loads((folder / "results.json").read_text(encoding="utf-8"))
    assert {len(runs) for runs in results["comparison"]["trained"].values()} == {2}
    assert len(results["comparison"]["trained"]["GradVac"][0]["accuracy"]) == 16
    assert sum(results["seconds"].values()) > 0


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["demo", "--device", "tpu9"], "--device must be cpu, cuda or cuda:N, not 'tpu9'"),
        (["demo", "--device", "cuda:77"], "cuda:77 is not there"),
        (["demo", "--seeds", "1"], "--seeds"),
        (["demo", "--steps", "no"], "--steps"),
        (["demo", "--seed", "-4"], "--seed must be between"),
        (["demo", "--colour"], "--colour"),
        (["paint"], "paint"),
    ],
)
def test_errors_are_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], words: str
) -> None:
    out = ["--out", str(tmp_path / "out")] if arguments[0] == "demo" else []
    assert main([*arguments, *out]) == 2
    printed = capsys.readouterr()
    assert words in printed.err and printed.err.startswith("gradsim: ") and printed.err.count("\n") == 1
    assert printed.out == ""
    assert not (tmp_path / "out").exists()


def test_a_file_in_the_way(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").write_text("mine")
    assert "is no folder" in error_of(gradsim("demo", "--out", tmp_path / "file"))
    assert main(["demo", "--out", str(tmp_path / "file" / "deeper")]) == 2
    assert "is no folder" in capsys.readouterr().err
    assert (tmp_path / "file").read_text() == "mine"


@pytest.mark.parametrize("missing", ["typer", "rich", "scipy"])
def test_without_an_extra_one_sentence(tmp_path: Path, missing: str) -> None:
    done = gradsim("demo", "--quick", "--out", tmp_path / "out", before=f"sys.modules[{missing!r}] = None")
    assert f"{missing}: pip install 'gradsim-kernels[demo]'" in error_of(done)
    assert not (tmp_path / "out").exists()  # found before anything is computed or written


def test_help_and_doctor(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["demo", "--help"]) == 0
    shown = capsys.readouterr().out
    assert "Example: gradsim demo" in shown and "--quick" in shown
    assert main([]) == 0
    assert "doctor" in capsys.readouterr().out
    doctor = gradsim("doctor")
    assert doctor.returncode == 0 and "reference" in doctor.stdout
