"""The Triton kernels against float64, run by Triton's interpreter on CPU tensors (triton_cases.py)."""

from __future__ import annotations

import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

SCRIPT = Path(__file__).with_name("triton_cases.py")
# Two processes, of about the same length.
SHARES = (
    ("gramian", "cross", "order", "weights", "combine", "items", "lists"),
    ("fused", "non_finite", "hostile"),
)

pytestmark = pytest.mark.skipif(find_spec("triton") is None, reason="triton is not installed")


@pytest.fixture(scope="module")
def outcomes() -> dict[str, str]:
    """What each section left: "" if it passed, else why it did not."""
    command = [sys.executable, "-W", "ignore::RuntimeWarning", str(SCRIPT)]
    runs = [
        subprocess.Popen([*command, *share], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for share in SHARES
    ]
    results = {}
    for run, share in zip(runs, SHARES, strict=True):
        out, err = run.communicate(timeout=900)
        passed = {line.split(":")[0] for line in out.splitlines()}
        why = err[-3000:] or f"the process ended with {run.returncode}: memory outside was touched if that is -11"
        results.update({section: "" if section in passed else why for section in share})
    return results


@pytest.mark.parametrize("section", [section for share in SHARES for section in share])
def test_kernels_in_the_interpreter(section: str, outcomes: dict[str, str]) -> None:
    assert outcomes[section] == "", outcomes[section]


def test_every_section_is_run() -> None:
    defined = {
        line.split("(")[0].removeprefix("def check_")
        for line in SCRIPT.read_text().splitlines()
        if "def check_" in line
    }
    assert defined == {section for share in SHARES for section in share}
