"""Every number of the demo in one place."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

__all__ = ["Settings"]


@dataclass(frozen=True)
class Settings:
    """What a run does. The defaults take about two minutes on two cores."""

    out: Path
    seed: int = 0
    seeds: int = 3
    device: str = "cpu"

    steps: int = 600  # of the joint training of all languages, along which similarity is measured
    measurements: int = 12
    surgery_steps: int = 300  # of each training with plain sum, PCGrad or GradVac

    batch: int = 16  # names per language and step
    learning_rate: float = 3e-3
    held_out: float = 0.25  # share of a language's names that is never trained on
    held_out_low: float = 0.75  # the same for a low-resource language of the comparison
    num_groups: int = 8  # as many as there are families
    candidates: tuple[int, ...] = tuple(range(1, 13))  # numbers of groups that are set against chance

    @classmethod
    def choose(cls, out: Path, *, seed: int, seeds: int, device: str, steps: int | None, quick: bool) -> Settings:
        """The settings for the options of the command line; the comparison takes half as many steps as the rest.

        `quick` takes seconds, and shows the way but no result worth reading.
        """
        number = steps if steps is not None else 40 if quick else cls.steps
        measurements = min(number, 2 if quick else cls.measurements)
        candidates = (1, cls.num_groups) if quick else cls.candidates
        return cls(out, seed, seeds, device, number, measurements, max(1, number // 2), candidates=candidates)

    @property
    def measure_every(self) -> int:
        """Steps between two measurements."""
        return self.steps // self.measurements
