"""`python tests/one_backward/table.py` runs the zoo and prints, in Markdown, which models `mixed_batch` works with."""

from __future__ import annotations

import logging
import sys
import warnings
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from one_backward.proof import mixed, prove, steps, wrapped
from one_backward.zoo import CASES
from one_backward.zoo_case import Case

YES, REFUSED, NONE = "yes", "refused", "–"


def outcome(case: Case, mode: str, attention: str) -> str:
    """What a run gives: YES if it equals separate backwards, REFUSED if it says so and was expected to.

    Raises:
        AssertionError: it differs, or was not refused.
    """
    if mode in case.refused:
        work = next(steps(case, mode, attention, case.shape))
        try:
            mixed(wrapped(work), work)
        except RuntimeError:
            return REFUSED
        raise AssertionError(f"{case.name} was not refused in {mode} mode")
    prove(case, mode, attention, case.shape)
    return YES


def together(found: list[str]) -> str:
    """One word for several runs."""
    return " / ".join(dict.fromkeys(found)) or NONE


def row(case: Case) -> list[str]:
    """model, class, eager, SDPA, train, eval, remark."""
    found = {(m, a): outcome(case, m, a) for m in case.modes for a in case.attentions}
    own = case.attentions == ("",)  # torch chooses
    by_attention = [together([x for (_, a), x in found.items() if a == kind or own]) for kind in ("eager", "sdpa")]
    by_mode = [together([x for (m, _), x in found.items() if m == mode]) for mode in ("train", "eval")]
    kind = f"`{type(case.make()).__name__}`" if case.needs else "own module"
    return [case.model, kind, *([NONE, NONE] if own else by_attention), *by_mode, case.remark]


def main() -> None:
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    print("| model | class | eager | SDPA | train | eval | remark |\n|---|---|---|---|---|---|---|")
    for case in CASES:
        print("| " + " | ".join(row(case)) + " |", flush=True)


if __name__ == "__main__":
    main()
