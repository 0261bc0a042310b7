"""What a comparison shows, in plain sentences."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import mean

from gradsim.training.results import Arm, Results
from gradsim.training.summary import gains, spread

__all__ = ["verdict"]

_SURGERY = {"gradvac": "GradVac", "pcgrad": "PCGrad"}


def verdict(results: Results) -> list[str]:
    """One sentence for each comparison that the results allow, whatever its outcome.

    The groups with the plain sum against every baseline (of the random groupings: against the mean of all), and what
    GradVac or PCGrad changes in each arm that has it (but the random ones). Differences are paired by seed; "better"
    and "worse" mean that the mean difference exceeds their sample standard deviation over the seeds. With one seed
    nothing of that kind is claimed.
    """
    sentences = []
    groups = _find(results, "groups", "sum")
    if groups is not None:
        own = groups[0].by_seed()
        for kind in ("all", "single", "random", "families", "majority"):
            others = _find(results, kind, "none" if kind == "majority" else "sum")
            if others is None:
                continue
            name = others[0].name if kind != "random" else f"random groups of the same sizes (mean of {len(others)})"
            sentence = _sentence(results, f"the groups against {name}", own, _mean_by_seed(others))
            if kind == "random":
                sentence += _rank(results, groups[0], others)
            sentences.append(sentence)
        sentences += _overlap(results, groups[0])
    for arm in results.arms:
        plain = _without_surgery(results, arm)
        if plain is not None:
            what = f"{plain.name}, with {_SURGERY[arm.method]} against without"
            sentences.append(_sentence(results, what, arm.by_seed(), plain.by_seed()))
    return sentences


def _sentence(results: Results, what: str, one: Sequence[float], other: Sequence[float]) -> str:
    differences = gains(results, one, other)
    gain, deviation = mean(differences), spread(differences)
    factor, unit = (100.0, "points") if results.are_shares else (1.0, f"in {results.metric}")
    if deviation is None:
        return f"{what}: {factor * gain:+.2f} {unit} with one seed, so nothing says whether that is chance"
    text = f"{what}: {factor * gain:+.2f} ± {factor * deviation:.2f} {unit} over {len(differences)} seeds"
    # a difference in the last digits of a float is none
    tiny = 1e-9 * max(1.0, max(map(abs, (*one, *other))))
    if abs(gain) <= max(deviation, tiny):
        return f"{text}: no difference beyond the spread of the seeds"
    word = "better" if gain > 0 else "worse"
    if deviation <= tiny:
        return f"{text}: {word}, in every seed alike"
    return f"{text}: {word}, by {abs(gain) / deviation:.1f} times the spread"


def _overlap(results: Results, groups: Arm) -> list[str]:
    spent = [arm.samples for arm in results.arms if arm.kind in ("all", "single") and arm.samples]
    if not spent or not groups.samples or groups.samples <= spent[0]:
        return []
    return [
        f"the groups overlap: their models were trained on {groups.samples / spent[0]:.2f} times the samples of the "
        "baselines without overlap"
    ]


def _rank(results: Results, groups: Arm, others: Sequence[Arm]) -> str:
    own = mean(groups.by_seed())
    beaten = sum(gains(results, [own], [mean(arm.by_seed())])[0] > 0 for arm in others)
    return f"; better than {beaten} of the {len(others)}"


def _find(results: Results, kind: str, method: str) -> list[Arm] | None:
    return [arm for arm in results.arms if arm.kind == kind and arm.method == method] or None


def _without_surgery(results: Results, arm: Arm) -> Arm | None:
    """The arm of the same models with the plain sum, for an arm with surgery; else None."""
    if arm.method not in _SURGERY or arm.kind == "random":
        return None
    same = [other for other in results.arms if (other.kind, other.groups) == (arm.kind, arm.groups)]
    return next((other for other in same if other.method == "sum"), None)


def _mean_by_seed(arms: Sequence[Arm]) -> list[float]:
    return [mean(values) for values in zip(*(arm.by_seed() for arm in arms), strict=True)]
