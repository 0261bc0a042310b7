"""What the surgery did since the last log, as the scalars that the Trainer's loggers take."""

from __future__ import annotations

import torch
from torch import Tensor

from gradsim.optim.wrapper import SurgeryOptimizer

PAIRS = 15  # so many curves of cosines at most: 6 tasks


class SurgeryLog:
    """Differences of the surgery's running sums between two logs; reading them waits for the device.

    `surgery/cosine_mean`: mean cosine over groups and pairs of tasks; `surgery/corrections`: share of the visits in
    which a gradient was corrected; `surgery/negative`: share with a cosine below 0; `surgery/ms`: mean time of the
    surgery per step, since the start; `surgery/cosine/<task>-<task>`: each pair, where there are 15 of them at most.
    What was not measured is left out.
    """

    def __init__(self, opt: SurgeryOptimizer) -> None:
        self.opt = opt
        self._before = self._sums()

    def read(self) -> dict[str, float]:
        """The scalars since the last call."""
        now = self._sums()
        change = {name: x - self._before[name] for name, x in now.items()}
        self._before = now
        scalars: dict[str, float] = {}
        others = ~torch.eye(len(self.opt.tasks), dtype=torch.bool)
        cosines, counts = change["cosine_sum"], change["count"]
        if counts[others].sum() > 0:
            scalars["surgery/cosine_mean"] = float(cosines[others].sum() / counts[others].sum())
        if change["visits"] > 0:
            for name in ("corrections", "negative"):
                scalars[f"surgery/{name}"] = float(change[name] / change["visits"])
        if change["step"] > 0:
            scalars["surgery/ms"] = float(self.opt.statistics()["ms"])
        T = len(self.opt.tasks)
        if T * (T - 1) // 2 <= PAIRS:
            for i, j in torch.triu(counts > 0, diagonal=1).nonzero().tolist():
                name = f"surgery/cosine/{self.opt.tasks[i]}-{self.opt.tasks[j]}"
                scalars[name] = float(cosines[i, j] / counts[i, j])
        return scalars

    def _sums(self) -> dict[str, Tensor]:
        """The running sums over all groups: [T, T] of pairs, [] of tasks; those kept aside stand behind and are cut."""
        T = len(self.opt.tasks)
        tensors = self.opt.surgery.state_dict()["tensors"]
        sums = {name: tensors[name].sum(0)[:T, :T].cpu() for name in ("cosine_sum", "count")}
        for name in ("visits", "corrections", "negative"):
            sums[name] = tensors[name][:, :T].sum().cpu()
        return {**sums, "step": tensors["step"].cpu()}
