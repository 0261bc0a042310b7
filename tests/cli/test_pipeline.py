"""`gradsim similarity | group | train | report`, one after the other as a user runs them, on tiny data."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from gradsim.cli import main
from gradsim.similarity import Similarity
from gradsim.training import Results

for needed in ("typer", "rich", "matplotlib", "scipy", "sklearn", "jinja2"):
    pytest.importorskip(needed)

WORDS = {
    "hau": ("kyau", "mugu", "rana"),
    "ibo": ("mma", "njo", "taa"),
    "por": ("bom", "mau", "hoje"),
    "yor": ("dara", "buru", "oni"),
}
SMALL = ["--model-option", "width=8", "--model-option", "layers=1", "--model-option", "heads=2"]
SMALL += ["--model-option", "buckets=64", "--batch", "4"]
FAMILIES = {"hau": "Chadic", "ibo": "Volta-Niger", "por": "Romance", "yor": "Volta-Niger"}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data") / "tiny"
    for task, words in WORDS.items():
        (folder / task).mkdir(parents=True)
        for split, count in (("train", 24), ("dev", 6), ("test", 9)):
            rows = [f"{words[i % 3]} {words[i % 3]} {i}\t{('good', 'bad', 'none')[i % 3]}" for i in range(count)]
            (folder / task / f"{split}.tsv").write_text("\n".join(["tweet\tlabel", *rows]) + "\n", encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def run(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with everything that the four commands leave."""
    folder = tmp_path_factory.mktemp("run")
    families = folder / "families.json"
    families.write_text(json.dumps(FAMILIES))
    measure = ["similarity", "--data", str(data), "--out", str(folder / "measured"), "--steps", "6", "--batches", "3"]
    assert main([*measure, "--measure-batch", "4", *SMALL]) == 0
    file = str(folder / "measured" / "similarity.safetensors")
    groups = str(folder / "groups.json")
    assert main(["group", file, "--groups", "2", "--out", groups, "--resamples", "4"]) == 0
    train = ["train", "--data", str(data), "--groups", groups, "--out", str(folder / "trained"), "--steps", "4"]
    assert main([*train, "--seeds", "2", "--random", "1", "--families", str(families), *SMALL]) == 0
    assert main(["report", str(folder), "--out", str(folder / "page"), "--families", str(families)]) == 0
    return folder


def test_similarity_leaves_one_file(run: Path) -> None:
    assert [path.name for path in (run / "measured").rglob("*.safetensors")] == ["similarity.safetensors"]
    similarity = Similarity.load(run / "measured" / "similarity.safetensors")
    assert similarity.tasks == list(WORDS)
    assert similarity.samples is not None and similarity.steps is not None and similarity.within is not None
    assert similarity.samples.shape[0] == 3 and similarity.steps.tolist()[-1] == 6
    assert similarity.to_dict() == json.loads((run / "measured" / "similarity.json").read_text(encoding="utf-8"))
    shown = json.loads((run / "measured" / "heatmap.json").read_text(encoding="utf-8"))
    assert shown["matrix"] == similarity.mean().tolist()
    assert (run / "measured" / "heatmap.png").read_bytes().startswith(b"\x89PNG")


def test_group_writes_what_it_chose_and_why(run: Path) -> None:
    groups = json.loads((run / "groups.json").read_text(encoding="utf-8"))
    assert len(groups["groups"]) == 2 and groups["optimal"]
    assert sorted(task for group in groups["groups"] for task in group) == list(WORDS)
    assert [row["num_groups"] for row in groups["choice"]["candidates"]] == [1, 2, 3, 4]
    assert groups["choice"]["reason"]


def test_train_scores_every_arm(run: Path) -> None:
    results = Results.load(run / "trained" / "results.json")
    assert {"groups", "all", "single", "random", "families", "majority"} == {arm.kind for arm in results.arms}
    assert {arm.method for arm in results.arms if arm.kind == "groups"} == {"sum", "gradvac"}
    assert all(len(scores) == 2 for arm in results.arms for scores in arm.scores.values())
    assert set(results.transfer) == set(WORDS)


def test_report_holds_what_there_is(run: Path) -> None:
    page = (run / "page" / "report.html").read_text(encoding="utf-8")
    for words in ("hau", "yor", "GradVac", "weighted F1", "Rand"):
        assert words in page, words
    pictures = sorted((run / "page" / "figures").glob("*.png"))
    assert pictures and all(picture.with_suffix(".json").is_file() for picture in pictures)


def test_the_same_commands_again_change_nothing(run: Path, data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = {path: path.read_bytes() for path in (run / "measured" / "similarity.safetensors",)}
    results = Results.load(run / "trained" / "results.json")
    measure = ["similarity", "--data", str(data), "--out", str(run / "measured"), "--steps", "6", "--batches", "3"]
    assert main([*measure, "--measure-batch", "4", *SMALL]) == 0
    train = ["train", "--data", str(data), "--groups", str(run / "groups.json"), "--out", str(run / "trained")]
    more = ["--steps", "4", "--seeds", "2", "--random", "1", "--families", str(run / "families.json"), *SMALL]
    assert main([*train, *more]) == 0
    assert {path: path.read_bytes() for path in before} == before
    assert Results.load(run / "trained" / "results.json") == results
    capsys.readouterr()
    # with other settings the folder is refused
    assert main([*measure, "--measure-batch", "5", *SMALL]) == 2
    assert main([*train, *more, "--learning-rate", "0.5"]) == 2
    refused = capsys.readouterr().err.splitlines()
    assert len(refused) == 2 and "learning_rate" in refused[1], refused
    assert {path: path.read_bytes() for path in before} == before


def test_group_takes_a_folder_and_recommends(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "auto.json"
    layer = Similarity.load(run / "measured" / "similarity.safetensors").groups[0]
    options = ["--out", str(out), "--resamples", "2", "--layers", layer, "--alone", "forbidden"]
    assert main(["group", str(run / "measured"), *options]) == 0
    content = json.loads(out.read_text(encoding="utf-8"))
    assert len(content["groups"]) == content["choice"]["recommended"]
    assert content["similarity"]["groups"] == [layer]
    assert min(map(len, content["groups"])) > 1
    assert "recommended" in capsys.readouterr().out


def test_report_of_a_similarity_alone(run: Path, tmp_path: Path) -> None:
    file = run / "measured" / "similarity.safetensors"
    assert main(["report", str(file), "--out", str(tmp_path / "page"), "--title", "Only <this>"]) == 0
    page = (tmp_path / "page" / "report.html").read_text(encoding="utf-8")
    assert "Only &lt;this&gt;" in page and 'id="similarity"' in page and 'id="results"' not in page


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["similarity", "--out", "x"], "--data"),
        (["similarity", "--data", "./nowhere", "--out", "x"], "--data ./nowhere is not there"),
        (["similarity", "--data", "{data}", "--out", "x", "--tasks", "hau,xxx"], "no task 'xxx'"),
        (["similarity", "--data", "{data}", "--out", "x", "--granularity", "all_thing"], "granularity"),
        (["similarity", "--data", "{data}", "--out", "x", "--model-option", "width"], "NAME=VALUE"),
        (["group", "nowhere.safetensors"], "nowhere.safetensors is not there"),
        (["group", "{run}/groups.json"], "groups.json"),
        (["group", "{run}/measured", "--groups", "many"], "--groups must be a number or auto, not 'many'"),
        (["group", "{run}/measured", "--groups", "9", "--no-choose"], "num_groups must be between 1"),
        (["group", "{run}/measured", "--groups", "auto", "--no-choose"], "needs --choose"),
        (["group", "{run}/measured", "--layers", "nope"], "groups must be among"),
        (["group", "{run}/measured", "--out", "no/such/folder/g.json", "--groups", "2"], "is no folder"),
        (["train", "--data", "{data}", "--groups", "{data}/hau/dev.tsv", "--out", "x"], "is no JSON"),
        (["train", "--data", "{data}", "--groups", "{run}/families.json", "--out", "x"], "is no task grouping"),
        (["train", "--data", "{data}", "--groups", "{run}/groups.json", "--out", "x", "--gradvac", "nope"], "nope"),
        (["report", "{data}"], "nothing to report"),
        (["report", "{run}/families.json"], "is neither a similarity nor"),
        (["report", "{run}/measured", "--typology", "{run}/families.json"], "langs"),
        (["report", "{run}/measured", "--device", "tpu"], "--device must be"),
        (["bench", "--tasks", "1"], "--tasks"),
    ],
)
def test_errors_are_one_line(
    run: Path,
    data: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    words: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main([argument.format(run=run, data=data) for argument in arguments]) == 2
    printed = capsys.readouterr()
    assert printed.err.startswith("gradsim: ") and printed.err.count("\n") == 1, printed.err
    assert words in printed.err
    assert not list(tmp_path.rglob("*.safetensors")) and not list(tmp_path.rglob("results.json"))


@pytest.mark.parametrize("command", ["similarity", "group", "train", "report", "bench", "demo", "doctor"])
def test_help_shows_an_example(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([command, "--help"]) == 0
    shown = capsys.readouterr().out
    assert f"Example: gradsim {command}" in shown
    if command != "doctor":
        assert all(option in shown for option in ("--seed", "--device", "--out"))


def test_bench_times_every_backend(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    size = ["--tasks", "3", "--elements", "1000", "--groups", "2", "--repeats", "3"]
    assert main(["bench", *size, "--out", str(tmp_path)]) == 0
    content = json.loads((tmp_path / "bench.json").read_text(encoding="utf-8"))
    assert {"copy", "reference"} <= set(content["rows"]) and content["torch"] == torch.__version__
    assert content["rows"]["reference"]["least_bytes"] == 4 * 1000 * 4
    assert "reference" in capsys.readouterr().out
