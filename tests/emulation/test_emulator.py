"""The emulator of CUDA finds what it says it finds, and computes what a GPU would."""

from __future__ import annotations

import ctypes
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor

from emulation import build
from emulation.sanitized import run_sanitized

ORDERS = ("forward", "reverse", "random:1", "random:2")
Check = Callable[[str], Tensor]


@pytest.fixture(scope="module")
def library() -> ctypes.CDLL:
    if build.compiler() is None:
        pytest.skip("the emulation of CUDA needs g++ on x86-64 Linux")
    return ctypes.CDLL(str(build.emulator_checks()))


@pytest.fixture
def check(library: ctypes.CDLL) -> Check:
    """Runs a kernel of emulator_checks.cpp and returns its output."""
    library.check.restype = ctypes.c_char_p

    def run(name: str) -> Tensor:
        out = torch.zeros(1024)
        error = library.check(name.encode(), ctypes.c_void_p(out.data_ptr()))
        if error is not None:
            raise RuntimeError(error.decode())
        return out

    return run


@pytest.mark.parametrize("order", ORDERS)
def test_barriers_and_flags_order_what_happens(check: Check, monkeypatch: pytest.MonkeyPatch, order: str) -> None:
    monkeypatch.setenv("GRADSIM_EMULATED_ORDER", order)
    assert check("sum_of_block")[:2].tolist() == [127 * 64] * 2
    assert check("flags_between_blocks")[0] == sum(range(8))
    assert check("count")[0] == 1, "one block is the last"


def test_a_missing_barrier_shows_in_some_order(check: Check, monkeypatch: pytest.MonkeyPatch) -> None:
    right = 0
    for order in ORDERS:
        monkeypatch.setenv("GRADSIM_EMULATED_ORDER", order)
        right += check("sum_without_barrier")[:2].tolist() == [127 * 64] * 2
    assert right < len(ORDERS)


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("barriers_at_two_places", "different barriers: .*32 threads at the barrier emulator_checks.cpp:"),
        ("half_a_warp_waits", "deadlock in half_a_warp_waits, block .* in the warp operation emulator_checks.cpp:"),
        ("shuffles_at_two_places", "lanes of a warp are at different operations or masks"),
        ("shuffle_from_outside_the_mask", "a shuffle reads a lane that takes no part"),
        ("lane_outside_its_mask", "a lane is not in the mask of its own warp operation"),
        ("misaligned_load", "misaligned access at emulator_checks.cpp:"),
        ("no_blocks", "a grid of 0 x 1 x 1"),
        ("block_too_large", "a block that no GPU can run"),
        ("shared_memory_not_asked_for", "cudaFuncSetAttribute has not allowed"),
    ],
)
def test_faults_are_errors(check: Check, monkeypatch: pytest.MonkeyPatch, name: str, message: str, order: str) -> None:
    monkeypatch.setenv("GRADSIM_EMULATED_ORDER", order)
    with pytest.raises(RuntimeError, match=message):
        check(name)


def test_a_deadlock_between_blocks_is_an_error(check: Check) -> None:
    with pytest.raises(RuntimeError, match=r"all blocks wait for others.* 1 threads waiting in a loop at emulator_ch"):
        check("flag_that_nobody_raises")


def test_shared_memory_starts_as_nan(check: Check) -> None:
    assert check("shared_memory_nobody_wrote")[:64].isnan().all()


def test_shuffles_and_votes(check: Check) -> None:
    out, lane = check("shuffles")[:224].view(7, 32).int(), torch.arange(32)
    place, section = lane % 8, lane - lane % 8
    assert torch.equal(out[0], (section + 3).int())
    assert torch.equal(out[1], (section + (place ^ 5)).int())
    assert torch.equal(out[2], (section + torch.where(place < 5, place + 3, place)).int())
    assert torch.equal(out[3], (section + torch.where(place >= 3, place - 3, place)).int())
    assert torch.equal(out[4], (lane % 3 == 0).int())
    assert (out[5] == 3).all() and (out[6] == 5).all()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_mma_fragments(library: ctypes.CDLL, dtype: torch.dtype) -> None:
    """The layout of the PTX ISA, written down a second time: row and column of each register of each lane."""
    A, B, D = (torch.randn(shape, dtype=torch.float32) for shape in ((16, 16), (16, 8), (16, 8)))
    A, B = A.to(dtype), B.to(dtype)
    lane = np.arange(32)[:, None]
    i = np.arange(8)[None]
    group, inside = lane // 4, lane % 4
    a_row = group + 8 * ((i // 2) % 2)
    a_column = 2 * inside + i % 2 + 8 * (i >= 4)
    j = i[:, :4]
    b_row, b_column = 2 * inside + j % 2 + 8 * (j >= 2), group + 0 * j
    d_row, d_column = group + 8 * (j >= 2), 2 * inside + j % 2
    a, b, d = A[a_row, a_column].contiguous(), B[b_row, b_column].contiguous(), D[d_row, d_column].contiguous()
    library.multiply_fragments(dtype == torch.float16, *(ctypes.c_void_p(x.data_ptr()) for x in (a, b, d)))
    result = torch.full((16, 8), torch.nan)
    result[d_row, d_column] = d
    expected = D.double() + A.double() @ B.double()
    size = D.double().abs() + A.double().abs() @ B.double().abs()
    assert ((result - expected).abs() <= 4 * 2.0**-23 * size).all()
    assert not torch.equal(result, expected.float()), "tensor cores cut off where others round"


def test_mma_fragments_of_float64(library: ctypes.CDLL) -> None:
    A, B, D = (torch.randn(shape, dtype=torch.float64) for shape in ((8, 4), (4, 8), (8, 8)))
    b = B.T.contiguous()  # lane 4 g + q holds A(g, q), B(q, g), D(g, 2 q) and D(g, 2 q + 1)
    result = D.clone()
    library.multiply_fragments64(*(ctypes.c_void_p(x.data_ptr()) for x in (A, b, result)))
    torch.testing.assert_close(result, D + A @ B, rtol=0, atol=1e-14)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("behind_shared_memory", "heap-buffer-overflow"),
        ("behind_global_memory", "heap-buffer-overflow"),
        ("misaligned_vector", "misaligned address"),
    ],
)
def test_the_sanitizers_see_into_fibers(name: str, message: str) -> None:
    if build.compiler() is None:
        pytest.skip("the emulation of CUDA needs g++ on x86-64 Linux")
    library = build.emulator_checks(sanitize=True)
    # In Python's own memory there is nothing to run over: numpy allocates, and the sanitizer watches that.
    done = run_sanitized(
        "import ctypes, sys, numpy as np\n"
        f"library, out = ctypes.CDLL({str(library)!r}), np.zeros(1024, np.float32)\n"
        f"sys.exit(library.check({name.encode()!r}, out.ctypes.data_as(ctypes.c_void_p)) != 0)"
    )
    assert done.returncode != 0 and message in done.stderr
