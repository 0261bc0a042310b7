"""Everything that can be refused in the constructor is, in one sentence, and leaves nothing behind."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from optim.stage import TASKS, model
from torch import nn

from gradsim import GradVac, Granularity, PCGrad, Surgery

WRONG: list[tuple[dict[str, Any], type[Exception], str]] = [
    ({"tasks": []}, ValueError, "at least one task"),
    ({"tasks": ["a", "b", "a"]}, ValueError, "tasks must not repeat a name, but 'a' is there twice"),
    ({"tasks": "de"}, TypeError, "tasks must be a list of names, not 'de'"),
    ({"tasks": ["a", 1]}, TypeError, "tasks must hold strings, not int"),
    ({"vaccinate": ["fr"]}, ValueError, r"vaccinate names unknown tasks \['fr'\]; the tasks are \['de', 'sw', 'am'\]"),
    ({"vaccinate": "sw"}, TypeError, "vaccinate must be a list of names"),
    ({"vaccinate": ["sw", "sw"]}, ValueError, "vaccinate must not repeat"),
    ({"order": "descending"}, ValueError, "order must be 'random' or 'ascending', not 'descending'"),
    ({"reduction": "max"}, ValueError, "reduction must be 'sum' or 'mean', not 'max'"),
    ({"seed": -1}, ValueError, "seed must be in"),
    ({"seed": 2**63}, ValueError, "seed must be in"),
    ({"seed": 1.5}, TypeError, "seed must be an int, not float"),
    ({"seed": True}, TypeError, "seed must be an int, not bool"),
    ({"monitor": 1}, TypeError, "monitor must be True or False, not 1"),
    ({"granularity": "all_layers"}, ValueError, "granularity must be one of 'whole_model', 'enc_dec', .*'all_layers'"),
    ({"granularity": 3}, TypeError, "granularity must be a string, a callable or a dict, not int"),
    ({"exclude": "nothing"}, ValueError, "exclude='nothing' matches no parameter"),
]
VACCINE: list[tuple[dict[str, Any], type[Exception], str]] = [
    ({"beta": -0.1}, ValueError, r"beta must be in \[0, 1\], not -0.1"),
    ({"beta": 1.1}, ValueError, "beta must be in"),
    ({"beta": float("nan")}, ValueError, "beta must be in"),
    ({"beta": "0.1"}, TypeError, "beta must be a number, not str"),
    ({"max_target": 0.0}, ValueError, r"max_target must be in \(0, 1\], not 0.0"),
    ({"max_target": 1.01}, ValueError, "max_target must be in"),
]


@pytest.mark.parametrize(("options", "error", "message"), WRONG + VACCINE)
def test_values_of_gradvac_and_surgery(options: dict[str, Any], error: type[Exception], message: str) -> None:
    net = model()
    with pytest.raises(error, match=message):
        GradVac(torch.optim.SGD(net.parameters()), **{"tasks": TASKS, "model": net, **options})
    with pytest.raises(error, match=message):
        Surgery("gradvac", **{"tasks": TASKS, "model": net, **options})


@pytest.mark.parametrize(("options", "error", "message"), WRONG)
def test_values_of_pcgrad(options: dict[str, Any], error: type[Exception], message: str) -> None:
    net = model()
    with pytest.raises(error, match=message):
        PCGrad(torch.optim.SGD(net.parameters()), **{"tasks": TASKS, "model": net, **options})


def test_pcgrad_has_no_targets_to_set() -> None:
    net = model()
    with pytest.raises(TypeError, match="beta"):
        PCGrad(torch.optim.SGD(net.parameters()), tasks=TASKS, model=net, beta=0.1)  # type: ignore[call-arg]


def test_the_base_and_the_storage() -> None:
    net = model()
    with pytest.raises(TypeError, match=r"base must be a torch.optim.Optimizer, not list"):
        GradVac(list(net.parameters()), tasks=TASKS, model=net)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="base must be a plain optimizer, not a PCGrad"):
        GradVac(PCGrad(torch.optim.SGD(net.parameters()), tasks=TASKS, model=net), tasks=TASKS, model=net)
    with pytest.raises(ValueError, match="storage must be 'autograd', 'flat' or 'cpu', not 'row'"):
        GradVac(torch.optim.SGD(net.parameters()), tasks=TASKS, model=net, storage="row")


def test_names_must_come_from_somewhere() -> None:
    net = model()
    base = torch.optim.SGD(net.parameters())
    for granularity in ("all_layer", "enc_dec", lambda name: name, {"x": "y"}):
        with pytest.raises(ValueError, match=r"needs the names of the parameters: give model=, or build the optimizer"):
            GradVac(base, tasks=TASKS, granularity=granularity)
    with pytest.raises(ValueError, match="needs the names"):
        GradVac(base, tasks=TASKS, granularity="all_matrix", exclude="embedding")
    for granularity in ("whole_model", "all_matrix"):
        assert GradVac(base, tasks=TASKS, granularity=granularity).tasks == TASKS
    with pytest.raises(ValueError, match=r"model does not contain parameter 0 of the optimizer \(shape \[11, 8\]\)"):
        GradVac(base, tasks=TASKS, model=model())
    with pytest.raises(TypeError, match=r"model must be a torch.nn.Module, not list"):
        GradVac(base, tasks=TASKS, model=[net])  # type: ignore[arg-type]


def test_exclude_is_given_once() -> None:
    net = model()
    granularity = Granularity("all_layer", exclude="embedding")
    opt = GradVac(torch.optim.SGD(net.parameters()), tasks=TASKS, model=net, granularity=granularity)
    assert opt.surgery.groups is not None and opt.surgery.groups.excluded == [0]
    with pytest.raises(ValueError, match="exclude= was given twice"):
        GradVac(torch.optim.SGD(net.parameters()), tasks=TASKS, model=net, granularity=granularity, exclude="output")


def test_hooks_that_consume_gradients() -> None:
    net = model()
    handle = net.output.weight.register_post_accumulate_grad_hook(lambda p: None)
    with pytest.raises(RuntimeError, match=r"output.weight has a post-accumulate-grad hook"):
        GradVac(torch.optim.SGD(net.parameters()), tasks=TASKS, model=net)
    handle.remove()
    opt = GradVac(torch.optim.SGD(net.parameters()), tasks=TASKS, model=net)
    net.output.weight.register_post_accumulate_grad_hook(lambda p: None)
    with pytest.raises(RuntimeError, match="post-accumulate-grad hook"):
        opt.task("de").__enter__()


@pytest.mark.parametrize("dtype", [torch.complex64, torch.float8_e4m3fn])
def test_dtypes_of_parameters(dtype: torch.dtype) -> None:
    net = nn.Module()
    net.weight = nn.Parameter(torch.zeros(3).to(dtype))
    with pytest.raises(TypeError, match=f"parameter weight has the dtype {dtype}"):
        GradVac(torch.optim.SGD(net.parameters()), tasks=TASKS, model=net)
    net.weight.requires_grad_(False)  # frozen, it has no gradient
    assert GradVac(torch.optim.SGD(net.parameters()), tasks=TASKS, model=net).tasks == TASKS


def test_several_devices() -> None:
    net = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2, device="meta"))
    with pytest.raises(ValueError, match=r"must be on one device, but 0.weight is on cpu and 1.weight on meta"):
        GradVac(torch.optim.SGD(net.parameters()), tasks=TASKS, model=net)


def test_gradients_given_to_a_surgery() -> None:
    x = torch.randn(3, 4)
    wrong: list[tuple[Any, type[Exception], str]] = [
        (x, TypeError, "must be a list over tasks"),
        ([], TypeError, "must be a list over tasks"),
        ([[x, x], [x]], ValueError, r"the rows have \[1, 2\]"),
        ([[x, x]], ValueError, "one row for each of the 2 tasks"),
        ([[x], [x]], ValueError, "one entry for each of the 2 parameters, not 1"),
        ([[x, x], [x, 1.0]], TypeError, "gradient of b.weight for task 'sw' must be a tensor or None, not float"),
        ([[x, x], [x, x.to_sparse()]], TypeError, "gradient of b.weight for task 'sw' is sparse"),
        ([[x.cfloat(), x], [x, x]], TypeError, "task 'de' has the dtype torch.complex64"),
        ([[x, x.to(torch.float8_e5m2)], [x, x]], TypeError, "dtype torch.float8_e5m2"),
        ([[x.clone().requires_grad_(), x], [x, x]], RuntimeError, "requires grad itself"),
        ([[x, x.to("meta")], [x, x]], ValueError, "must be on one device, but b.weight is on meta"),
        ([[x, x], [x, x[:2]]], ValueError, r"\[3, 4\]"),
        ([[x, x], [x, x.double()]], ValueError, "torch.float32"),
    ]
    surgery = Surgery(tasks=["de", "sw"], names=["a.weight", "b.weight"])
    surgery([[x, x], [-x, x]])
    before = surgery.state_dict()["tensors"]
    for gradients, error, message in wrong:
        with pytest.raises(error, match=message):
            surgery(gradients)
        assert all(torch.equal(y, surgery.state_dict()["tensors"][name]) for name, y in before.items())


def test_a_first_call_that_is_refused_tells_nothing() -> None:
    x = torch.randn(3, 4)
    surgery = Surgery()
    for gradients in ([[x, x.to_sparse()], [x, x]], [[x, x], [x, x[:2]]]):
        with pytest.raises((TypeError, ValueError)):
            surgery(gradients)
    assert surgery([[x, x, x]] * 3)[2] is not None
    assert surgery.similarity().tasks == ["0", "1", "2"]


def test_excluded_gradients_that_do_not_fit_leave_no_trace() -> None:
    x = torch.randn(3, 4)
    surgery = Surgery(tasks=["de", "sw"], names=["a.weight", "b.weight"], exclude="b")
    surgery([[x, x], [-x, x]])
    before = surgery.state_dict()["tensors"]
    with pytest.raises(ValueError, match=r"\[3, 4\]"):
        surgery([[x, x], [-x, x[:2]]])
    assert all(torch.equal(y, surgery.state_dict()["tensors"][name]) for name, y in before.items())


def test_names_given_to_a_surgery() -> None:
    with pytest.raises(ValueError, match="names must not repeat a name"):
        Surgery(names=["a", "a"])
    with pytest.raises(ValueError, match="give names= or model=, not both"):
        Surgery(names=["a"], model=model())
    with pytest.raises(ValueError, match="method must be 'gradvac' or 'pcgrad', not 'mgda'"):
        Surgery("mgda")
    with pytest.raises(ValueError, match="vaccinate names unknown tasks"):
        Surgery(vaccinate=["2"])([[torch.ones(3)], [torch.ones(3)]])
    with pytest.raises(RuntimeError, match="before the first call"):
        Surgery().similarity()
