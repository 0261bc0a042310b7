"""What the public contract says of single cases: who is divided, who passes through, what is written where."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from gradsim import Surgery

Rows = list[list[Tensor | None]]


def rows(T: int = 3, shapes: tuple[tuple[int, ...], ...] = ((4, 3), (8,)), seed: int = 0, **kind: Any) -> Rows:
    generator = torch.Generator().manual_seed(seed)
    kind.setdefault("dtype", torch.float64)
    return [[torch.randn(shape, generator=generator, **kind) for shape in shapes] for _ in range(T)]


def copied(gradients: Rows) -> Rows:
    return [[None if x is None else x.clone(memory_format=torch.preserve_format) for x in row] for row in gradients]


def tensors(surgery: Surgery) -> dict[str, Tensor]:
    result: dict[str, Tensor] = surgery.state_dict()["tensors"]
    return result


def test_the_gradients_of_the_caller_are_left_alone() -> None:
    given = rows()
    kept = copied(given)
    result = Surgery()(given)
    for row, old in zip(given, kept, strict=True):
        for x, y, out in zip(row, old, result, strict=True):
            assert x is not None and y is not None and out is not None
            assert torch.equal(x, y)
            assert x.data_ptr() != out.data_ptr()


def test_in_place_gives_the_same_bits_in_the_tensors_of_the_first_task_that_has_one() -> None:
    given = rows()
    given[0][1] = None
    expected = Surgery()(given)
    result = Surgery()(given, in_place=True)
    assert result[0] is given[0][0] and result[1] is given[1][1]
    assert all(torch.equal(x, y) for x, y in zip(result, expected, strict=True) if x is not None and y is not None)


def test_in_place_where_gradients_share_storage() -> None:
    """Autograd may pass one gradient to two parameters through a view: writing the first would change the second."""

    def shared(storages: list[Tensor]) -> Rows:
        return [[storage[:6], storage.view(3, 4), torch.ones(2, dtype=torch.float64)] for storage in storages]

    generator = torch.Generator().manual_seed(0)
    storages = [torch.randn(12, generator=generator, dtype=torch.float64) for _ in range(3)]
    expected = Surgery()([[None if x is None else x.clone() for x in row] for row in shared(storages)])
    result = Surgery()(shared(storages), in_place=True)
    for x, y in zip(result, expected, strict=True):
        assert x is not None and y is not None and torch.equal(x, y)


@pytest.mark.parametrize("in_place", [False, True])
def test_layouts_in_memory_do_not_matter(in_place: bool) -> None:
    plain = rows(shapes=((2, 3, 4, 4), (5, 6)))
    expected = Surgery()(plain)
    alike = [[x.to(memory_format=torch.channels_last), y.t().contiguous().t()] for x, y in plain]  # type: ignore[union-attr,arg-type]
    result = Surgery()(copied(alike), in_place=in_place)  # type: ignore[arg-type]
    assert result[0] is not None and result[0].is_contiguous(memory_format=torch.channels_last)
    mixed = [alike[0], plain[1], [plain[2][0], torch.stack([plain[2][1], plain[2][1]], -1)[..., 0]]]  # type: ignore[list-item]
    for other in (result, Surgery()(copied(mixed), in_place=in_place)):  # type: ignore[arg-type]
        for x, y in zip(other, expected, strict=True):
            assert x is not None and y is not None
            torch.testing.assert_close(x, y, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("reduction", ["sum", "mean"])
def test_a_parameter_of_one_task_passes_through_untouched(reduction: str) -> None:
    given = rows()
    given[0][1] = given[2][1] = None
    surgery = Surgery(reduction=reduction)
    result = surgery(given)
    assert result[1] is given[1][1]
    assert tensors(surgery)["count"][1].sum() == 0  # outside the Gramian too


def test_a_parameter_that_no_task_has_stays_none() -> None:
    given = rows()
    for row in given:
        row[0] = None
    assert Surgery()(given)[0] is None
    assert Surgery()([[None, None]] * 3) == [None, None]


def test_mean_divides_by_the_tasks_present() -> None:
    given = rows(T=4)
    given[2] = [None, None]
    total, mean = Surgery(seed=1)(given), Surgery(seed=1, reduction="mean")(given)
    for x, y in zip(total, mean, strict=True):
        assert x is not None and y is not None
        torch.testing.assert_close(x / 3, y)


def test_a_zero_gradient_is_not_a_missing_task() -> None:
    given = rows()
    given[1] = [torch.zeros_like(x) for x in given[0] if x is not None]
    surgery = Surgery(reduction="mean", beta=0.5)
    result = surgery(given)
    without = Surgery(reduction="mean", beta=0.5)(given[::2])
    for x, y in zip(result, without, strict=True):
        assert x is not None and y is not None
        torch.testing.assert_close(x * 3, y * 2)  # divided by three tasks, not by two
    target = tensors(surgery)["target"]
    assert target[:, 1].eq(0).all() and target[:, :, 1].eq(0).all() and target[:, 0, 2].ne(0).all()
    count = tensors(surgery)["count"]
    assert count[:, 1].eq(0).all() and count[:, 0, 2].eq(1).all()


def test_an_absent_task_keeps_its_targets() -> None:
    surgery = Surgery(beta=0.5)
    surgery(rows())
    before = tensors(surgery)["target"]
    given = rows(seed=1)
    given[1] = [None, None]
    surgery(given)
    after = tensors(surgery)["target"]
    assert torch.equal(before[:, 1], after[:, 1]) and torch.equal(before[:, :, 1], after[:, :, 1])
    assert before[:, 0, 2].ne(after[:, 0, 2]).all()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_excluded_parameters_get_the_plain_sum_rounded_once(dtype: torch.dtype) -> None:
    given = rows(dtype=dtype)
    kept = copied(given)
    for reduction, share in (("sum", 1.0), ("mean", 1 / 3)):
        result = Surgery(names=["a.weight", "b.bias"], exclude="b.bias", reduction=reduction)(given)
        total = sum(row[1].double() for row in kept if row[1] is not None)
        assert isinstance(total, Tensor) and result[1] is not None and result[1].dtype == dtype
        torch.testing.assert_close(result[1].double(), total * share, rtol=2 * torch.finfo(dtype).eps, atol=1e-6)


def test_everything_excluded_is_the_plain_sum() -> None:
    given = rows()
    result = Surgery(granularity=lambda name: None)(given)
    for p, x in enumerate(result):
        assert x is not None
        torch.testing.assert_close(x, given[0][p] + given[1][p] + given[2][p])  # type: ignore[operator]


def test_parameters_of_different_dtypes() -> None:
    given = rows()
    mixed: Rows = [[row[0].float(), row[1].bfloat16()] for row in given]  # type: ignore[union-attr]
    result = Surgery()(mixed)
    assert [x.dtype for x in result if x is not None] == [torch.float32, torch.bfloat16]


@pytest.mark.parametrize("reduction", ["sum", "mean"])
def test_monitor_sums_and_measures_only(reduction: str) -> None:
    given = rows()
    surgery = Surgery(monitor=True, reduction=reduction, tasks=["x", "y", "z"])
    result = surgery(given)
    for p, x in enumerate(result):
        assert x is not None
        total = given[0][p] + given[1][p] + given[2][p]  # type: ignore[operator]
        torch.testing.assert_close(x, total / 3 if reduction == "mean" else total)
    assert tensors(surgery)["target"].eq(0).all()
    acting = Surgery(tasks=["x", "y", "z"])
    acting(given)
    assert torch.equal(surgery.similarity().cosine, acting.similarity().cosine)
    told = surgery.statistics()
    assert told["corrections"] == 0.0 and told["negative"] == acting.statistics()["negative"] > 0


def test_one_task_alone_is_left_as_it_is() -> None:
    given = rows(T=1)
    assert all(x is y for x, y in zip(Surgery()(given), given[0], strict=True))


def test_without_names_each_tensor_is_a_group() -> None:
    surgery = Surgery()
    surgery(rows())
    assert surgery.similarity().groups == ["0", "1"] and surgery.similarity().tasks == ["0", "1", "2"]


def test_names_from_a_model() -> None:
    net = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2))
    surgery = Surgery(tasks=["a", "b"], model=net)
    parameters = list(net.parameters())
    surgery([list(torch.autograd.grad(net(torch.randn(5, 3)).square().sum(), parameters)) for _ in range(2)])
    assert surgery.similarity().groups == ["0", "1"]


def test_nobody_vaccinated_is_the_plain_sum() -> None:
    given = rows()
    surgery = Surgery(tasks=["x", "y", "z"], vaccinate=[])
    for p, x in enumerate(surgery(given)):
        assert x is not None
        torch.testing.assert_close(x, given[0][p] + given[1][p] + given[2][p])  # type: ignore[operator]
    assert surgery.statistics()["steps"] == 1 and tensors(surgery)["target"].eq(0).all()


class NoReads(TorchDispatchMode):
    """Fails where a value would be brought to the host, which on a GPU waits for it."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        assert "_local_scalar_dense" not in str(func) and "is_nonzero" not in str(func), f"{func} reads a value"
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize(
    "options", [{}, {"method": "pcgrad"}, {"monitor": True}, {"order": "ascending", "exclude": "1"}]
)
def test_nothing_is_read_back_during_a_step(options: dict[str, Any]) -> None:
    surgery = Surgery(tasks=["x", "y", "z"], names=["0.weight", "1.weight"], **options)
    for in_place in (False, True):
        with NoReads():
            surgery(rows(), in_place=in_place)
    with pytest.raises(AssertionError, match="reads a value"), NoReads():
        surgery.statistics()
