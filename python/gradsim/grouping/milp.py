"""The grouping by HiGHS, scipy's solver for mixed integer linear programmes, with the bound that it proves."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass

from gradsim.grouping.milp_disjoint import Disjoint
from gradsim.grouping.milp_overlap import Overlapping
from gradsim.grouping.objective import Matrix, Sets

__all__ = ["TOLERANCE", "Proof", "solve_milp"]

# HiGHS keeps its constraints to 1e-6 or 1e-7: a gap below this, of a similarity of 1, cannot be told from none
TOLERANCE = 1e-6

# Without the triangle inequalities the bound is weaker and the programme a matter of a second or two
_SECONDS_FOR_A_BOUND = 10.0


@dataclass(frozen=True)
class Proof:
    """The served tasks of HiGHS's best grouping (None where it has none) and an upper bound on the mean score."""

    serves: Sets | None
    bound: float


def solve_milp(similarity: Matrix, num_groups: int, *, overlap: bool, alone_allowed: bool, seconds: float) -> Proof:
    """Run HiGHS for `seconds` at most (and, where that was too short for any bound, for some more on a relaxation).

    HiGHS cannot be interrupted by Ctrl-C. Raises `ImportError` where scipy is not installed.
    """
    num_tasks = len(similarity)
    start = time.monotonic()
    problem: Disjoint | Overlapping
    if overlap:
        problem = Overlapping(similarity, num_groups, alone_allowed)
    else:
        problem = Disjoint(similarity, num_groups, alone_allowed)
    programme = problem.programme()
    solution = programme.solve(seconds - (time.monotonic() - start))
    serves = None if solution.values is None else problem.read(solution.values)
    if serves is not None and not _keeps_the_rules(serves, num_tasks, num_groups, overlap, alone_allowed):
        serves = None  # HiGHS's tolerances let through what is no grouping
    bound = solution.bound
    if math.isinf(bound) and not overlap:
        relaxation = Disjoint(similarity, num_groups, alone_allowed, triangles=False).programme()
        bound = relaxation.solve(min(seconds, _SECONDS_FOR_A_BOUND), relaxed=True).bound
    return Proof(serves, bound / num_tasks)


def _keeps_the_rules(serves: Sets, num_tasks: int, num_groups: int, overlap: bool, alone_allowed: bool) -> bool:
    if sorted(task for group in serves for task in group) != list(range(num_tasks)):
        return False
    if overlap:
        return len(serves) <= num_groups
    return len(serves) == num_groups and (alone_allowed or min(map(len, serves)) > 1)
