"""The solvers behind `group_tasks`, by name, and which of them "auto" means."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec

from gradsim.grouping import compiled, objective
from gradsim.grouping.exact import solve_exact
from gradsim.grouping.linkage import agglomerate, cut
from gradsim.grouping.milp import TOLERANCE, solve_milp
from gradsim.grouping.objective import Matrix, Sets
from gradsim.grouping.search import search
from gradsim.grouping.spectral import spectral_groups

__all__ = ["METHODS", "Answer", "Problem", "automatic", "quick_search", "solve"]

# Where "auto" leaves the exact solver, which then takes longer than a user expects of a call: compiled (disjoint
# groups and with overlap), in numpy
_AUTO_COMPILED, _AUTO_COMPILED_OVERLAP, _AUTO_NUMPY = 22, 20, 16
_AUTO_MILP = 30


@dataclass(frozen=True)
class Problem:
    """What is to be grouped, in float64, and by which rules."""

    similarity: Matrix
    num_groups: int
    overlap: bool
    alone_allowed: bool

    def groups(self, serves: Sets) -> Sets:
        """The groups that serve these tasks best."""
        if not self.overlap:
            return serves
        return [objective.best_group(self.similarity, served, alone_allowed=self.alone_allowed) for served in serves]

    def score(self, serves: Sets) -> float:
        """The mean score of the tasks."""
        return objective.score(self.similarity, self.groups(serves), serves)

    def bound(self, proven: float | None = None) -> float:
        """An upper bound on every score: the simple one, or `proven` where that is lower."""
        simple = objective.upper_bound(
            self.similarity, self.num_groups, overlap=self.overlap, alone_allowed=self.alone_allowed
        )
        return simple if proven is None else min(simple, proven)


@dataclass(frozen=True)
class Answer:
    """The served tasks, group by group; an upper bound if the solver knows one; whether there is nothing better."""

    serves: Sets
    optimal: bool = False
    bound: float | None = None


def automatic(problem: Problem) -> str:
    """The method that "auto" means for a problem."""
    num_tasks = len(problem.similarity)
    exact = _AUTO_NUMPY
    if compiled.available():
        exact = _AUTO_COMPILED_OVERLAP if problem.overlap else _AUTO_COMPILED
    if num_tasks <= exact:
        return "exact"
    milp = num_tasks <= _AUTO_MILP and not problem.overlap and find_spec("scipy") is not None
    return "milp" if milp else "local_search"


def solve(problem: Problem, method: str, *, seconds: float, seed: int) -> Answer:
    """The answer of one of METHODS."""
    return METHODS[method](problem, seconds, seed)


def quick_search(problem: Problem, *, seed: int, random_starts: int, kicks: int) -> Sets:
    """The local search from average linkage (where scipy is installed) and some random groupings."""
    starts: list[Sets] = []
    if find_spec("scipy") is not None and len(problem.similarity) > 1:
        starts.append(cut(agglomerate(problem.similarity, "average"), problem.num_groups))
    return search(
        problem.similarity,
        problem.num_groups,
        overlap=problem.overlap,
        alone_allowed=problem.alone_allowed,
        starts=starts,
        random_starts=random_starts,
        kicks=kicks,
        seed=seed,
    )


def _exact(problem: Problem, _seconds: float, _seed: int) -> Answer:
    serves = solve_exact(
        problem.similarity, problem.num_groups, overlap=problem.overlap, alone_allowed=problem.alone_allowed
    )
    if serves is None:
        raise RuntimeError(f"the exact solver found no grouping into {problem.num_groups} groups")
    return Answer(serves, optimal=True)


def _milp(problem: Problem, seconds: float, seed: int) -> Answer:
    proof = solve_milp(
        problem.similarity,
        problem.num_groups,
        overlap=problem.overlap,
        alone_allowed=problem.alone_allowed,
        seconds=seconds,
    )
    serves = _local_search(problem, seconds, seed).serves
    if proof.serves is not None and problem.score(proof.serves) >= problem.score(serves):
        serves = proof.serves
    bound = problem.bound(proof.bound)
    # similarities are below 1 here, see solve.py
    return Answer(serves, optimal=bound - problem.score(serves) <= TOLERANCE, bound=bound)


def _local_search(problem: Problem, _seconds: float, seed: int) -> Answer:
    # one descent of hundreds of tasks takes as long as all of those of some dozens
    num_tasks, slow = len(problem.similarity), 3 if problem.overlap else 1
    kicks = min(100, math.ceil(3000 / slow / num_tasks))
    return Answer(quick_search(problem, seed=seed, random_starts=4 // slow, kicks=kicks))


def _clustering(linkage: str) -> Callable[[Problem, float, int], Answer]:
    def cluster(problem: Problem, _seconds: float, _seed: int) -> Answer:
        if len(problem.similarity) == 1:
            return Answer([[0]])
        return Answer(cut(agglomerate(problem.similarity, linkage), problem.num_groups))

    return cluster


def _spectral(problem: Problem, _seconds: float, seed: int) -> Answer:
    return Answer(spectral_groups(problem.similarity, problem.num_groups, seed=seed))


METHODS: dict[str, Callable[[Problem, float, int], Answer]] = {
    "exact": _exact,
    "milp": _milp,
    "local_search": _local_search,
    "average_linkage": _clustering("average"),
    "complete_linkage": _clustering("complete"),
    "spectral": _spectral,
}
