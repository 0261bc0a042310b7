"""GradSurgeryTrainer on two real processes under DistributedDataParallel, where each rank has other tasks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from distributed.launch import Outcome, run_all
from integrations import trainer_two as two
from integrations.trainer_parts import (
    assert_close,
    assert_equal,
    batches,
    by_hand,
    causal,
    parameters,
    texts,
    token_loss,
)

SURGERY = {"method": "gradvac", "beta": 0.3, "granularity": "all_layer"}
MONITOR = {"monitor": True}
ACCUMULATED = {"gradient_accumulation_steps": 2}
SAVING = {"save_strategy": "steps", "save_steps": 2, "max_steps": 4}


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Outcome]:
    """All of it in one launch: what costs most is importing transformers."""
    folder = tmp_path_factory.mktemp("two")
    jobs: dict[str, Any] = {
        "surgery": (two.trained, ("tokens", SURGERY, {})),
        "tokens": (two.trained, ("tokens", MONITOR, ACCUMULATED)),
        "tokens, plain": (two.plainly, ("tokens", ACCUMULATED)),
        "classes": (two.trained, ("classes", MONITOR, {})),
        "classes, plain": (two.plainly, ("classes", {})),
        "one backward": (two.trained, ("tokens", {**MONITOR, "one_backward": True}, ACCUMULATED)),
        "whole": (two.trained, ("tokens", SURGERY, SAVING)),
        "resumed": (two.trained, ("tokens", SURGERY, SAVING, str(folder / "whole" / "checkpoint-2"))),
        "sampler": (two.drawn, ()),
        "sft": (two.tuned, (True,)),
        "sft, plain": (two.tuned, (False,)),
    }
    made = [(function, (str(folder / name), *rest)) for name, (function, rest) in jobs.items()]
    return dict(zip(jobs, run_all(made, 2, init=False), strict=True))


def test_two_processes_train_as_one_on_the_whole_batch(outcomes: dict[str, Outcome]) -> None:
    """Against the loop written by hand on the samples of both ranks; both ranks end with the same bits."""
    (mine, _, state, logs), (other, _, others, _) = outcomes["surgery"].result()
    assert_equal(mine, other)
    assert all(torch.equal(x, others[name]) for name, x in state.items())
    expected = causal()
    steps = [[batch] for batch in batches(texts(), 6)][:3]
    operation = by_hand(expected, steps, token_loss, **SURGERY)
    assert_close(mine, parameters(expected), 2e-6)
    torch.testing.assert_close(state["target"], operation.state_dict()["tensors"]["target"], rtol=1e-4, atol=1e-5)
    assert state["corrections"].sum() > 0 and "surgery/cosine/sw-am" in logs[0]


@pytest.mark.parametrize("case", ["tokens", "classes", "one backward", "sft"])
def test_monitor_trains_as_the_plain_trainer(outcomes: dict[str, Outcome], case: str) -> None:
    plain = {"one backward": "tokens"}.get(case, case)
    for mine, theirs in zip(outcomes[case].result(), outcomes[f"{plain}, plain"].result(), strict=True):
        assert_close(mine[0], theirs[0], 1e-5)
        if case == "sft":
            assert mine[1] == pytest.approx(theirs[1], rel=1e-5)
            continue
        for one, other in zip(mine[1], theirs[1], strict=True):
            scale = max(float(x.abs().max()) for x in other)
            assert_close([x / scale for x in one], [x / scale for x in other])


def test_resumed_equals_uninterrupted_bit_for_bit(outcomes: dict[str, Outcome]) -> None:
    for whole, resumed in zip(outcomes["whole"].result(), outcomes["resumed"].result(), strict=True):
        assert_equal(whole[0], resumed[0])
        assert all(torch.equal(x, resumed[2][name]) for name, x in whole[2].items())
        assert whole[2]["step"] == 4


def test_each_rank_draws_its_own_batches_of_all_tasks(outcomes: dict[str, Outcome], tmp_path: Path) -> None:
    one, other = outcomes["sampler"].result()
    assert all(sorted(ids) == [0, 0, 1, 1, 2, 2] for ids in one + other)
    assert len(one) == len(other) == 2
