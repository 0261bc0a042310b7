"""A training that goes on from a file is, bit for bit, the one that was never interrupted."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from checkpoints.stage import BASES, Job, same
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from gradsim import PCGrad, Surgery
from gradsim.distributed import SurgeryCheckpoint
from gradsim.optim import flatten_state, unflatten_state


@pytest.mark.parametrize("storage", ["autograd", "flat"])
@pytest.mark.parametrize("base", list(BASES))
def test_from_torch_save(base: str, storage: str, tmp_path: Path) -> None:
    """With a scaler (whose scale grows, and falls at an overflow), a scheduler, clipping and missing tasks."""
    whole, first = (Job(base, storage=storage, seed=5, overflow_at=4) for _ in range(2))
    whole.train(range(9))
    first.train(range(5))  # right after the overflow
    torch.save(first.state(), tmp_path / "job.pt")
    first.train(range(5, 6))  # what follows must not reach the file
    fresh = Job(base, storage=storage, start=6, overflow_at=4)
    fresh.load(torch.load(tmp_path / "job.pt", weights_only=True))
    fresh.train(range(5, 9))
    assert same(fresh.state(), whole.state())
    assert whole.opt.statistics()["skipped"] == 1 and whole.opt.statistics()["corrections"] > 0
    assert whole.scaler.get_scale() != 64.0


def test_with_a_longer_training_before_it(tmp_path: Path) -> None:
    """Loading replaces all that an object has seen, also what a first training has left in it."""
    whole, first, other = Job(), Job(), Job(start=1)
    whole.train(range(5))
    first.train(range(3))
    other.train(range(4, 8))
    other.load(first.state())
    other.train(range(3, 5))
    assert same(other.state(), whole.state())


def write(path: Path, state: dict[str, Any], more: dict[str, Tensor]) -> None:
    tensors, metadata = flatten_state(state)
    save_file({**more, **tensors}, path, metadata={"format": "pt", **metadata})


def read(path: Path) -> dict[str, Any]:
    with safe_open(path, "pt") as file:
        return unflatten_state({name: file.get_tensor(name) for name in file.keys()}, file.metadata())  # noqa: SIM118


def test_from_safetensors_beside_the_model(tmp_path: Path) -> None:
    whole, first, fresh = Job(), Job(), Job(start=1)
    whole.train(range(5))
    first.train(range(3))
    state = first.opt.surgery.state_dict()
    write(tmp_path / "job.safetensors", state, first.net.state_dict())
    assert same(read(tmp_path / "job.safetensors"), state)
    plain = {name: value for name, value in first.state()["opt"].items() if name != "gradient_surgery"}
    fresh.load({**first.state(), "opt": plain})
    fresh.opt.surgery.load_state_dict(read(tmp_path / "job.safetensors"))
    fresh.train(range(3, 5))
    assert same(fresh.state(), whole.state())


def test_names_of_every_script_and_a_surgery_that_was_never_called(tmp_path: Path) -> None:
    surgery = Surgery(tasks=["አማርኛ", 'a "b"', "c\n.d"], names=["x.w", "y.w"], seed=3)
    for state in (surgery.state_dict(), Surgery("pcgrad", seed=4).state_dict()):
        write(tmp_path / "state.safetensors", state, {"x": torch.zeros(1)})
        assert same(read(tmp_path / "state.safetensors"), state)


def test_nothing_in_the_flat_state_is_shared_with_the_surgery() -> None:
    job = Job()
    job.train(range(1))
    live = job.opt.surgery._state.tensors  # type: ignore[union-attr]
    tensors, _ = flatten_state({"version": 1, "tensors": live})
    kept = {name: x.clone() for name, x in tensors.items()}
    job.train(range(1, 2))
    assert same(tensors, kept)


@pytest.mark.parametrize("change", ["target", "metadata", "lost tensor", "another tensor", "no JSON", "none", "list"])
def test_a_damaged_flat_state_is_refused(change: str, tmp_path: Path) -> None:
    job = Job()
    job.train(range(2))
    before = job.state()
    tensors, metadata = flatten_state(job.opt.surgery.state_dict())
    message = "damaged"
    if change == "target":
        tensors["gradient_surgery.target"].view(torch.uint8)[0, 1, 3] ^= 1  # a single bit
    elif change == "metadata":
        metadata["gradient_surgery"] = metadata["gradient_surgery"].replace("sw", "zw")
    elif change == "lost tensor":
        del tensors["gradient_surgery.count"]
    elif change == "another tensor":
        tensors["gradient_surgery.more"] = torch.zeros(1)
    elif change == "no JSON":
        metadata["gradient_surgery"] = metadata["gradient_surgery"][:-3]
    elif change == "list":
        metadata["gradient_surgery"] = "[1, 2]"
    else:
        metadata, message = {"format": "pt"}, "no state of a surgery"
    with pytest.raises(ValueError, match=message) as caught:
        job.opt.surgery.load_state_dict(unflatten_state(tensors, metadata))
    assert "\n" not in str(caught.value)
    assert same(job.state(), before)


@pytest.mark.parametrize("wrong", ["cosine", "infinite", "nan", "negative", "groups", "method", "version"])
def test_a_state_that_is_wrong_in_itself_changes_nothing(wrong: str) -> None:
    """Neither the surgery nor the base optimizer, whose part of the state would have fitted."""
    job = Job()
    job.train(range(2))
    state = job.state()["opt"]
    own = state["gradient_surgery"]
    state["param_groups"][0]["lr"] = 9.0
    message = {"cosine": "target .* between -1 and 1", "negative": "visits .* not be negative"}.get(wrong, "finite")
    if wrong == "cosine":
        own["tensors"]["target"][0, 0, 1] = 1.5
    elif wrong == "negative":
        own["tensors"]["visits"][0, 0] = -1
    elif wrong == "groups":
        own["groups"], message = [f"{name}." for name in own["groups"]], "other groups"
    elif wrong == "method":
        own["method"], message = "pcgrad", "cannot go on as 'gradvac'"
    elif wrong == "version":
        own["version"], message = 2, "version 2"
    else:
        own["tensors"]["norm_sum"][1, 1] = float(wrong[:3])
    before = job.state()
    with pytest.raises(ValueError, match=message) as caught:
        job.opt.load_state_dict(state)
    assert "\n" not in str(caught.value)
    assert same(job.state(), before)


def test_a_truncated_file_changes_nothing(tmp_path: Path) -> None:
    job = Job()
    job.train(range(2))
    before = job.state()
    torch.save(before, tmp_path / "job.pt")
    write(tmp_path / "job.safetensors", before["opt"]["gradient_surgery"], {})
    for name, reader in (("job.pt", lambda path: torch.load(path, weights_only=True)), ("job.safetensors", read)):
        data = (tmp_path / name).read_bytes()
        (tmp_path / name).write_bytes(data[: len(data) // 2])
        with pytest.raises((OSError, RuntimeError, SafetensorError)):
            job.opt.load_state_dict(reader(tmp_path / name))
        assert same(job.state(), before)


def test_the_state_of_the_other_method_is_refused_by_the_optimizer() -> None:
    job = Job()
    job.train(range(1))
    other = PCGrad(torch.optim.AdamW(job.net.parameters()), tasks=job.opt.tasks, model=job.net)
    with pytest.raises(ValueError, match="one of 'gradvac' and cannot go on as 'pcgrad'"):
        other.load_state_dict(job.opt.state_dict())
    assert not other.state and other.statistics()["steps"] == 0


def test_a_group_added_on_the_way() -> None:
    """Layers that are unfrozen later: the state fits once the group is there again, and is refused before."""

    def start(job: Job) -> Any:
        body = [p for name, p in job.net.named_parameters() if not name.startswith("output")]
        job.opt = type(job.opt)(torch.optim.AdamW(body, lr=1e-2), tasks=job.opt.tasks, model=job.net, beta=0.3)
        job.scheduler = torch.optim.lr_scheduler.StepLR(job.opt, 2)
        return job

    def plain_steps(job: Job, steps: range) -> None:
        job.train(steps)
        for p in job.net.output.parameters():
            p.grad = None

    def grow(job: Job) -> None:
        job.opt.add_param_group({"params": job.net.output.parameters(), "lr": 1e-3, "initial_lr": 1e-3})
        job.scheduler.base_lrs.append(1e-3)

    whole, early = start(Job()), start(Job())
    nn.Module.requires_grad_(whole.net.output, False)
    nn.Module.requires_grad_(early.net.output, False)
    for job in (whole, early):
        plain_steps(job, range(2))
    small = early.state()
    for job in (whole, early):
        nn.Module.requires_grad_(job.net.output, True)
        grow(job)
        job.train(range(2, 4))
    fresh = start(Job(start=1))
    before = fresh.state()
    with pytest.raises(ValueError, match="has in addition \\['output'\\]"):
        fresh.load(early.state() | {"model": before["model"]})
    assert same(fresh.state(), before)
    grow(fresh)
    with pytest.raises(ValueError, match="lacks \\['output'\\]"):
        fresh.opt.load_state_dict(small["opt"])
    fresh.load(early.state())
    for job in (whole, fresh):
        job.train(range(4, 6))
    assert same(fresh.state(), whole.state())


class Leaning:
    """A weighting with a memory: the more often it was asked, the more the first task counts."""

    def __init__(self) -> None:
        self.memory = torch.zeros(2, dtype=torch.float64)

    def __call__(self, gramian: Tensor) -> Tensor:
        self.memory += gramian.diagonal()[:2].sqrt() + 1 / 3
        return torch.ones(len(gramian), dtype=torch.float64).index_put((torch.tensor(0),), self.memory.sum())

    def state_dict(self) -> dict[str, Any]:
        return {"memory": self.memory, "inf": float("inf")}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.memory = state["memory"].clone()


def test_the_memory_of_a_weighting_travels_too(tmp_path: Path) -> None:
    def make() -> Surgery:
        return Surgery(tasks=["a", "b"], names=["x", "y"], weighting=Leaning())

    def step(surgery: Surgery, number: int) -> list[Tensor | None]:
        generator = torch.Generator().manual_seed(number)
        return surgery([[torch.randn(5, generator=generator) for _ in "xy"] for _ in "ab"])

    whole = make()
    step(whole, 0)
    state = whole.state_dict()
    write(tmp_path / "state.safetensors", state, {})
    flat, dcp = make(), make()
    flat.load_state_dict(read(tmp_path / "state.safetensors"))
    SurgeryCheckpoint(dcp).load_state_dict(SurgeryCheckpoint(flat).state_dict())
    expected = step(whole, 1)
    for other in (flat, dcp):
        assert same(step(other, 1), expected) and same(other.state_dict(), whole.state_dict())
    assert not same(step(make(), 1), expected)
