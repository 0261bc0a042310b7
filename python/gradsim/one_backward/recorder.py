"""Remembers how a model was called, and the gradients that its outputs received."""

from __future__ import annotations

from functools import partial
from types import TracebackType
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import _get_current_function_mode_stack

from gradsim.one_backward.follow import Follow
from gradsim.one_backward.samples import Place
from gradsim.one_backward.structures import changed
from gradsim.one_backward.undisturbed import alike, random_states


class Call:
    """One call of a model.

    Attributes:
        args, kwargs: as they came: the tensors are not copied.
        autocast: device type, dtype and whether it was on.
        places: by the id of an argument that was computed in the block, where it has its samples.
        is_random: whether random numbers were drawn.
        gradients: for the path of an output (such as `.loss` or `[0]`) the gradient that reached it from outside.
        output_places: for the path of an output where it has its samples, if the block knew.
    """

    def __init__(self, device: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self.args, self.kwargs = args, kwargs
        self.autocast = (device, torch.get_autocast_dtype(device), torch.is_autocast_enabled(device))
        self.places = _places(args, kwargs)
        self.is_random = False
        self.gradients: dict[str, Tensor] = {}
        self.output_places: dict[str, Place] = {}

    def detach(self) -> None:
        """Cut off the arguments from the graph behind them, whose gradient is that of other calls."""
        places: dict[int, Place | None] = {}

        def apart(x: Tensor, path: str) -> Tensor:
            y = x if isinstance(x, nn.Parameter) else x.detach()
            if id(x) in self.places:
                places[id(y)] = self.places[id(x)]
            return y

        self.args, self.kwargs = changed((self.args, self.kwargs), apart)
        self.places = places

    def received(self, path: str, gradient: Tensor) -> None:
        gradient = gradient.detach()
        before = self.gradients.get(path)
        self.gradients[path] = gradient if before is None else before + gradient

    def run(
        self, model: nn.Module, args: tuple[Any, ...] | None = None, kwargs: dict[str, Any] | None = None
    ) -> dict[str, Tensor]:
        """Call the model again, with these arguments or the same: the outputs that received a gradient, by path.

        Raises:
            RuntimeError: one of them is missing, or does not depend on any parameter.
        """
        changed((self.args, self.kwargs) if args is None else (), self._put)
        device, dtype, on = self.autocast
        # Without its cache: weights that were cast in one run must not be found by the next.
        with torch.autocast(device, dtype, enabled=on, cache_enabled=False):
            output = model(*(self.args if args is None else args), **(self.kwargs if kwargs is None else kwargs))
        found: dict[str, Tensor] = {}
        changed(output, lambda y, path: found.setdefault(path, y))
        for path in self.gradients:
            if path not in found or not found[path].requires_grad:
                raise RuntimeError(
                    f"verify=True: the model gave its output {path or 'tensor'} in the block and not when it was "
                    "called again (in eval mode, if it draws random numbers): nothing can be compared; use verify=False"
                )
        return {path: found[path] for path in self.gradients}

    def _put(self, x: Tensor, path: str) -> Tensor:
        if id(x) in self.places:
            for follow in _active():
                follow.put(x, self.places[id(x)])
        return x


class Recorder:
    """While the block runs, every call of the model is remembered; afterwards nothing is left on the model.

    Attributes:
        calls: those of the model itself, not those of its modules, nor calls without gradients.
    """

    def __init__(self, model: nn.Module) -> None:
        self.model = model
        self._calls: list[Call] = []
        self._depth = 0
        self._handles: list[Any] = []
        self._states: list[Any] = []
        self._devices = sorted({p.device for p in model.parameters()}, key=str)

    @property
    def calls(self) -> list[Call]:
        return [call for call in self._calls if call.gradients]

    def __enter__(self) -> Recorder:
        # The arguments as the caller gives them, the outputs as the caller gets them: outside of all other hooks.
        before = self.model.register_forward_pre_hook(self._before, with_kwargs=True, prepend=True)
        after = self.model.register_forward_hook(self._after, with_kwargs=True, always_call=True)
        self._handles = [before, after]
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        for handle in self._handles:
            handle.remove()

    def _before(self, model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self._depth += 1
        if self._depth == 1:
            self._states = random_states(self._devices)
            self._calls.append(Call(self._devices[0].type if self._devices else "cpu", args, kwargs))

    def _after(self, model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> Any:
        self._depth -= 1
        if self._depth:
            return None
        call = self._calls[-1]
        call.is_random = not alike(self._states, random_states(self._devices))
        seen: dict[int, Tensor] = {}

        def watched(y: Tensor, path: str) -> Tensor:
            if not y.requires_grad or not torch.is_grad_enabled():
                return y
            if id(y) not in seen:
                call.output_places.update((path, place) for place in _places((y,), {}).values() if place is not None)
                # A copy: the hook on it sees what comes from outside, not what a loss inside the model sends to logits.
                seen[id(y)] = y.clone()
                with torch._C.DisableTorchFunction():
                    seen[id(y)].register_hook(partial(call.received, path))
            return seen[id(y)]

        return changed(output, watched)


def _active() -> list[Follow]:
    return [mode for mode in _get_current_function_mode_stack() if isinstance(mode, Follow)]


def _places(args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[int, Place | None]:
    places: dict[int, Place | None] = {}

    def note(x: Tensor, path: str) -> Tensor:
        for follow in _active():
            if follow.noted(x):
                places[id(x)] = follow.place_of(x)
        return x

    changed((args, kwargs), note)
    return places
