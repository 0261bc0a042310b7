"""How a run folder knows its own model, data and granularity again."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import nn
from training.toy import TASKS, ToyModel, toy_tasks

from gradsim.data.tasks import Example
from gradsim.gradients import Granularity
from gradsim.models.model import Batch
from gradsim.training.settings import describe_data, describe_model, described, plain


class Cut(ToyModel):
    """Cuts what is longer than six words."""

    def batch(self, examples: Sequence[Example]) -> Batch:
        return super().batch([replace(x, text=" ".join(str(x.text).split()[:7])) for x in examples])


class Restless(nn.Module):
    """Its text holds an address, which is another one in every process."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(2, dtype=torch.bfloat16))
        self.register_buffer("flag", torch.tensor(True))

    def extra_repr(self) -> str:
        return f"activation=<function f at {hex(id(self))}>"


def test_the_same_model_has_the_same_fingerprint() -> None:
    assert describe_model(ToyModel(dropout=0.1), toy_tasks()) == describe_model(ToyModel(dropout=0.1), toy_tasks())
    assert describe_model(ToyModel(), toy_tasks())["parameters"] == 266


def test_addresses_do_not_count() -> None:
    class Model(ToyModel):
        def build(self, seed: int) -> nn.Module:
            made.append(Restless())  # kept, so that the next one lies elsewhere
            return made[-1]

    made: list[nn.Module] = []
    first, second = (describe_model(Model(), toy_tasks()) for _ in range(2))
    assert str(made[0]) != str(made[1]) and first == second


def test_what_is_cut_off_shows() -> None:
    tasks = toy_tasks()
    assert any(len(str(data.train[0].text).split()) <= 6 for data in tasks.tasks.values())
    assert describe_model(Cut(), tasks)["fingerprint"] != describe_model(ToyModel(), tasks)["fingerprint"]


def test_other_weights_and_other_settings_show() -> None:
    class Other(ToyModel):
        def build(self, seed: int) -> nn.Module:
            return super().build(seed + 1)

    prints = {
        describe_model(model, toy_tasks())["fingerprint"]
        for model in (ToyModel(), Other(), ToyModel(dropout=0.1), ToyModel(width=9))
    }
    assert len(prints) == 4


def test_data_are_known_by_their_content() -> None:
    tasks = toy_tasks()
    assert describe_data(tasks) == describe_data(replace(tasks, source="elsewhere"))
    assert describe_data(tasks)["tasks"] == list(TASKS)
    assert describe_data(tasks)["fingerprint"] != describe_data(toy_tasks(seed=1))["fingerprint"]


def by_name(name: str) -> str:
    return name.split(".")[0]


@pytest.mark.parametrize(
    ("granularity", "exclude", "text"),
    [
        ("all_layer", (), "'all_layer'"),
        ("all_layer", ["head", "bias"], "'all_layer', exclude=['head', 'bias']"),
        ("all_layer", "head", "'all_layer', exclude=['head']"),
        (Granularity("whole_model", "head"), (), "'whole_model', exclude=['head']"),
        (by_name, (), "by_name"),
        ({"head": "top"}, (), "{re.compile('head'): 'top'}"),
        ({re.compile("head"): "top"}, (), "{re.compile('head'): 'top'}"),
    ],
)
def test_a_granularity_in_words(granularity: Any, exclude: Any, text: str) -> None:
    assert described(granularity, exclude) == text


def test_an_unknown_granularity_is_refused() -> None:
    with pytest.raises(ValueError, match="granularity must be one of"):
        described("layers")


def test_settings_are_what_a_file_gives_back() -> None:
    assert plain({"a": (1, 2), 3: None}) == {"a": [1, 2], "3": None}
    for bad in ({"a": object()}, {"a": float("nan")}):
        with pytest.raises(TypeError, match="settings must hold only what JSON can"):
            plain(bad)
