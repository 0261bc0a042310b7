"""It is a torch optimizer: schedulers, hooks, closures, copies, parameter groups, checkpoints."""

from __future__ import annotations

import copy
import gc
import io
import pickle
import warnings
import weakref
from typing import Any

import pytest
import torch
from optim.stage import TASKS, Model, capture, loss, model, train, wrapped
from torch import Tensor, nn

from gradsim import GradVac, PCGrad
from gradsim.optim import SurgeryOptimizer


def equal(one: nn.Module, other: nn.Module) -> bool:
    return all(torch.equal(x, y) for x, y in zip(one.parameters(), other.parameters(), strict=True))


def test_what_it_has_is_the_bases_own() -> None:
    net = model()
    base = torch.optim.AdamW(net.parameters(), lr=0.1)
    opt = GradVac(base, tasks=TASKS, model=net)
    assert isinstance(opt, torch.optim.Optimizer) and opt.base is base and opt.tasks == TASKS
    train(opt, net, range(1))
    base.load_state_dict(base.state_dict())  # replaces both
    assert opt.param_groups is base.param_groups and opt.state is base.state and opt.defaults is base.defaults
    groups, state = [dict(group) for group in base.param_groups], copy.copy(base.state)
    opt.param_groups, opt.state = groups, state
    assert base.param_groups is groups and base.state is state
    assert "GradVac" in repr(opt) and "AdamW" in repr(opt)


def test_the_six_hooks_run_in_order() -> None:
    net = model()
    opt = wrapped(net)
    told: list[str] = []
    opt.register_step_pre_hook(lambda o, a, k: told.append(f"pre {o is opt} {net.output.weight.grad is not None}"))
    opt.register_step_post_hook(lambda o, a, k: told.append(f"post {o is opt}"))
    opt.base.register_step_pre_hook(lambda o, a, k: told.append("base"))
    opt.register_state_dict_pre_hook(lambda o: told.append("state pre"))
    opt.register_state_dict_post_hook(lambda o, s: {**s, "more": 1})
    opt.register_load_state_dict_pre_hook(lambda o, s: told.append(f"load pre {s.pop('more')}"))
    opt.register_load_state_dict_post_hook(lambda o: told.append("load post"))
    opt.base.register_load_state_dict_pre_hook(lambda o, s: told.append(f"base {sorted(s)}"))
    capture(opt, net)
    opt.step()
    assert told == ["pre True True", "base", "post True"]  # the combined gradient is there for the pre-hook
    state = opt.state_dict()
    assert state["more"] == 1
    opt.load_state_dict(state)
    assert told[3:] == ["state pre", "load pre 1", "base ['param_groups', 'state']", "load post"] and state["more"] == 1
    opt.register_step_pre_hook(lambda o, a, k: "wrong")
    with pytest.raises(RuntimeError, match="must return None or"):
        opt.step()


def test_a_pre_hook_may_replace_the_closure() -> None:
    net = model()
    opt = wrapped(net)
    opt.register_step_pre_hook(lambda o, a, k: ((a[0],), {"closure": lambda: 3.0}))
    assert opt.step(lambda: 2.0) == 3.0


@pytest.mark.parametrize("name", ["OneCycleLR", "CosineAnnealingLR", "LambdaLR", "ReduceLROnPlateau"])
def test_schedulers(name: str) -> None:
    nets = model(), model()
    opts: list[Any] = []
    rates: list[list[float]] = [[], []]
    options: dict[str, dict[str, Any]] = {
        "OneCycleLR": {"max_lr": 0.3, "total_steps": 5},
        "CosineAnnealingLR": {"T_max": 3},
        "LambdaLR": {"lr_lambda": lambda step: 0.5**step},
        "ReduceLROnPlateau": {"patience": 0},
    }
    for i, net in enumerate(nets):
        base = torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9)
        opt = GradVac(base, tasks=TASKS, model=net) if i == 0 else base
        opts.append(opt)
        scheduler = getattr(torch.optim.lr_scheduler, name)(opt, **options[name])
        for step in range(4):
            if i == 0:
                capture(opt, net, step)
            opt.step()
            opt.zero_grad()
            scheduler.step(*([1.0] if name == "ReduceLROnPlateau" else []))
            rates[i].append(opt.param_groups[0]["lr"])
    assert rates[0] == rates[1] and len(set(rates[0])) > 1
    copied = copy.deepcopy(opts[0])  # with a step() that the scheduler has patched
    assert "step" not in vars(copied)


def closure_of(opt: SurgeryOptimizer, net: nn.Module, counted: list[int]) -> Any:
    def closure() -> float:
        opt.zero_grad()
        total = 0.0
        for task in TASKS:
            with opt.task(task):
                value = loss(net, task)
                value.backward()
                total += float(value.detach())
        counted.append(1)
        return total

    return closure


def test_finish_follows_each_evaluation_of_a_closure() -> None:
    net = model()
    opt = GradVac(torch.optim.LBFGS(net.parameters(), max_iter=4), tasks=TASKS, model=net, granularity="whole_model")
    evaluations: list[int] = []
    first = opt.step(closure_of(opt, net, evaluations))
    assert len(evaluations) > 1 and opt.statistics()["steps"] == len(evaluations)
    assert float(opt.step(closure_of(opt, net, evaluations))) < float(first)


def test_a_closure_with_a_first_order_base_is_a_plain_step() -> None:
    one, other = model(), model()
    opts = wrapped(one), wrapped(other)
    for _ in range(2):
        opts[0].step(closure_of(opts[0], one, []))
        capture(opts[1], other)
        opts[1].step()
        opts[1].zero_grad()
    assert equal(one, other)


@pytest.mark.parametrize("options", [{"fused": True}, {"foreach": True}, {"foreach": False}, {"maximize": True}])
def test_implementations_of_the_base(options: dict[str, Any]) -> None:
    nets = model(), model()
    for net, more in zip(nets, (options, {k: v for k, v in options.items() if k == "maximize"}), strict=True):
        opt = PCGrad(torch.optim.AdamW(net.parameters(), lr=1e-2, **more), tasks=TASKS, model=net)
        train(opt, net, range(3))
    for x, y in zip(nets[0].parameters(), nets[1].parameters(), strict=True):
        torch.testing.assert_close(x, y)


def adamw(net: Model, **options: Any) -> GradVac:
    return GradVac(torch.optim.AdamW(net.parameters(), lr=1e-2), tasks=TASKS, model=net, beta=0.3, **options)


@pytest.mark.parametrize("storage", ["autograd", "flat"])
def test_a_checkpoint_resumes_bit_for_bit(storage: str) -> None:
    net = model()
    opt = adamw(net, seed=4, storage=storage)
    train(opt, net, range(3))
    file = io.BytesIO()
    torch.save({"model": net.state_dict(), "opt": opt.state_dict()}, file)
    file.seek(0)
    saved = torch.load(file, weights_only=True)
    assert set(saved["opt"]) == {"state", "param_groups", "gradient_surgery"}
    fresh = model(seed=1)
    fresh.load_state_dict(saved["model"])
    resumed = adamw(fresh)
    resumed.load_state_dict(saved["opt"])
    resumed.load_state_dict(resumed.state_dict())  # accelerate does so before the first step
    train(opt, net, range(3, 6))
    train(resumed, fresh, range(3, 6))
    assert equal(net, fresh)
    assert torch.equal(opt.similarity().cosine, resumed.similarity().cosine)


def test_checkpoints_of_and_for_a_plain_optimizer() -> None:
    net = model()
    opt = adamw(net)
    train(opt, net, range(2))
    plain = torch.optim.AdamW(net.parameters(), lr=1.0)
    plain.load_state_dict(opt.state_dict())
    assert plain.param_groups[0]["lr"] == 1e-2 and len(plain.state) == len(opt.state)
    target = opt.surgery.state_dict()["tensors"]["target"]
    opt.load_state_dict(plain.state_dict())
    assert torch.equal(opt.surgery.state_dict()["tensors"]["target"], target)
    fresh = adamw(net)
    fresh.load_state_dict(plain.state_dict())
    assert not fresh.surgery.state_dict()["tensors"]["target"].any() and len(fresh.state) == len(opt.state)


def test_a_checkpoint_that_does_not_fit_changes_nothing() -> None:
    net = model()
    opt = adamw(net)
    train(opt, net, range(2))
    before = copy.deepcopy(opt.state_dict())
    good = copy.deepcopy(before)
    other = adamw(net, granularity="whole_model")
    train(other, net, range(1))
    for wrong in ({**good, "gradient_surgery": other.surgery.state_dict()}, {**good, "param_groups": []}):
        wrong["gradient_surgery"] = {**wrong["gradient_surgery"], "seed": 9}
        for group in wrong["param_groups"]:
            group["lr"] = 9.0
        with pytest.raises(ValueError, match=r"other groups|parameter groups"):
            opt.load_state_dict(wrong)
        after = opt.state_dict()
        assert opt.param_groups[0]["lr"] == 1e-2
        assert after["gradient_surgery"]["seed"] == before["gradient_surgery"]["seed"]
        for name, x in before["gradient_surgery"]["tensors"].items():
            assert torch.equal(x, after["gradient_surgery"]["tensors"][name])
        assert all(torch.equal(x["exp_avg"], after["state"][k]["exp_avg"]) for k, x in before["state"].items())


def deep(pair: Any) -> Any:
    return copy.deepcopy(pair)


def pickled(pair: Any) -> Any:
    return pickle.loads(pickle.dumps(pair))


@pytest.mark.parametrize("clone", [deep, pickled])
def test_copies_train_on_alike_and_apart(clone: Any) -> None:
    net = model()
    opt = adamw(net)
    train(opt, net, range(2))
    net2, opt2 = clone((net, opt))
    assert type(opt2) is GradVac and opt2.base is not opt.base
    train(opt, net, range(2, 4))
    assert not equal(net, net2)
    train(opt2, net2, range(2, 4))
    assert equal(net, net2)
    assert torch.equal(opt.similarity().cosine, opt2.similarity().cosine)
    opt2.register_step_pre_hook(lambda *_: None)  # the hook dictionaries are there again


def test_a_pickle_does_not_hold_the_model() -> None:
    net = model()
    opt = adamw(net)
    net.unpicklable = lambda: None
    pickle.dumps(opt)


def test_nothing_keeps_the_gradients_alive() -> None:
    net = model()
    opt = wrapped(net)
    capture(opt, net)
    rows = [weakref.ref(x) for row in opt.buffer.rows[1:] for x in row if x is not None]
    opt.finish()
    gc.collect()
    assert rows and all(ref() is None for ref in rows)


def test_a_parameter_group_may_be_added() -> None:
    net = model()
    first = [*net.embedding.parameters(), *net.encoder.parameters()]
    opt = GradVac(torch.optim.SGD(first, lr=0.1), tasks=TASKS, model=net, beta=0.3)
    for step in range(2):
        capture(opt, net, step)
        opt.step()
        net.zero_grad()
    old = opt.surgery.state_dict()
    capture(opt, net, 2)
    with pytest.raises(RuntimeError, match="in the middle of a step"):
        opt.add_param_group({"params": list(net.output.parameters())})
    opt.zero_grad()
    net.zero_grad()
    opt.add_param_group({"params": net.output.parameters(), "lr": 0.5})  # a generator, as users pass
    new = opt.surgery.state_dict()
    assert new["groups"] == [*old["groups"], "output"] and len(opt.param_groups) == 2
    assert torch.equal(new["tensors"]["target"][:3], old["tensors"]["target"]) and old["tensors"]["target"].any()
    assert not new["tensors"]["target"][3].any() and new["tensors"]["step"] == 2
    train(opt, net, range(2, 3))
    assert opt.similarity().count[:, 0, 1].tolist() == [3, 3, 3, 1]


def test_a_parameter_group_that_is_refused_changes_nothing() -> None:
    net = model()
    opt = GradVac(torch.optim.SGD(net.encoder.parameters(), lr=0.1), tasks=TASKS, model=net)
    wrong: list[tuple[Any, type[Exception], str]] = [
        ({"params": [nn.Parameter(torch.zeros(2))]}, ValueError, "model does not contain parameter"),
        ({"params": ["x"]}, TypeError, "not str"),
        ({"lr": 1.0}, TypeError, "'params'"),
        ([], TypeError, "must be a dict"),
        ({"params": next(net.encoder.parameters())}, ValueError, "twice"),
    ]
    for group, error, message in wrong:
        with pytest.raises(error, match=message):
            opt.add_param_group(group)
        assert len(opt.param_groups) == 1
    opt.add_param_group({"params": net.output.weight})
    assert opt.surgery.groups is not None and "output" in opt.surgery.groups.names


def test_named_parameters_instead_of_a_model() -> None:
    one, other = model(), model()
    opts = wrapped(one), GradVac(torch.optim.SGD(other.named_parameters(), lr=0.1), tasks=TASKS)
    train(opts[0], one, range(2))
    train(opts[1], other, range(2))
    assert opts[0].similarity() == opts[1].similarity() and equal(one, other)
    opts[1].add_param_group({"params": [("extra.weight", nn.Parameter(torch.zeros(2, dtype=torch.float64)))]})
    assert opts[1].surgery.groups is not None and opts[1].surgery.groups.names[-1] == "extra"


def test_parameters_that_a_framework_has_replaced() -> None:
    """accelerate swaps the parameters in param_groups; the layout follows at the next capture."""
    net = model()
    opt = wrapped(net)
    train(opt, net, range(1))
    old = net.output.weight
    net.output.weight = nn.Parameter(old.detach().clone())
    params = opt.param_groups[0]["params"]
    params[[p is old for p in params].index(True)] = net.output.weight
    train(opt, net, range(1, 2))
    assert not torch.equal(net.output.weight, old) and opt.statistics()["steps"] == 2


def test_torch_distributed_checkpoint_reads_its_state() -> None:
    """It initialises the state of the base by an empty step with a learning rate of 0."""
    dcp = pytest.importorskip("torch.distributed.checkpoint.state_dict")
    net = model()
    opt = adamw(net)
    before: list[Tensor] = [p.detach().clone() for p in net.parameters()]
    state = dcp.get_optimizer_state_dict(net, opt)
    assert all(torch.equal(x, p) for x, p in zip(before, net.parameters(), strict=True))
    assert len(state["state"]) == len(before)
    dcp.set_optimizer_state_dict(net, opt, state)
    train(opt, net, range(1))
    assert opt.statistics()["steps"] == 1


def test_a_training_that_never_opens_a_task_is_told_so_once() -> None:
    net = model()
    opt = GradVac(torch.optim.SGD(net.parameters(), lr=0.1), tasks=TASKS, model=net)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        opt.step()  # nothing there: nothing to say
        opt.zero_grad(set_to_none=False)
        opt.step()
    loss(net, "de").backward()
    with pytest.warns(UserWarning, match=r"no task has captured, so this is a plain step of SGD; run forward and"):
        opt.step()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        opt.step()
