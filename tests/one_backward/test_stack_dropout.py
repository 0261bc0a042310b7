"""Dropout draws in the block what it draws outside of it."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from one_backward.oracle import added, gradient, rows_of
from one_backward.stack_parts import TIED, apart, mixed, net, work, wrapped


def test_dropout_draws_the_same_mask() -> None:
    """The loss bit for bit, for each of several seeds; the rows add up to the plain gradient of the seed."""
    model = net(TIED, dropout=0.4)
    opt = wrapped(model)
    for seed in range(3):
        part = work(model, seed, TIED)
        torch.manual_seed(seed)
        loss = part.loss
        after = torch.get_rng_state()
        expected = gradient(model, loss)
        torch.manual_seed(seed)
        found = mixed(opt, part, last=False)
        assert torch.equal(found, loss) and torch.equal(torch.get_rng_state(), after)
        assert apart(added(rows_of(opt)), expected) < 1e-6
        opt.zero_grad()


def test_each_row_is_that_of_its_task_under_the_same_mask() -> None:
    model = net(dropout=0.4)
    part = work(model)
    opt = wrapped(model)
    torch.manual_seed(1)
    mixed(opt, part, last=False)
    for t in part.present:
        labels = torch.where((part.task_ids == t)[:, None], part.batch["labels"], -100)
        torch.manual_seed(1)
        scores = model(part.batch["words"]).flatten(0, 1)
        loss = F.cross_entropy(scores, labels.flatten(), reduction="sum") / labels.numel()
        assert apart(rows_of(opt)[t], gradient(model, loss)) < 1e-6
