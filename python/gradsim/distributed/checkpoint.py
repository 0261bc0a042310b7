"""The surgery's state in torch's distributed checkpoint, which drops what it does not know of an optimizer's state."""

from __future__ import annotations

import hashlib
import io
import pickle
from typing import Any, Protocol, runtime_checkable

import torch

__all__ = ["SurgeryCheckpoint"]

KEY = "gradient_surgery"
_DIGEST = hashlib.sha256().digest_size


@runtime_checkable
class Resumable(Protocol):
    """What a `gradsim.Surgery` has."""

    def state_dict(self) -> dict[str, Any]: ...

    def load_state_dict(self, state_dict: dict[str, Any], /) -> None: ...

    def check_state_dict(self, state_dict: dict[str, Any], /) -> None: ...


class SurgeryCheckpoint:
    """The state of a surgery as a `torch.distributed.checkpoint.stateful.Stateful`.

    `get_optimizer_state_dict` gives the base optimizer's state only. This goes beside it:

        dcp.save({"app": app, "surgery": SurgeryCheckpoint(opt)}, checkpoint_id=path)
        dcp.load({"app": app, "surgery": SurgeryCheckpoint(opt)}, checkpoint_id=path)

    The state travels as one string of bytes with a checksum: into tensors the checkpoint loads nothing of another
    shape, and the tasks may have changed since. It is the same on all ranks and fits any number of processes. The bytes
    are made when saving begins, so that `async_save` may be followed by the next step at once.

    Args:
        optimizer: a `gradsim.GradVac`, `gradsim.PCGrad` or `gradsim.Surgery`.

    Raises:
        TypeError: something without a surgery.
    """

    def __init__(self, optimizer: object) -> None:
        surgery = getattr(optimizer, "surgery", optimizer)
        if not isinstance(surgery, Resumable):
            raise TypeError(
                f"SurgeryCheckpoint needs a GradVac, PCGrad or Surgery, not {type(optimizer).__name__}; if a framework "
                "has wrapped the optimizer, give the one inside"
            )
        self._surgery = surgery

    def state_dict(self) -> dict[str, bytes]:
        """The state as bytes."""
        file = io.BytesIO()
        file.write(bytes(_DIGEST))
        torch.save(self._surgery.state_dict(), file)
        with file.getbuffer() as data:
            data[:_DIGEST] = hashlib.sha256(data[_DIGEST:]).digest()
        return {KEY: file.getvalue()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from what `state_dict` gave, see `Surgery.load_state_dict`.

        Raises:
            ValueError, TypeError: bytes that are damaged or not from here, and what the surgery refuses; nothing is
                changed then.
        """
        self._surgery.load_state_dict(_read(state_dict.get(KEY)))


def _read(data: object) -> Any:
    if not isinstance(data, bytes):
        raise ValueError(
            f"the checkpoint must have bytes of a SurgeryCheckpoint under {KEY!r}, not {type(data).__name__}"
        )
    if hashlib.sha256(memoryview(data)[_DIGEST:]).digest() != data[:_DIGEST]:
        raise ValueError("the surgery state in the checkpoint is damaged: its checksum does not fit its content")
    file = io.BytesIO(data)
    file.seek(_DIGEST)
    try:
        return torch.load(file, map_location="cpu", weights_only=True)
    except (RuntimeError, EOFError, pickle.UnpicklingError) as error:  # a checksum that fits, over something else
        raise ValueError("the checkpoint has something else than a SurgeryCheckpoint under the name of one") from error
