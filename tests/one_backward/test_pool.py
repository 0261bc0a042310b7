"""The memory of the groups' rows: taken again, never more than is in use at once."""

from __future__ import annotations

import torch
from torch import nn

import gradsim
from gradsim.one_backward import Pool, Space


def test_a_block_is_taken_again() -> None:
    pool = Pool()
    first = pool.take(100)
    pool.give(first)
    assert pool.take(80) is first


def test_the_smallest_block_that_fits() -> None:
    pool = Pool()
    small, large = torch.empty(10, dtype=torch.uint8), torch.empty(1000, dtype=torch.uint8)
    pool.give(large)
    pool.give(small)
    assert pool.take(10) is small
    assert pool.take(10) is large


def test_a_larger_block_replaces_the_largest() -> None:
    pool = Pool()
    pool.give(pool.take(100))
    assert pool.take(200).nbytes == 200
    assert pool.memory_bytes == 0


def test_pieces_do_not_overlap_and_end_with_the_block() -> None:
    pool = Pool()
    space = Space(pool, 64 + 40)
    a, b = space.piece(torch.Size([3]), torch.float32), space.piece(torch.Size([2, 5]), torch.float32)
    assert a is not None and b is not None
    assert b.data_ptr() - a.data_ptr() == 64
    a.fill_(1.0)
    b.fill_(2.0)
    assert a.tolist() == [1.0] * 3
    assert space.piece(torch.Size([1]), torch.float32) is None
    space.release()
    assert pool.memory_bytes == 104


def test_training_makes_no_block_after_the_first_step() -> None:
    """T times the largest group and what small ones wait beside it, from the first step on."""
    torch.manual_seed(0)
    torch.set_num_threads(1)
    model = nn.Sequential(nn.Linear(64, 600), nn.Tanh(), nn.Linear(600, 700), nn.Tanh(), nn.Linear(700, 2))
    opt = gradsim.GradVac(torch.optim.SGD(model.parameters(), lr=0.1), tasks=list("abc"), model=model)
    x, task_ids = torch.randn(9, 64), [0, 1, 2] * 3
    held = []
    for _ in range(3):
        with opt.mixed_batch(task_ids):
            model(x).square().mean().backward()
        opt.step()
        opt.zero_grad()
        held.append(opt._pool.memory_bytes)
    largest = 3 * 4 * (600 * 700 + 700)
    assert held[0] == held[1] == held[2]
    assert largest <= held[0] <= largest + 20_000  # and the last layer, which waited for it
