"""200 tasks: what is in memory is counted in gradients, not in bytes of the process."""

from __future__ import annotations

import pytest
import torch
from similarity.toys import LiveRows
from torch import Tensor, nn

from gradsim.similarity import Measurements, Similarity

T = 200
TASKS = [f"task {i}" for i in range(T)]


def loss_fn(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
    return nn.functional.mse_loss(model(batch[0]), batch[1])


def measured(within: bool = False, **way: int) -> tuple[Similarity, LiveRows]:
    torch.manual_seed(0)
    torch.set_num_threads(1)  # before the fixtures of a test are set up, too
    model = nn.Sequential(nn.Linear(16, 32), nn.Tanh(), nn.Linear(32, 16))
    wish = torch.randn(5, 16, 16)  # five kinds of tasks

    def batches(seed: int) -> dict[str, tuple[Tensor, Tensor]]:
        x = torch.randn(T, 24, 16, generator=torch.Generator().manual_seed(seed))
        return {task: (x[i], x[i] @ wish[i % 5]) for i, task in enumerate(TASKS)}

    measurements = Measurements(model, TASKS, loss_fn, granularity="whole_model", **way)
    with LiveRows().watch() as live:
        measurements.measure(batches(1), batches(2) if within else None)
    return measurements.similarity(), live


@pytest.fixture(scope="module")
def whole() -> Similarity:
    return measured(within=True)[0]


def test_blocks(whole: Similarity) -> None:
    similarity, live = measured(tasks_at_once=50)
    assert live.most == 51
    assert live.made == T * (T // 50 + 1) // 2
    torch.testing.assert_close(similarity.cosine, whole.cosine, atol=1e-6, rtol=0)
    torch.testing.assert_close(similarity.norms, whole.norms, atol=0, rtol=1e-6)


def test_projection(whole: Similarity) -> None:
    similarity, live = measured(within=True, projection=256)
    assert (live.most, live.made) == (1, 2 * T)
    assert similarity.metadata["measured"]["standard_error"] == 1 / 16
    error = (similarity.cosine - whole.cosine)[0][~torch.eye(T, dtype=torch.bool)]
    assert 0.01 < error.square().mean().sqrt() < 1 / 16
    torch.testing.assert_close(similarity.norms, whole.norms, atol=0, rtol=1e-6)
    kinds = torch.arange(T) % 5
    same = (kinds[:, None] == kinds) & ~torch.eye(T, dtype=torch.bool)
    assert similarity.cosine[0][same].mean() > similarity.cosine[0][kinds[:, None] != kinds].mean() + 0.2
