"""deepcopy and pickle of the wrapper, also while tasks are aside and in the middle of things."""

from __future__ import annotations

import copy
import io
import pickle
from collections.abc import Callable
from typing import Any

import pytest
import torch
from checkpoints.stage import Job, same

from gradsim import Granularity


def saved(pair: Any) -> Any:
    """torch.save of the whole objects, as some do."""
    file = io.BytesIO()
    torch.save(pair, file)
    file.seek(0)
    return torch.load(file, weights_only=False)


@pytest.mark.parametrize(
    "how", [copy.deepcopy, lambda x: pickle.loads(pickle.dumps(x)), saved], ids=["deepcopy", "pickle", "torch.save"]
)
def test_a_copy_goes_on_alike_and_apart(how: Callable[[Any], Any]) -> None:
    parts = Granularity("all_matrix", exclude="output")
    first, job = Job(granularity=parts), Job(tasks=["de", "am"], granularity=parts, seed=3)
    first.train(range(2))
    with pytest.warns(UserWarning, match="not trained here: sw"):
        job.load(first.state())
    job.train(range(3, 4))
    net, opt = how((job.net, job.opt))
    copied = Job(tasks=["de", "am"], granularity=parts)
    copied.net, copied.opt = net, opt
    assert same(opt.state_dict(), job.opt.state_dict())
    rates = {name: value for name, value in opt.param_groups[0].items() if name != "params"}
    copied.scheduler = torch.optim.lr_scheduler.OneCycleLR(opt, max_lr=0.05, total_steps=20)
    opt.param_groups[0].update(rates)  # a new scheduler sets its own
    for part in ("scheduler", "scaler"):
        getattr(copied, part).load_state_dict(job.state()[part])
    for each in (job, copied):
        each.train(range(4, 6))
    assert same(copied.state(), job.state())
    job.train(range(6, 7))
    assert not same(copied.state(), job.state())
    assert copied.opt.surgery.state_dict()["tasks"] == ["de", "am", "sw"]
