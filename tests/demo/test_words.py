"""The pieces of the demo: features, batches, dictionary, measurements and the comparison's arithmetic."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from gradsim.data import LANGUAGES, NameTable, hold_out

pytest.importorskip("babel")
pytest.importorskip("rich")

from gradsim.cli.demo.comparison import Comparison
from gradsim.cli.demo.measuring import Measurements
from gradsim.cli.demo.model import BUCKETS, NameClassifier, encode
from gradsim.cli.demo.settings import Settings
from gradsim.cli.demo.tables import verdicts
from gradsim.cli.demo.training import Trained, train_with
from gradsim.cli.demo.words import Words


def tiny(held_out: float = 0.25) -> Words:
    """Three languages, eight concepts."""
    names = (
        tuple(f"wort{c}" for c in range(8)),
        tuple(f"woord{c}" for c in range(8)),
        ("wort0", "wort1", *(f"слово{c}" for c in range(2, 8))),
    )
    table = NameTable(LANGUAGES[:3], tuple(f"concept:{c}" for c in range(8)), names)
    return Words(table, [held_out] * 3, seed=1, device="cpu")


def test_encoding_is_the_same_in_every_process() -> None:
    mine = encode(["Österreich", "ab"])
    assert int((mine[1] < BUCKETS).sum()) == 4 + 3 + 2  # ^ab$: four characters, three pairs, two triples
    assert torch.equal(encode(["AB"])[0], mine[1])
    code = "from gradsim.cli.demo.model import encode; print(encode(['Österreich', 'ab']).tolist())"
    paths = ":".join(sys.path)
    env = {"PYTHONPATH": paths, "PYTHONHASHSEED": "7"}
    other = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=env, check=True).stdout
    assert other.strip() == str(mine.tolist())


def test_nothing_held_out_is_trained_on() -> None:
    words = tiny(0.5)
    batches = list(words.batches(50, 4, seed=3))
    for task in range(3):
        seen = {int(concept) for batch in batches for concept in batch[task][1]}
        held = set(torch.nonzero(words.held[task]).flatten().tolist())
        assert seen.isdisjoint(held) and seen | held == set(range(8))
    again = list(words.batches(50, 4, seed=3))
    assert all(torch.equal(a[0], b[0]) for x, y in zip(batches, again, strict=True) for a, b in zip(x, y, strict=True))


def test_dictionary() -> None:
    words = tiny()
    words.held = torch.zeros(3, 8, dtype=torch.bool)
    words.held[2, [0, 5]] = True  # "wort0" is spelt so in the first language, "слово5" nowhere
    words.held[1, 3] = True
    words.held[0, 3] = True
    assert words.lookup_accuracy() == [0.0, 0.0, 0.5]


def test_measurements_against_plain_gradients() -> None:
    words = tiny()
    torch.manual_seed(0)
    model = NameClassifier(8, width=6, hidden=5)
    measurements = Measurements(words, model, seed=0)
    measurements.measure(1)
    similarity = measurements.similarity()
    assert similarity.groups == ["embedding", "hidden", "output"]
    # one gradient over all names per task, in float64: with halves of equal size it is the mean of theirs
    model.double()
    for k, group in enumerate(similarity.groups):
        rows = []
        for task in range(3):
            model.zero_grad()
            model.loss(*words.pick(task, torch.arange(8))).backward()
            rows.append(torch.cat([p.grad.flatten() for p in getattr(model, group).parameters() if p.grad is not None]))
        J = torch.stack(rows)
        norms = J.norm(dim=1)
        torch.testing.assert_close(similarity.cosine[k], (J @ J.T) / norms / norms[:, None], atol=1e-5, rtol=0)
        assert similarity.norms is not None
        torch.testing.assert_close(similarity.norms[k], norms, atol=1e-6, rtol=1e-5)
    assert similarity.within is not None and bool((similarity.within.abs() <= 1).all())
    assert int(similarity.count.unique()) == 1


def test_same_seed_same_training(tmp_path: Path) -> None:
    settings = Settings.choose(tmp_path, seed=0, seeds=2, device="cpu", steps=6, quick=True)
    for method in ("plain sum", "PCGrad", "GradVac"):
        first, second = (train_with(method, tiny(), settings, 5, lambda: None) for _ in range(2))
        assert first.accuracy == second.accuracy
        assert (first.corrections is None) == (method == "plain sum")


def test_rows_are_paired_by_seed() -> None:
    def run(*accuracy: float) -> Trained:
        return Trained(list(accuracy), 1.0)

    trained = {"plain sum": [run(0.2, 0.6), run(0.4, 0.8)], "GradVac": [run(0.3, 0.6), run(0.5, 1.0)]}
    comparison = Comparison(["a", "b"], ["b"], trained, [[0.0, 0.5], [0.0, 0.7]])
    row = comparison.row("GradVac", ["a", "b"])
    assert row.mean == pytest.approx((0.45 + 0.75) / 2)
    assert row.gain == pytest.approx((0.05 + 0.15) / 2)
    assert row.gain_std == pytest.approx(0.1 / 2**0.5)
    assert comparison.worst() == "a"
    assert comparison.lookup_of(["b"]) == pytest.approx(0.6)
    assert comparison.row("plain sum", ["b"]).gain == 0.0


def test_verdicts_say_it_whichever_way_it_falls() -> None:
    def run(accuracy: float) -> Trained:
        return Trained([accuracy], 1.0)

    plain = [run(0.5), run(0.6)]
    for first, second, words in [
        (0.6, 0.72, "better"),
        (0.4, 0.48, "worse"),
        (0.6, 0.5, "no difference"),
        (0.75, 0.85, "better"),
    ]:
        trained = {"plain sum": plain, "PCGrad": [run(first), run(second)], "GradVac": plain}
        sentences = verdicts(Comparison(["a"], ["a"], trained, [[0.0], [0.0]]))
        assert sentences[0].startswith("PCGrad") and words in sentences[0]
        assert sentences[1].startswith("GradVac") and "no difference" in sentences[1]


def test_settings() -> None:
    whole = Settings.choose(Path("x"), seed=0, seeds=3, device="cpu", steps=None, quick=False)
    assert (whole.steps, whole.surgery_steps, whole.measure_every) == (600, 300, 50)
    one = Settings.choose(Path("x"), seed=0, seeds=3, device="cpu", steps=1, quick=False)
    assert (one.steps, one.surgery_steps, one.measure_every) == (1, 1, 1)


def test_the_split_of_the_comparison_trains_every_concept() -> None:
    assert not hold_out(599, [0.25, 0.75] * 8, seed=0).all(dim=0).any()
