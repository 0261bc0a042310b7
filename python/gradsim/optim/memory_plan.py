"""What the gradients of a step will take, said before anything has run."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Choice:
    """One way to keep the gradients of a step, in bytes.

    Attributes:
        name: the arguments that choose it.
        parts: what the device holds at the fullest moment of a step: p.grad, rows, what the surgery needs.
        kept: of that, what stays after `zero_grad()` beside the state of the surgery.
        host: on the CPU beside the device.
        remark: what is not in these numbers.
    """

    name: str
    parts: dict[str, int]
    kept: int = 0
    host: int = 0
    remark: str = ""

    @property
    def peak(self) -> int:
        """What the device holds at the fullest moment: the sum of the parts."""
        return sum(self.parts.values())


@dataclass(frozen=True)
class MemoryPlan:
    """What `opt.memory_plan()` gives; it prints as a table. All numbers are bytes, unless they count something.

    Parameters, activations and the state of the base optimizer are not in it: they are those of plain training, whose
    line holds nothing but p.grad.

    Attributes:
        num_parameters: elements that are trained (N). num_tasks: T. num_groups: G. world: processes.
        gradient: bytes of the gradient of one task. largest_group: the name of the largest group, and its bytes in it.
        state: bytes of targets, counters and measurements. dtypes: of the gradients. device: of the parameters.
        present: the name of the choice that the optimizer was built with.
        choices: all of them.
    """

    num_parameters: int
    num_tasks: int
    num_groups: int
    world: int
    gradient: int
    largest_group: tuple[str, int]
    state: int
    dtypes: list[str]
    device: str
    present: str
    choices: list[Choice]

    def __getitem__(self, name: str) -> Choice:
        """The choice of this name (KeyError: there is none)."""
        return {choice.name: choice for choice in self.choices}[name]

    def to_dict(self) -> dict[str, Any]:
        """Numbers, strings, lists and dicts, for JSON."""
        own = {key: value for key, value in vars(self).items() if key != "choices"}
        own["largest_group"] = {"name": self.largest_group[0], "bytes": self.largest_group[1]}
        return {**own, "choices": [{**vars(choice), "peak": choice.peak} for choice in self.choices]}

    def __str__(self) -> str:
        name, size = self.largest_group
        lines = [
            f"{self.num_parameters:,} parameters in {self.num_groups} groups (largest: {name}, {in_units(size)}), "
            f"{self.num_tasks} tasks, {' and '.join(self.dtypes)} on {self.device}",
            f"one gradient: {in_units(self.gradient)}; targets and measurements: {in_units(self.state)}",
            "",
        ]
        rows: list[tuple[str, ...]] = [("", "at the peak", "then kept", "on the CPU", "what it is at the peak")]
        for choice in self.choices:
            mark = "* " if choice.name == self.present else "  "
            what = ", ".join(f"{part} {in_units(n)}" for part, n in choice.parts.items() if n)
            told = f"{what}; {choice.remark}" if choice.remark else what
            rows.append((mark + choice.name, *(in_units(n) for n in (choice.peak, choice.kept, choice.host)), told))
        widths = [max(len(row[i]) for row in rows) for i in range(4)]
        for row in rows:
            cells = [
                row[0].ljust(widths[0]),
                *(cell.rjust(width) for cell, width in zip(row[1:4], widths[1:], strict=True)),
            ]
            lines.append("  ".join([*cells, row[4]]).rstrip())
        return "\n".join([*lines, "", "* this optimizer"])


def in_units(nbytes: int) -> str:
    """Bytes in the unit of a thousand that fits: 1.5 GB."""
    size, unit = float(nbytes), "B"
    for larger in ("kB", "MB", "GB", "TB"):
        if size < 999.5:
            break
        size, unit = size / 1000, larger
    return f"{nbytes} B" if unit == "B" else f"{size:.3g} {unit}"
