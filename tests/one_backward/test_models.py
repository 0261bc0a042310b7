"""`mixed_batch` against one backward per task, on every model of the zoo."""

from __future__ import annotations

import importlib.util
from typing import Any

import pytest
import torch
from one_backward import zoo_more
from one_backward.oracle import Work, capture, masked_rows, rows_of, separate_rows
from one_backward.proof import T, assert_close, mixed, prove, steps, without_excluded, wrapped
from one_backward.zoo import CASES, SHAPES, unequal
from one_backward.zoo_case import Case
from one_backward.zoo_coupled import COUPLED
from one_backward.zoo_hostile import MISTAKEN

from gradsim.optim import SurgeryOptimizer

pytestmark = [
    pytest.mark.filterwarnings("ignore:enable_nested_tensor"),
    pytest.mark.filterwarnings("ignore::FutureWarning:transformers"),
    pytest.mark.filterwarnings("ignore::FutureWarning:peft"),
]


def here(case: Case) -> None:
    for package in case.needs:
        if importlib.util.find_spec(package) is None:
            pytest.skip(f"{package} is not installed")


def works(case: Case) -> list[str]:
    return [mode for mode in case.modes if mode not in case.refused]


# Variants, left to the long run: of each model another one is always tested.
VARIANTS = {
    *("bert-tags", "bert-choices", "xlm-r-mlm", "gpt2-classes", "qwen2", "gemma2", "gemma3", "llama-lora"),
    *("gpt2-checkpointed-reentrant", "gpt2-checkpointed-non-reentrant", "t5-excluded", "wav2vec2-ctc-mean"),
    *("gru", "own-decoder-flat"),
    *(case.name for case in zoo_more.CASES),
}


def parameters(case: Case, *more: Any, always: bool = True) -> Any:
    name = "-".join([case.name, *(x for x in more if isinstance(x, str) and x)])
    return pytest.param(case, *more, id=name, marks=[] if always and case.name not in VARIANTS else [pytest.mark.slow])


WORKING = [case for case in CASES if works(case)]
ONCE = [parameters(case, works(case)[0], case.attentions[-1]) for case in WORKING]
REST = [
    parameters(case, mode, attention, always=False)
    for case in WORKING
    for mode in works(case)
    for attention in case.attentions
    if (mode, attention) != (works(case)[0], case.attentions[-1])
]


@pytest.mark.parametrize(("case", "mode", "attention"), ONCE)
def test_equals_separate_backwards(case: Case, mode: str, attention: str) -> None:
    here(case)
    prove(case, mode, attention, case.shape)


@pytest.mark.slow
@pytest.mark.parametrize(("case", "mode", "attention"), REST)
def test_in_every_mode(case: Case, mode: str, attention: str) -> None:
    here(case)
    prove(case, mode, attention, case.shape)


@pytest.mark.slow
@pytest.mark.parametrize("granularity", ["all_matrix", "whole_model"])
@pytest.mark.parametrize(("case", "mode", "attention"), ONCE)
def test_with_other_groups(case: Case, mode: str, attention: str, granularity: str) -> None:
    here(case)
    prove(case, mode, attention, case.shape, granularity)


@pytest.mark.slow
@pytest.mark.parametrize("granularity", ["all_layer", "whole_model"])
@pytest.mark.parametrize(("case", "mode", "attention"), ONCE)
def test_in_two_passes(case: Case, mode: str, attention: str, granularity: str) -> None:
    here(case)
    prove(case, mode, attention, case.shape, granularity, second_pass=True)


@pytest.mark.slow
@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES.keys())
@pytest.mark.parametrize(("case", "mode", "attention"), ONCE)
def test_with_sizes_that_coincide(case: Case, mode: str, attention: str, shape: tuple[int, int]) -> None:
    here(case)
    prove(case, mode, attention, shape)


# Losses that ignore labels of -100. mBART makes the last label the first word, so it must be there; CTC ignores none.
OFTEN = ("bert", "gpt2", "llama", "m2m100", "transformer")
DROPPED = [
    case
    for case in WORKING
    if any(part in case.name for part in ("bert", "gpt2", "llama", "m2m100", "t5", "marian", "whisper", "transformer"))
]


@pytest.mark.parametrize("case", [parameters(case, always=case.name in OFTEN) for case in DROPPED])
def test_dropout(case: Case) -> None:
    """The masks are those of plain training with the same seed."""
    here(case)
    work = Work(case, case.make(mode="train", dropout=0.2), case.draw(*case.shape, 10), unequal(case.shape[0]))
    opt = wrapped(work)
    torch.manual_seed(7)
    mixed(opt, work, last=False)
    for found, expected in zip(rows_of(opt), masked_rows(work, T, seed=7), strict=True):
        assert_close(without_excluded(found, work), without_excluded(expected, work), work, "a row")


REFUSED = [parameters(case, mode) for case in CASES for mode in case.refused]


@pytest.mark.parametrize(("case", "mode"), REFUSED)
def test_refused(case: Case, mode: str) -> None:
    here(case)
    work = next(steps(case, mode, case.attentions[-1], case.shape))
    assert_refused(work, wrapped(work), case.refused[mode])


def assert_refused(work: Work, opt: SurgeryOptimizer, match: str) -> None:
    """One sentence, and nothing is left behind: the same optimizer goes on task by task."""
    with pytest.raises((RuntimeError, ValueError), match=match):
        mixed(opt, work)
    assert all(p.grad is None for p in work.model.parameters())
    assert not any(opt.buffer.captured)
    work.model.eval()  # BatchNorm in training mode would not take one sample
    rows, states = separate_rows(work, T), []
    for each in (opt, wrapped(work)):
        capture(each, rows)
        each.finish()
        each.zero_grad()
        states.append(each.state_dict()["gradient_surgery"]["tensors"])
    assert all(torch.equal(x, states[1][name]) for name, x in states[0].items())


ODD = [
    parameters(case, shape, name, always=name in ("usual", "square"))
    for case in MISTAKEN
    for name, shape in {"usual": case.shape, **SHAPES}.items()
]


@pytest.mark.parametrize(("case", "shape", "name"), ODD)
def test_right_or_refused(case: Case, shape: tuple[int, int], name: str) -> None:
    """What is easily mistaken is never mistaken without a word."""
    work = Work(case, case.make(), case.draw(*shape, 10), unequal(shape[0]))
    opt = wrapped(work)
    try:
        mixed(opt, work, last=False)
    except (RuntimeError, ValueError) as error:
        assert "mixed_batch" in str(error)
        return
    for found, expected in zip(rows_of(opt), separate_rows(work, T), strict=True):
        assert_close(found, expected, work, "a row")


@pytest.mark.parametrize("case", [parameters(case) for case in COUPLED])
def test_coupled_samples_are_refused(case: Case) -> None:
    work = next(steps(case, "train", "", case.shape))
    assert_refused(work, wrapped(work), "mixed_batch")
