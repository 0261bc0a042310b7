"""How a gradient is kept until the surgery: in fewer bits, or on the CPU."""

from __future__ import annotations

import torch
from torch import Tensor


class Keeper:
    """Makes of a fresh gradient what is kept of it, and of that again what the surgery takes.

    Args:
        offload: keep it on the CPU. From a GPU the copy goes to pinned memory on a stream of its own, so that the next
            backward does not wait for it; the pinned memory is used again from step to step.
        dtype: keep it in this dtype, where that is smaller than its own.
    """

    def __init__(self, offload: bool, dtype: torch.dtype | None) -> None:
        self.offload, self.dtype = offload, dtype
        self._side: torch.cuda.Stream | None = None

    def keep(self, x: Tensor, held: Tensor | None, place: Tensor | None) -> Tensor:
        """What is kept of the sum of x and held.

        The sum is made in the dtype of x, and rounded once.

        Args:
            x: a gradient that nobody else needs: it may be written to and kept.
            held: what is kept of the same task's micro-batches before; None: nothing. It is not written to, unless it
                is `place`.
            place: memory of an earlier step, written to where it fits.
        """
        if held is not None:
            self.wait(x.device)
            x.add_(held.to(x.device, non_blocking=True))
        kept = x.to(self.stored_as(x.dtype))
        return self._offloaded(kept, place) if self.offload else kept

    def stored_as(self, dtype: torch.dtype) -> torch.dtype:
        """The dtype in which gradients of this one are kept."""
        return self.dtype if self.dtype is not None and self.dtype.itemsize < dtype.itemsize else dtype

    def wait(self, device: torch.device) -> None:
        """Let what is enqueued on the device from now on come after all copies to the CPU; the host does not wait."""
        if self._side is not None:
            torch.cuda.current_stream(device).wait_stream(self._side)

    def _offloaded(self, x: Tensor, place: Tensor | None) -> Tensor:
        pinned = x.device.type == "cuda"
        fits = place is not None and (place.shape, place.stride(), place.dtype) == (x.shape, x.stride(), x.dtype)
        if place is None or not fits:
            place = torch.empty_like(x, device="cpu", pin_memory=pinned)
        if not pinned:
            return place.copy_(x)
        if self._side is None:
            self._side = torch.cuda.Stream(x.device)
        # After the backward that made x, and after the uploads of the step before, which may still read `place`.
        self._side.wait_stream(torch.cuda.current_stream(x.device))
        with torch.cuda.stream(self._side):
            place.copy_(x, non_blocking=True)
        x.record_stream(self._side)  # its memory is not given to anybody before the copy is done
        return place

    def __getstate__(self) -> dict[str, object]:
        return {"offload": self.offload, "dtype": self.dtype, "_side": None}  # a stream cannot be pickled
