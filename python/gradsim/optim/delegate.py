"""An optimizer that has nothing of its own: everything is the base optimizer's."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import torch

_HOOKS = (
    "_optimizer_step_pre_hooks",
    "_optimizer_step_post_hooks",
    "_optimizer_state_dict_pre_hooks",
    "_optimizer_state_dict_post_hooks",
    "_optimizer_load_state_dict_pre_hooks",
    "_optimizer_load_state_dict_post_hooks",
)


class DelegatingOptimizer(torch.optim.Optimizer):
    """A real `torch.optim.Optimizer` (schedulers, GradScaler and accelerate insist on one) around another.

    Attributes:
        base: the base optimizer.
    """

    base: torch.optim.Optimizer

    def __init_subclass__(cls, **options: Any) -> None:
        # Lightning imitates the class of the optimizer that it wraps, but with attributes of its own: a task captured
        # there would be lost. So the attributes of its imitation are those of the optimizer itself.
        super().__init_subclass__(**options)
        if not any(kind.__name__ == "LightningOptimizer" for kind in cls.__mro__):
            return
        for kind in cls.__mro__:
            if issubclass(kind, DelegatingOptimizer) and kind is not cls:
                for name in vars(kind):
                    if not name.startswith("__") and name != "step":  # its step goes through the strategy
                        setattr(cls, name, _of_the_wrapped(name))

    def _delegate_to(self, base: torch.optim.Optimizer) -> None:
        """Instead of `Optimizer.__init__`, which would build param_groups and state beside those of the base."""
        self.base = base
        for name in _HOOKS:
            setattr(self, name, OrderedDict())

    # The base's own, never copies: a stored reference goes stale when load_state_dict replaces them.
    @property
    def param_groups(self) -> list[dict[str, Any]]:
        return self.base.param_groups

    @param_groups.setter
    def param_groups(self, value: list[dict[str, Any]]) -> None:
        self.base.param_groups = value

    @property
    def state(self) -> Any:
        return self.base.state

    @state.setter
    def state(self, value: Any) -> None:
        self.base.state = value

    @property
    def defaults(self) -> dict[str, Any]:
        return self.base.defaults

    @defaults.setter
    def defaults(self, value: dict[str, Any]) -> None:
        self.base.defaults = value

    def _step_base(self, closure: Callable[[], Any] | None, prepare: Callable[[], None]) -> Any:
        """The step of the base between the step hooks of this optimizer; `prepare` follows each closure."""
        args: tuple[Any, ...] = (self, closure)
        kwargs: dict[str, Any] = {}
        for pre_hook in list(self._optimizer_step_pre_hooks.values()):
            result = pre_hook(self, args, kwargs)
            if result is not None:
                if not isinstance(result, tuple) or len(result) != 2:
                    raise RuntimeError(f"a step pre-hook must return None or (new_args, new_kwargs), not {result!r}")
                args, kwargs = result
        chosen = kwargs.get("closure", args[1] if len(args) > 1 else None)
        loss = self.base.step() if chosen is None else self.base.step(_followed_by(prepare, chosen))
        for post_hook in list(self._optimizer_step_post_hooks.values()):
            post_hook(self, args, kwargs)
        return loss

    def _state_dict_with(self, key: str, value: Callable[[], Any]) -> dict[str, Any]:
        """The state of the base and one more entry, between the state_dict hooks of this optimizer."""
        for pre_hook in list(self._optimizer_state_dict_pre_hooks.values()):
            pre_hook(self)
        state_dict: dict[str, Any] = {**self.base.state_dict(), key: value()}
        for post_hook in list(self._optimizer_state_dict_post_hooks.values()):
            state_dict = post_hook(self, state_dict) or state_dict
        return state_dict

    def _load_state_dict_with(
        self, key: str, state_dict: dict[str, Any], check: Callable[[Any], None], load: Callable[[Any], None]
    ) -> None:
        """Check the further entry, load the base, load the entry, between the hooks of this optimizer."""
        state_dict = state_dict.copy()
        for pre_hook in list(self._optimizer_load_state_dict_pre_hooks.values()):
            state_dict = pre_hook(self, state_dict) or state_dict
        if key in state_dict:
            check(state_dict[key])
        self.base.load_state_dict({name: value for name, value in state_dict.items() if name != key})
        if key in state_dict:
            load(state_dict[key])
        for post_hook in list(self._optimizer_load_state_dict_post_hooks.values()):
            post_hook(self)


def _of_the_wrapped(name: str) -> property:
    def get(self: Any) -> Any:
        return getattr(self._optimizer, name)

    def put(self: Any, value: object) -> None:
        setattr(self._optimizer, name, value)

    return property(get, put)


def _followed_by(function: Callable[[], None], closure: Callable[[], Any]) -> Callable[[], Any]:
    def evaluate() -> Any:
        loss = closure()
        function()
        return loss

    return evaluate
