"""Groups for models with peft adapters (LoRA, DoRA and the like).

    model = peft.get_peft_model(base_model, peft.LoraConfig(...))
    base = torch.optim.AdamW(model.parameters(), lr=1e-4)
    opt = gradsim.GradVac(base, tasks=tasks, model=model, granularity=granularity(model, "module"))

Frozen parameters may be in the optimizer: they have no gradient, so the rows of the tasks hold the adapters alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from peft.tuners.tuners_utils import BaseTunerLayer
from peft.utils.other import AuxiliaryTrainingWrapper
from torch import nn

from gradsim.gradients import Granularity
from gradsim.gradients.granularity import Expression
from gradsim.gradients.names import layer_prefixes, unwrapped

KINDS = ("matrix", "module", "layer")
_PREFIX = "base_model.model."  # what a PeftModel puts before the names of the model in it


def granularity(model: nn.Module, by: str = "module", exclude: Expression | Sequence[Expression] = ()) -> Granularity:
    """Group the parameters that are trained; frozen ones are in no group.

    `"all_matrix"` would do the same as `"matrix"`, but would also keep targets and cosines [T, T] for every frozen
    tensor, which with hundreds of tasks is most of the memory.

    Args:
        model: the model, as the optimizer gets it, with its adapters in place and the rest frozen.
        by: `"matrix"`: each trained tensor alone (A, B, DoRA's magnitude); `"module"`: the tensors of one adapted
            module together, such as A and B of a projection; `"layer"`: one group per Transformer layer. Modules that
            are trained as a whole (`modules_to_save`) are groups of their own, unless they are part of a layer.
        exclude: see `gradsim.Granularity`.

    Returns:
        A granularity for `gradsim.GradVac` and `gradsim.PCGrad`. It can be pickled.

    Raises:
        ValueError: an unknown `by`; a model with nothing to train. Later, when an optimizer has a parameter that was
            not in the model. TypeError: no module.
    """
    if by not in KINDS:
        raise ValueError(f"by must be {', '.join(map(repr, KINDS[:-1]))} or {KINDS[-1]!r}, not {by!r}")
    if not isinstance(model, nn.Module):
        raise TypeError(f"model must be a torch.nn.Module, not {type(model).__name__}")
    names = [name for name, p in model.named_parameters() if p.requires_grad]
    if not names:
        raise ValueError("model has no parameter that is trained; add the adapters first, or unfreeze something")
    groups = [unwrapped(name) for name in names] if by == "matrix" else _carriers(model, names)
    if by == "layer":
        layers = layer_prefixes([unwrapped(name) for name in names])
        groups = [layer or group for layer, group in zip(layers, groups, strict=True)]
    trained = {unwrapped(name): group.removeprefix(_PREFIX) for name, group in zip(names, groups, strict=True)}
    frozen = [unwrapped(name) for name, p in model.named_parameters() if not p.requires_grad]
    return Granularity(Trained({**dict.fromkeys(frozen), **trained}), exclude)


class Trained:
    """Name of a parameter -> name of its group, None for one that was frozen."""

    def __init__(self, groups: Mapping[str, str | None]) -> None:
        self.groups = dict(groups)

    def __call__(self, name: str) -> str | None:
        if name not in self.groups:
            raise ValueError(
                f"parameter {name} was not in the model that gradsim.integrations.peft.granularity() was given; call "
                "it with the model that the optimizer gets, after all adapters were added"
            )
        return self.groups[name]


def _carriers(model: nn.Module, names: Sequence[str]) -> list[str]:
    """For each parameter the module that it adapts, or the one it is in."""
    kinds = (BaseTunerLayer, AuxiliaryTrainingWrapper)
    adapted = {name for name, module in model.named_modules() if isinstance(module, kinds)}
    found = []
    for name in names:
        parts = name.split(".")
        above = (".".join(parts[:i]) for i in range(1, len(parts)))  # from the outermost
        found.append(unwrapped(next((module for module in above if module in adapted), ".".join(parts[:-1]))))
    return found
