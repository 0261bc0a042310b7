"""From the names of parameters to the groups whose gradients are compared and corrected together."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from gradsim.gradients.names import encoder_or_decoder, layer_prefixes, top_level, unwrapped, within

KINDS = ("whole_model", "enc_dec", "all_layer", "all_matrix")
REST = "rest"

Expression = str | re.Pattern[str]
Spec = str | Callable[[str], "str | None"] | Mapping[Expression, str]


@dataclass(frozen=True)
class Groups:
    """A granularity applied to the parameters of one model.

    `names`: the G group names, in the order of their first parameter. `members`: for each group the indices of its
    parameters. `excluded`: the indices of the parameters that are in no group.
    """

    names: list[str]
    members: list[list[int]]
    excluded: list[int]


class Granularity:
    """How parameters are grouped; each group has its own Gramian, targets and weights (GradVac, section 3.2 of the
    paper).

    Args:
        spec: one of

            - `"whole_model"`: one group;
            - `"enc_dec"`: `encoder`, `decoder`, and `rest` for what is in neither; refused for a model that has
                neither;
            - `"all_layer"`: one group per Transformer layer, everything else one group per top-level child of the
                model;
            - `"all_matrix"`: one group per parameter tensor, biases and norms too;
            - a callable that takes the name of a parameter and gives the name of its group, or None to leave it out;
            - a dict whose keys are regular expressions (`re.search`, the first that matches wins) and whose values are
              names of groups; what none matches is in the group `rest`.
        exclude: parameters to leave out of all groups; they get the plain sum of the task gradients. An entry that
            equals the name of a parameter or of a module means exactly that; any other is a regular expression
            (`re.search`).

    Raises:
        ValueError: an unknown kind, an empty dict, or an invalid expression.
        TypeError: something else than the above.
    """

    def __init__(self, spec: Spec = "all_layer", exclude: Expression | Sequence[Expression] = ()) -> None:
        if isinstance(spec, str):
            if spec not in KINDS:
                raise ValueError(
                    f"granularity must be one of {', '.join(map(repr, KINDS))}, a callable or a dict of regular "
                    f"expressions, not {spec!r}"
                )
        elif isinstance(spec, Mapping):
            if not spec:
                raise ValueError(
                    "granularity is an empty dict; it must hold at least one regular expression and its group"
                )
            for group in spec.values():
                if not isinstance(group, str):
                    raise TypeError(
                        f"granularity must map expressions to names of groups, not to {type(group).__name__}"
                    )
            spec = {_compiled("granularity", expression): group for expression, group in spec.items()}
        elif not callable(spec):
            raise TypeError(f"granularity must be a string, a callable or a dict, not {type(spec).__name__}")
        self.spec: Spec = spec
        if isinstance(exclude, str | re.Pattern):
            exclude = (exclude,)
        if not isinstance(exclude, Sequence):
            raise TypeError(f"exclude must be a sequence of names or expressions, not {type(exclude).__name__}")
        for entry in exclude:
            _compiled("exclude", entry)
        self.exclude: tuple[Expression, ...] = tuple(exclude)

    @classmethod
    def of(cls, granularity: Granularity | Spec, exclude: Expression | Sequence[Expression] = ()) -> Granularity:
        """The granularity itself if it is one already (then without a second `exclude`), else a new one."""
        if not isinstance(granularity, Granularity):
            return cls(granularity, exclude)
        if exclude:
            raise ValueError("exclude= was given twice: give it to Granularity(...) or beside it, not both")
        return granularity

    @property
    def needs_names(self) -> bool:
        """Whether the groups depend on the names of the parameters."""
        return self.spec not in ("whole_model", "all_matrix") or bool(self.exclude)

    def __repr__(self) -> str:
        return f"Granularity({self.spec!r}, exclude={self.exclude!r})"

    def groups(self, names: Sequence[str]) -> Groups:
        """Group the parameters with these names (as `model.named_parameters()` gives them: a tied parameter once).

        Args:
            names: one name per parameter; components that torch.compile, checkpointing and FSDP put in are ignored.

        Raises:
            ValueError: doubled names, `enc_dec` for a model that has neither, an expression that matches nothing.
            TypeError: a callable that returns neither a string nor None.
        """
        plain = [unwrapped(name) for name in names]
        if len(set(plain)) != len(plain):
            doubled = next(name for name in plain if plain.count(name) > 1)
            raise ValueError(f"parameter names must be unique, but {doubled!r} is there twice")
        excluded = self._excluded(plain)
        kept = [i for i in range(len(plain)) if i not in excluded]
        members: dict[str, list[int]] = defaultdict(list)
        for i, group in zip(kept, self._group_names([plain[i] for i in kept]), strict=True):
            if group is None:
                excluded.add(i)
            else:
                members[group].append(i)
        return Groups(list(members), list(members.values()), sorted(excluded))

    def _excluded(self, names: list[str]) -> set[int]:
        result: set[int] = set()
        for entry in self.exclude:
            found: list[int] = []
            if isinstance(entry, str):
                found = [i for i, name in enumerate(names) if within(name, unwrapped(entry))]
            if not found:
                found = [i for i, name in enumerate(names) if re.search(entry, name)]
            if not found:
                raise ValueError(f"exclude={_text(entry)!r} matches no parameter; {_examples(names)}")
            result.update(found)
        return result

    def _group_names(self, names: list[str]) -> list[str | None]:
        if isinstance(self.spec, Mapping):
            return _by_expression(names, self.spec)
        if callable(self.spec):
            return [_called(self.spec, name) for name in names]
        if self.spec == "whole_model":
            return ["whole_model"] * len(names)
        if self.spec == "all_matrix":
            return list(names)
        if self.spec == "all_layer":
            prefixes = layer_prefixes(names)
            return [prefix or top_level(name) for name, prefix in zip(names, prefixes, strict=True)]
        sides = [encoder_or_decoder(name) for name in names]
        if not any(sides):
            raise ValueError(
                "granularity 'enc_dec' needs parameters under a module called encoder or decoder, and this model has "
                f"neither; use 'all_layer', a callable or a dict of regular expressions ({_examples(names)})"
            )
        return [side or REST for side in sides]


def _compiled(argument: str, expression: Expression) -> re.Pattern[str]:
    if not isinstance(expression, str | re.Pattern):
        raise TypeError(f"{argument} must hold regular expressions, not {type(expression).__name__}")
    try:
        return re.compile(expression)
    except re.error as error:
        raise ValueError(f"{argument}: {expression!r} is not a regular expression: {error}") from None


def _by_expression(names: list[str], spec: Mapping[Expression, str]) -> list[str | None]:
    for expression in spec:
        if not any(re.search(expression, name) for name in names):
            raise ValueError(
                f"granularity: the expression {_text(expression)!r} matches no parameter (the keys of the dict are the "
                f"expressions, the values the names of the groups); {_examples(names)}"
            )
    return [next((group for expression, group in spec.items() if re.search(expression, name)), REST) for name in names]


def _called(function: Callable[[str], str | None], name: str) -> str | None:
    group = function(name)
    if group is not None and not isinstance(group, str):
        raise TypeError(f"granularity({name!r}) must return the name of a group or None, not {type(group).__name__}")
    return group


def _text(expression: Expression) -> str:
    return expression if isinstance(expression, str) else expression.pattern


def _examples(names: list[str]) -> str:
    return "the names are like " + ", ".join(map(repr, names[:3])) if names else "there are no parameters"
