"""One measurement in its three ways, against the gradients of `backward()` in float64."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest
import torch
from similarity.toys import (
    GROUPS,
    TASKS,
    Batch,
    LiveRows,
    Toy,
    batch,
    batches,
    cosine,
    gradient,
    grouped,
    loss_fn,
    matrices,
    toy,
)
from torch import Tensor, nn

from gradsim.similarity import Measurements, Similarity

WAYS: list[dict[str, Any]] = [{}, {"tasks_at_once": 1}, {"tasks_at_once": 3}, {"projection": 64}]
EXACT = WAYS[:3]
OPTIONS: dict[str, Any] = {"exclude": "heads"}


def meter(model: nn.Module | None = None, **options: Any) -> Measurements:
    return Measurements(toy() if model is None else model, TASKS, loss_fn, **OPTIONS | options)


@pytest.mark.parametrize("way", EXACT)
def test_cosines_norms_and_within_are_those_of_backward(way: dict[str, Any]) -> None:
    model = toy()
    measured = meter(model, **way)
    first, second = batches(1), batches(2)
    measured.measure(first, second)
    similarity = measured.similarity()
    assert similarity.groups == list(GROUPS) and similarity.tasks == TASKS
    np.testing.assert_allclose(similarity.cosine.numpy(), matrices(model, first), atol=2e-6)
    for k, prefixes in enumerate(GROUPS.values()):
        for i, task in enumerate(TASKS):
            a, b = (grouped(gradient(model, one[task]), prefixes) for one in (first, second))
            assert similarity.norms[k, i].item() == pytest.approx(np.linalg.norm(a), rel=1e-5)
            assert similarity.within[k, i].item() == pytest.approx(cosine(a, b), abs=2e-6)


def test_projection_is_exact_where_a_group_fits_and_near_elsewhere() -> None:
    model = toy()
    measured = meter(model, projection=64)
    for _ in range(40):  # the same batches, other places
        measured.measure(batches(1), batches(2))
    similarity, exact = measured.similarity(), matrices(model, batches(1))
    facts = similarity.metadata["measured"]
    assert facts["exact_groups"] == ["norm"] and facts["standard_error"] == 64**-0.5
    norm = list(GROUPS).index("norm")
    np.testing.assert_allclose(similarity.cosine[norm].numpy(), exact[norm], atol=2e-6)
    off = ~np.eye(4, dtype=bool)
    errors = (similarity.cosine.numpy() - exact)[:norm, off]
    assert 0 < np.abs(errors).max() < 4 * (64 * 40) ** -0.5 + 0.2 / 64
    for k, prefixes in enumerate(GROUPS.values()):
        norms = [np.linalg.norm(grouped(gradient(model, one), prefixes)) for one in batches(1).values()]
        np.testing.assert_allclose(similarity.norms[k].numpy(), norms, rtol=1e-5)  # exact, whatever the projection
    true = [cosine(*(grouped(gradient(model, batches(s)["ha"]), GROUPS["layers.0"]) for s in (1, 2)))]
    assert similarity.within[1, 1].item() == pytest.approx(true[0], abs=4 * (64 * 40) ** -0.5 + 0.2 / 64)


def test_the_blocks_do_not_matter() -> None:
    results = []
    for size in (1, 2, 3, 4, 9):
        measured = meter(tasks_at_once=size)
        measured.measure(batches(1), batches(2))
        results.append(measured.similarity())
    for other in results[1:]:
        for name in ("cosine", "within", "norms"):
            torch.testing.assert_close(getattr(other, name), getattr(results[0], name), atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("way", WAYS)
def test_missing_tasks_and_second_batches(way: dict[str, Any]) -> None:
    measured = meter(**way)
    full, again = batches(1), batches(2)
    measured.measure({task: full[task] for task in ("sw", "am")}, {task: again[task] for task in ("ha", "sw")})
    measured.measure({task: full[task] for task in ("ha", "sw")})
    similarity = measured.similarity()
    count = similarity.count[0]
    expected = torch.zeros(4, 4, dtype=torch.int64)
    am, ha, _, sw = range(4)
    for i, j in ((am, sw), (sw, am), (ha, sw), (sw, ha), (am, am), (ha, ha)):
        expected[i, j] = 1
    expected[sw, sw] = 2
    assert torch.equal(count, expected)
    assert similarity.within.isfinite().tolist() == [[False, False, False, True]] * 4
    assert similarity.norms.isfinite().tolist() == [[True, True, False, True]] * 4
    if "projection" not in way:
        exact = matrices(toy(), full)
        np.testing.assert_allclose(similarity.cosine[:, am, sw].numpy(), exact[:, am, sw], atol=2e-6)
        np.testing.assert_allclose(similarity.cosine[:, sw, ha].numpy(), exact[:, sw, ha], atol=2e-6)


@pytest.mark.parametrize("way", WAYS)
def test_zero_and_broken_gradients_are_not_counted(way: dict[str, Any]) -> None:
    def scaled(model: nn.Module, batch: Batch) -> Tensor:
        return loss_fn(model, batch) * {"am": 0.0, "ha": 1.0, "ig": float("inf"), "sw": 1.0}[batch[0]]

    measured = Measurements(toy(), TASKS, scaled, **OPTIONS, **way)
    measured.measure(batches(1), batches(2))
    similarity = measured.similarity()
    alive = torch.tensor([False, True, False, True])
    assert torch.equal(similarity.count > 0, (alive[:, None] & alive[None]).expand(4, 4, 4))
    assert torch.equal(similarity.within.isfinite(), alive.expand(4, 4))
    assert torch.equal(similarity.norms.isfinite(), alive.expand(4, 4))


@pytest.mark.parametrize("way", WAYS)
def test_a_norm_that_overflows_gives_no_cosine(way: dict[str, Any]) -> None:
    """Its products with the others are finite, and dividing them by infinity would give 0."""

    def scaled(model: nn.Module, batch: Batch) -> Tensor:
        return loss_fn(model, batch) * (1e200 if batch[0] == "am" else 1.0)

    measured = Measurements(toy().double(), TASKS, scaled, **OPTIONS, **way)
    measured.measure(batches(1))
    similarity = measured.similarity()
    assert not similarity.count[:, 0].any() and not similarity.count[:, :, 0].any()
    assert similarity.count[:, 1:, 1:].min() == 1


@pytest.mark.parametrize("way", WAYS)
def test_what_a_task_does_not_reach_counts_as_zero(way: dict[str, Any]) -> None:
    if "projection" in way:
        way = {"projection": 192}  # holds the heads as they are
    measured = Measurements(toy(), TASKS, loss_fn, granularity={"heads": "heads", "": "body"}, **way)
    measured.measure(batches(1))
    similarity = measured.similarity()
    heads = similarity.cosine[similarity.groups.index("heads")]
    torch.testing.assert_close(heads, torch.eye(4, dtype=torch.float64))  # each has its own head
    assert similarity.count.min() == 1


def test_frozen_parameters_are_left_out() -> None:
    model = toy()
    model.embed.requires_grad_(False)
    for p in model.layers[1].parameters():
        p.requires_grad_(False)
    measured = meter(model)
    measured.measure(batches(1))
    similarity = measured.similarity()
    assert similarity.groups == ["layers.0", "norm"]
    assert similarity.metadata["measured"]["parameters"] == {"layers.0": 156, "norm": 24}
    np.testing.assert_allclose(similarity.cosine.numpy(), matrices(model, batches(1))[[1, 3]], atol=2e-6)


def test_sparse_gradients_and_half_precision() -> None:
    model = toy()
    model.embed.sparse = True
    measured = meter(model)
    measured.measure(batches(1))
    np.testing.assert_allclose(measured.similarity().cosine.numpy(), matrices(toy(), batches(1)), atol=2e-6)
    half = meter(toy().bfloat16(), projection=64)
    half.measure(batches(1))
    assert half.similarity().cosine.isfinite().all()


@pytest.mark.parametrize("way", WAYS)
def test_dropout_is_the_same_for_every_task_and_call(way: dict[str, Any]) -> None:
    same = {task: ("am", *batch("am", 1)[1:]) for task in TASKS}
    measured = meter(train_mode=True, **way)
    measured.measure(same, same)
    similarity = measured.similarity()
    torch.testing.assert_close(similarity.cosine, torch.ones(4, 4, 4, dtype=torch.float64), atol=1e-6, rtol=0)
    torch.testing.assert_close(similarity.within, torch.ones(4, 4, dtype=torch.float64), atol=1e-6, rtol=0)
    measured.measure(same)
    if "projection" not in way:
        assert measured.similarity().std.max() < 1e-7
    evaluated = meter(**way)
    evaluated.measure(same)
    assert not torch.allclose(evaluated.similarity().norms, similarity.norms)  # dropout was on above
    other = meter(train_mode=True, seed=1, **way)
    other.measure(same)
    assert not torch.allclose(other.similarity().norms, similarity.norms)


@pytest.mark.parametrize(
    ("way", "most", "made"),
    [({}, 5, 8), ({"tasks_at_once": 1}, 2, 14), ({"tasks_at_once": 2}, 3, 10), ({"projection": 64}, 1, 8)],
)
def test_rows_in_memory_and_backward_passes(way: dict[str, Any], most: int, made: int) -> None:
    measured = meter(**way)
    with LiveRows().watch() as live:
        measured.measure(batches(1), batches(2))
    assert (live.most, live.made, live.now) == (most, made, 0)
    assert measured.source.taken == made


@pytest.mark.parametrize("way", WAYS)
def test_state_goes_on_bit_for_bit(way: dict[str, Any]) -> None:
    model = toy()
    whole, part, rest = (meter(model, **way) for _ in range(3))
    for step in range(4):
        for one in (whole, part if step < 2 else rest):
            if one is rest and step == 2:
                file = io.BytesIO()
                torch.save(part.state_dict(), file)
                file.seek(0)
                rest.load_state_dict(torch.load(file, weights_only=True))
            one.measure(batches(step), batches(step + 9), step=step * 10)
    assert rest.similarity() == whole.similarity()
    assert rest.similarity().steps.tolist() == [0, 10, 20, 30]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"seed": 1}, "another seed: 0, not 1"),
        ({"projection": 64}, "another projection: None, not 64"),
        ({"train_mode": True}, "another train_mode"),
        ({"granularity": "whole_model"}, "another granularity: all_layer, not whole_model"),
        ({"exclude": ("heads", "norm")}, "another parameters"),
    ],
)
def test_states_of_other_settings_are_refused(options: dict[str, Any], words: str) -> None:
    first = meter()
    first.measure(batches(1))
    with pytest.raises(ValueError, match=words):
        meter(**options).load_state_dict(first.state_dict())
    other = Measurements(toy(), TASKS[::-1], loss_fn, **OPTIONS)
    with pytest.raises(ValueError, match="other tasks"):
        other.load_state_dict(first.state_dict())
    with pytest.raises(ValueError, match="not the state of measurements"):
        meter().load_state_dict({"settings": {}})


@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        (({"xx": batch("am", 0)},), ValueError, "batches has the unknown task 'xx'; the tasks are am, ha, ig, sw"),
        (({},), ValueError, "batches must hold a batch of at least one task"),
        (([1],), TypeError, "batches must be a mapping from tasks to batches, not list"),
        ((batches(0), {"xx": 1}), ValueError, "again has the unknown task 'xx'"),
    ],
)
def test_bad_batches(arguments: Any, error: type[Exception], words: str) -> None:
    measured = meter()
    with pytest.raises(error, match=words):
        measured.measure(*arguments)
    assert measured.recorder.measurements == 0


@pytest.mark.parametrize(
    ("result", "error", "words"),
    [
        (3.0, TypeError, "loss_fn must return a tensor, but for task 'am' it gave a float"),
        (torch.zeros(3, requires_grad=True), ValueError, r"one floating-point number, but .* torch.float32 \[3\]"),
        (torch.zeros((), dtype=torch.int64), ValueError, "one floating-point number"),
        (torch.zeros(()), ValueError, "loss for task 'am' that depends on no trained parameter"),
    ],
)
def test_bad_losses(result: Any, error: type[Exception], words: str) -> None:
    measured = Measurements(toy(), TASKS, lambda model, batch: result, **OPTIONS)
    with pytest.raises(error, match=words):
        measured.measure(batches(0))
    assert measured.recorder.measurements == 0


def frozen() -> Toy:
    return toy().requires_grad_(False)


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"model": "bert"}, TypeError, "model must be a torch.nn.Module, not str"),
        ({"model": frozen()}, ValueError, "model has no parameter that requires gradients"),
        ({"model": nn.Linear(2, 2, dtype=torch.complex64)}, TypeError, "parameter weight must be real"),
        ({"tasks": "am"}, TypeError, "tasks must be a list of names, not the string 'am'"),
        ({"tasks": ["am", "am"]}, ValueError, "doubled: am"),
        ({"loss_fn": None}, TypeError, "loss_fn must be callable"),
        ({"granularity": "layer"}, ValueError, "granularity must be one of"),
        ({"exclude": ".*"}, ValueError, "leave no parameter that requires gradients"),
        ({"tasks_at_once": 0}, ValueError, "tasks_at_once must be at least 1, not 0"),
        ({"tasks_at_once": True}, TypeError, "tasks_at_once must be an integer or None, not bool"),
        ({"projection": 100}, ValueError, "projection must be a positive multiple of 64, not 100"),
        ({"projection": 64.0}, TypeError, "projection must be an integer or None, not float"),
        ({"projection": 64, "tasks_at_once": 2}, ValueError, "exclude each other"),
        ({"seed": -1}, ValueError, "seed must lie between"),
        ({"seed": "0"}, TypeError, "seed must be an integer"),
        ({"train_mode": "eval"}, TypeError, "train_mode must be True or False, not 'eval'"),
    ],
)
def test_bad_arguments(options: dict[str, Any], error: type[Exception], words: str) -> None:
    given = {"model": toy(), "tasks": TASKS, "loss_fn": loss_fn} | options
    with pytest.raises(error, match=words):
        Measurements(given.pop("model"), given.pop("tasks"), given.pop("loss_fn"), **given)


def test_metadata_and_the_file(tmp_path: Any) -> None:
    measured = meter(tasks_at_once=2)
    measured.measure(batches(1), batches(2), step=7)
    similarity = measured.similarity({"model": "toy"})
    assert similarity.metadata["model"] == "toy"
    facts = similarity.metadata["measured"]
    assert (facts["measurements"], facts["tasks_at_once"], facts["granularity"]) == (1, 2, "all_layer")
    similarity.save(tmp_path / "s.safetensors")
    assert Similarity.load(tmp_path / "s.safetensors") == similarity
