"""What a weighting remembers: saved, loaded, copied."""

from __future__ import annotations

import copy
import io
import pickle
import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
from integrations.torchjd_parts import NAMES, SHAPES, TASKS, Momentum, needs, rows, surgery
from torch import Tensor

from gradsim import GradVac, Surgery
from gradsim.optim import flatten_state, unflatten_state

aggregation: Any = pytest.importorskip("torchjd.aggregation", reason="TorchJD is not installed")
pytestmark = pytest.mark.filterwarnings("ignore:You are solving a parameterized problem that is not DPP")


class Counter:
    """A memory outside of torch."""

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self, gramian: Tensor) -> Tensor:
        self.calls += 1
        return torch.arange(len(gramian)) + float(self.calls)

    def state_dict(self) -> dict[str, Any]:
        return {"calls": self.calls}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.calls = state_dict["calls"]


MAKE: dict[str, Callable[[], Any]] = {
    "CRMOGM": lambda: aggregation.CRMOGMWeighting(aggregation.GradVacWeighting(beta=0.4)),
    "GradVac": lambda: aggregation.GradVacWeighting(beta=0.4),
    "NashMTL": lambda: aggregation.NashMTL(4, max_norm=0.0, update_weights_every=2, optim_niter=3),
    "PCD": lambda: aggregation.PCDWeighting(beta=0.5),
    "module": Momentum,
    "object": Counter,
}
ECOS = needs("cvxpy", "ecos")
STATEFUL = [pytest.param(name, marks=[ECOS] if name == "NashMTL" else []) for name in MAKE]


def through_a_file(state: dict[str, Any]) -> dict[str, Any]:
    file = io.BytesIO()
    torch.save(state, file)
    file.seek(0)
    result: dict[str, Any] = torch.load(file, weights_only=True)
    return result


def same(one: Surgery, other: Surgery, step: int) -> bool:
    pairs = zip(one(rows(step)), other(rows(step)), strict=True)
    return all(x is not None and y is not None and torch.equal(x, y) for x, y in pairs)


@pytest.mark.parametrize("name", STATEFUL)
@pytest.mark.parametrize("way", ["torch.save", "safetensors", "before the first call", "deepcopy", "pickle"])
def test_it_goes_on_bit_for_bit(name: str, way: str) -> None:
    trained = surgery(MAKE[name]())
    for step in range(3):
        trained(rows(step))
    state = trained.state_dict()
    if way == "deepcopy":
        resumed = copy.deepcopy(trained)
    elif way == "pickle":
        resumed = pickle.loads(pickle.dumps(trained))
    elif way == "before the first call":
        weighting = MAKE[name]()
        resumed = Surgery(granularity="all_layer", exclude="c.weight", weighting=weighting, tasks=TASKS)
        resumed.load_state_dict(state)
        assert resumed.state_dict()["weighting"] == state["weighting"]
        resumed.names = NAMES  # as the caller of a Surgery without names does by its first call
        resumed.groups = trained.groups
    else:
        resumed = surgery(MAKE[name]())
        if way == "safetensors":
            tensors, metadata = flatten_state(state)
            state = unflatten_state(tensors, metadata)
        resumed.load_state_dict(through_a_file(state))
    fresh = surgery(MAKE[name]())
    fresh(rows(2))
    assert not same(fresh, copy.deepcopy(trained), 3)  # what it remembers matters
    for step in (3, 4):
        assert same(trained, resumed, step)


def test_loading_leaves_random_numbers_alone() -> None:
    trained, resumed = surgery(MAKE["GradVac"]()), surgery(MAKE["GradVac"]())
    trained(rows())
    before = torch.get_rng_state()
    resumed.load_state_dict(trained.state_dict())
    assert torch.equal(torch.get_rng_state(), before)


def test_a_saved_state_stays_what_it_was() -> None:
    trained = surgery(Momentum())
    trained(rows(0))
    state = trained.state_dict()
    before = copy.deepcopy(state["weighting"])
    trained(rows(1))
    assert state["weighting"] == before != trained.state_dict()["weighting"]


def test_a_state_before_the_first_call_starts_anew() -> None:
    trained, fresh = surgery(Momentum()), Surgery(weighting=Momentum())
    trained(rows(0))
    trained.load_state_dict(fresh.state_dict())
    assert trained.state_dict()["weighting"]["groups"] == {}
    assert same(trained, surgery(Momentum()), 1)


@pytest.mark.parametrize("tasks", [["sw", "de", "am", "yo"], ["de", "sw", "am"]])
def test_other_tasks_start_anew(tasks: list[str]) -> None:
    trained = surgery(Momentum())
    trained(rows(0))
    resumed = Surgery(tasks=tasks, names=NAMES, granularity="all_layer", exclude="c.weight", weighting=Momentum())
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        resumed.load_state_dict(trained.state_dict())
    said = [str(w.message) for w in caught if "weighting" in str(w.message)]
    assert said == ["the weighting Momentum starts anew: it remembers tasks that are gone or in another order"]
    assert resumed.state_dict()["weighting"]["groups"] == {}


def test_a_new_task_beside_those_that_are_remembered() -> None:
    """A new task that is absent is no other set of tasks."""
    trained = surgery(Momentum())
    trained(rows(0))
    resumed = Surgery(
        tasks=["new", *TASKS], names=NAMES, granularity="all_layer", exclude="c.weight", weighting=Momentum()
    )
    with pytest.warns(UserWarning, match="has nothing of new"):
        resumed.load_state_dict(trained.state_dict())
    found = resumed([[None] * len(SHAPES), *rows(1)])
    for x, y in zip(found, trained(rows(1)), strict=True):
        assert x is not None and y is not None and torch.equal(x, y)


def damaged(state: dict[str, Any], change: Callable[[dict[str, Any]], object]) -> dict[str, Any]:
    state = copy.deepcopy(state)
    change(state["weighting"])
    return state


def test_what_does_not_fit_is_refused_and_changes_nothing() -> None:
    trained = surgery(Momentum())
    trained(rows(0))
    state, plain = trained.state_dict(), surgery(None)
    plain(rows(0))

    def refused(method: Surgery, wrong: dict[str, Any]) -> str:
        method(rows(1))
        before = method.state_dict()
        with pytest.raises(ValueError) as caught:
            method.load_state_dict(wrong)
        after = method.state_dict()
        assert after.get("weighting") == before.get("weighting")
        assert all(torch.equal(x, after["tensors"][name]) for name, x in before["tensors"].items())
        return str(caught.value)

    assert refused(surgery(Counter()), state) == (
        "the surgery state is one of weighting=Momentum and cannot go on as Counter"
    )
    assert refused(surgery(Momentum()), plain.state_dict()) == (
        "the surgery state is one of weighting=None and cannot go on as Momentum"
    )
    assert refused(surgery(None), state) == "the surgery state is one of weighting=Momentum and cannot go on without it"
    for change in (
        lambda own: own.pop("groups"),
        lambda own: own["groups"]["a"].pop("state"),
        lambda own: own["groups"]["a"].update(tasks=3),
        lambda own: own["groups"]["a"]["state"]["own"].clear(),
        lambda own: own["groups"]["a"]["state"]["own"]["seen"].update(dtype="float3"),
        lambda own: own["groups"]["a"]["state"]["own"]["seen"].update(shape=[5]),
    ):
        message = refused(surgery(Momentum()), damaged(state, change))
        assert message.startswith("the state of the weighting Momentum cannot be read: ")


def test_the_optimizer_refuses_before_the_base_has_loaded() -> None:
    def build(weighting: Any) -> GradVac:
        parameters = [(name, torch.nn.Parameter(torch.ones(shape))) for name, shape in zip(NAMES, SHAPES, strict=True)]
        opt = GradVac(torch.optim.SGD(parameters, momentum=0.9, lr=0.1), tasks=TASKS, weighting=weighting)
        for task in TASKS:
            with opt.task(task):
                sum(p.square().sum() for _, p in parameters).backward()
        opt.step()
        return opt

    saved = build(Momentum()).state_dict()
    saved["gradient_surgery"]["weighting"]["groups"]["a"]["state"]["own"].clear()
    saved["param_groups"][0]["lr"] = 7.0
    opt = build(Momentum())
    with pytest.raises(ValueError, match="cannot be read"):
        opt.load_state_dict(saved)
    assert opt.param_groups[0]["lr"] == 0.1
