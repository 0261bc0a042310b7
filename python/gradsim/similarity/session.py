"""The loop behind `task_similarity` and `task_affinity`: loaders, a bar, and a file to resume from."""

from __future__ import annotations

from os import PathLike
from typing import Any, Protocol

from gradsim.similarity.loaders import Loaders
from gradsim.similarity.progress import bar
from gradsim.similarity.recorder import Recorder
from gradsim.similarity.resume import Progress, fingerprint
from gradsim.similarity.source import Gradients

__all__ = ["Meter", "session"]


class Meter(Protocol):
    """What is measured batch by batch."""

    source: Gradients
    recorder: Recorder

    def step(self, batches: dict[str, Any], previous: dict[str, Any] | None) -> None:
        """One measurement; `previous` holds the batches of the one before, None for the first."""
        ...

    def passes(self, count: int, resumed: bool) -> int:
        """Calls of the model in so many measurements; `resumed`: the first of them has a previous one."""
        ...

    def state_dict(self) -> dict[str, Any]: ...

    def load_state_dict(self, state: dict[str, Any]) -> None: ...


def session(
    meter: Meter,
    loaders: Loaders,
    *,
    call: dict[str, Any],
    progress: bool,
    resume: str | PathLike[str] | None,
) -> None:
    """Measure until the loaders end. With `resume`, go on from the file of this name and remove it at the end.

    `call` names what must be the same for that, besides the tasks, the settings of the meter and the model. Whatever
    ends it early, all measurements that were finished are in the file.
    """
    if not isinstance(progress, bool):
        raise TypeError(f"progress must be True or False, not {progress!r}")
    file = None if resume is None else Progress(resume, {**call, "model": fingerprint(meter.source.model)})
    if file is not None:
        state = file.read()
        if state is None:
            file.write(meter.state_dict())  # a folder that is not there is noticed now, not after hours
        else:
            meter.load_state_dict(state)
    previous = loaders.skip(meter.recorder.measurements)
    left = None if loaders.total is None else loaders.total - loaders.taken
    total = meter.passes(left, previous is not None) if left else left
    with bar("measuring", total, progress) as tick:
        meter.source.on_pass = tick
        written = meter.recorder.measurements
        try:
            while (batches := loaders.next()) is not None:
                meter.step(batches, previous)
                previous = batches
                if file is not None and file.due():
                    file.write(meter.state_dict())
                    written = meter.recorder.measurements
        except BaseException:
            if file is not None and written < meter.recorder.measurements:
                file.write(meter.state_dict())
            raise
        finally:
            meter.source.on_pass = None
    if file is not None:
        file.remove()
