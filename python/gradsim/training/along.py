"""Train one model on all tasks and measure on the way how similar the gradients of the tasks are."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import chain
from os import PathLike
from pathlib import Path
from typing import Any

import torch

from gradsim.data.tasks import Example, TaskSet
from gradsim.gradients.granularity import Expression, Granularity, Spec
from gradsim.models.model import Batch, TextModel
from gradsim.similarity import Similarity
from gradsim.similarity.measurements import Measurements
from gradsim.training.budget import Budget
from gradsim.training.checkpoint import Checkpoint, differences
from gradsim.training.evaluate import evaluate
from gradsim.training.files import locked
from gradsim.training.loop import Training, on_device
from gradsim.training.numbers import check_real, check_whole
from gradsim.training.randomness import random_state, seeded, set_random_state
from gradsim.training.settings import describe_data, describe_model, described, plain, versions
from gradsim.training.ticks import Tick, catch_up, quiet

__all__ = ["SIMILARITY", "measure_along", "measured_after"]

SIMILARITY = "similarity.safetensors"
_CHECKPOINT = "similarity.checkpoint"


def measure_along(
    model: TextModel,
    tasks: TaskSet,
    folder: str | PathLike[str],
    *,
    steps: int,
    measurements: int,
    batch: int,
    measure_batch: int,
    learning_rate: float,
    warmup: float = 0.1,
    weight_decay: float = 0.01,
    clip_norm: float = 1.0,
    seed: int = 0,
    device: str | torch.device = "cpu",
    granularity: Granularity | Spec = "all_layer",
    exclude: Expression | Sequence[Expression] = (),
    tasks_at_once: int | None = None,
    projection: int | None = None,
    train_mode: bool = False,
    checkpoint_seconds: float = 30.0,
    settings: Mapping[str, Any] | None = None,
    tick: Tick = quiet,
) -> Similarity:
    """Train one model on all tasks (the plain sum of their losses) and measure at evenly spread steps.

    Measurement k of K follows step `round(k * steps / K)`, the last one the last step; with `steps=0` all of them are
    made at the first or pretrained weights, on different examples. Each compares two batches per task that share no
    example (of few examples, two halves), so that `.within` is there to compare with; which examples these are follows
    from the seed, the task's name and k. Single measurements and their steps are kept in `.samples` and `.steps`. The
    training is that of `Training` with uniform sampling.

    `folder/similarity.safetensors` is written when all is done. Killed before, the same call goes on from
    `folder/similarity.checkpoint` and ends with the same numbers, bit for bit (as `train_one`); after, it returns what
    the file holds. Tasks without training examples are left out.

    Args:
        model: the model.
        tasks: the data.
        folder: made if it is not there.
        steps: optimizer steps, 0 or more; measurements: their number, at least 1 and at most `steps` unless that is 0.
        batch: samples per task in a training step; measure_batch: in each of the two batches of a measurement.
        learning_rate, warmup, weight_decay, clip_norm: see `Budget`.
        seed, device, granularity, exclude, tasks_at_once, projection, train_mode: see `Measurements`.
        checkpoint_seconds: the least time between two checkpoints.
        settings: what else the result depends on and only the caller knows, as JSON takes it; it is compared with that
            of a checkpoint or a finished file, and stands in the metadata.
        tick: called once for every step and every measurement, also for those that an earlier process made.

    Returns:
        The `Similarity`, with metadata: model, data, settings, versions, `dev_scores` (task -> metric -> value of the
        joint model, where there are dev examples and steps) and `label_shares` (task -> label -> its share of the
        training labels; empty for text).

    Raises:
        ValueError, TypeError: arguments out of range; a folder with other settings or another process in it; a training
            that diverged. OSError: the folder cannot be read or written.
    """
    check_whole("steps", steps, 0)
    check_whole("measurements", measurements, 1)
    check_whole("measure_batch", measure_batch, 1)
    check_whole("seed", seed, 0)
    check_real("checkpoint_seconds", checkpoint_seconds, least=0.0)
    if 0 < steps < measurements:
        raise ValueError(f"measurements must be at most steps ({steps}), not {measurements}")
    if tasks_at_once is not None and projection is not None:
        raise ValueError("tasks_at_once and projection exclude each other; give one of them")
    budget = Budget(max(steps, 1), batch, learning_rate, warmup, True, weight_decay, clip_norm)
    tasks = tasks.trainable()
    device = torch.device(device)
    folder = Path(folder)
    run = {
        "kind": "similarity",
        "data": describe_data(tasks),
        "model": describe_model(model, tasks),
        "budget": budget.to_dict() | {"steps": steps},
        "measurements": {
            "number": measurements,
            "batch": measure_batch,
            "granularity": described(granularity, exclude),
            "tasks_at_once": tasks_at_once,
            "projection": projection,
            "train_mode": train_mode,
        },
        "seed": seed,
        "device": device.type,
        "versions": versions(),
        "settings": plain(settings or {}),
    }
    folder.mkdir(parents=True, exist_ok=True)
    with locked(folder):
        checkpoint = Checkpoint(folder / _CHECKPOINT, run, seconds=checkpoint_seconds)
        finished = _finished(folder / SIMILARITY, run)
        if finished is not None:
            catch_up(tick, steps + measurements)
        else:
            with seeded(seed, device):
                training = Training(model, tasks, budget, method="sum", seed=seed, device=device)
                recorded = Measurements(
                    training.module,
                    tasks.names,
                    model.loss,
                    granularity=granularity,
                    exclude=exclude,
                    tasks_at_once=tasks_at_once,
                    projection=projection,
                    seed=seed,
                    train_mode=train_mode,
                )
                _run(training, recorded, measured_after(steps, measurements), measure_batch, seed, checkpoint, tick)
                metadata = {
                    "run": run,
                    "source": tasks.source,
                    "dev_scores": _dev_scores(training) if steps else {},
                    "label_shares": _label_shares(tasks),
                }
            finished = recorded.similarity(metadata)
            finished.save(folder / SIMILARITY)
        checkpoint.remove()
    return finished


def measured_after(steps: int, measurements: int) -> list[int]:
    """The number of steps made before each measurement, evenly spread up to `steps`."""
    return [round(steps * (k + 1) / measurements) for k in range(measurements)]


def _run(
    training: Training,
    recorded: Measurements,
    after: list[int],
    measure_batch: int,
    seed: int,
    checkpoint: Checkpoint,
    tick: Tick,
) -> None:
    """Make all steps and measurements that are left."""
    made = 0  # measurements
    held = checkpoint.load()
    if held is not None:
        training.load_state_dict(held["training"])
        recorded.load_state_dict(held["recorded"])
        set_random_state(held["random"], training.device)
        made = held["made"]
        catch_up(tick, training.steps_done + made)
    while made < len(after):
        if training.steps_done < after[made]:
            training.step()
        else:
            batches, again = _drawn(training, measure_batch, f"{seed}/{made}")
            recorded.measure(batches, again, step=training.steps_done)
            made += 1
        tick()
        if made == len(after) or checkpoint.due():
            training.mean_loss()  # a training that has diverged must not be resumed from where it is
            state = {"training": training.state_dict(), "random": random_state(training.device), "made": made}
            checkpoint.save(state | {"recorded": recorded.state_dict()})


def _drawn(training: Training, size: int, key: str) -> tuple[dict[str, Batch], dict[str, Batch]]:
    """Two batches per task that share no example; of a task with a single one, one batch."""
    first, second = {}, {}
    for name, data in training.tasks.tasks.items():
        half = min(size, len(data.train) // 2)
        # Random of a string is the same in every process, unlike hash()
        chosen = random.Random(f"{key}/{name}").sample(range(len(data.train)), max(1, 2 * half))
        examples: list[Example] = [data.train[i] for i in chosen]
        first[name] = _batch(training, examples[:half] if half else examples)
        if half:
            second[name] = _batch(training, examples[half:])
    return first, second


def _batch(training: Training, examples: list[Example]) -> Batch:
    return on_device(training.model.batch(examples), training.device)


def _dev_scores(training: Training) -> dict[str, dict[str, float]]:
    return {
        name: evaluate(training.model, training.module, data.dev, training.tasks.problem, device=training.device)
        for name, data in training.tasks.tasks.items()
        if data.dev
    }


def _label_shares(tasks: TaskSet) -> dict[str, dict[str, float]]:
    shares = {}
    for name, data in tasks.tasks.items():
        given = [example.label for example in data.train if example.label is not None]
        counts = Counter(chain.from_iterable([x] if isinstance(x, int) else x for x in given))
        if counts:
            shares[name] = {label: counts[i] / counts.total() for i, label in enumerate(tasks.labels) if counts[i]}
    return shares


def _finished(path: Path, run: Mapping[str, Any]) -> Similarity | None:
    """What an earlier call has left; None if nothing. Raises `ValueError` for that of another run."""
    if not path.exists():
        return None
    similarity = Similarity.load(path)
    other = differences(similarity.metadata.get("run", {}), run)
    if other:
        more = f" (and {len(other) - 1} more)" if len(other) > 1 else ""
        raise ValueError(f"{path} was measured with other settings: {other[0]}{more}; use another folder")
    return similarity
