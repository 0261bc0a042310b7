"""Parameters of which every process has a part: FSDP2, tensor parallelism, both, as DTensors."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.tensor import DTensor

from gradsim.distributed.presence import Facts, digest, meet
from gradsim.distributed.processes import Processes

Mesh = Any  # DeviceMesh
Rows = Sequence[Sequence[Tensor | None]]


class Shards:
    """The parts of DTensors that are in this process; what the parts measure is added up over their mesh.

    The Gramian of a parameter is the sum over its shards. A part that several processes have alike counts in the first
    of them only. What the framework has averaged already is left as it is.

    Args:
        parameters: P parameters. Those that are no DTensors are taken for the same in all processes of the largest
            mesh. names: theirs.

    Raises:
        RuntimeError: no process group for a mesh.
    """

    def __init__(self, parameters: Sequence[Tensor], names: Sequence[str]) -> None:
        self.parameters, self._names = list(parameters), list(names)
        meshes = {id(p.device_mesh): p.device_mesh for p in parameters if isinstance(p, DTensor)}
        largest = max(meshes.values(), key=lambda mesh: mesh.size())
        self._meshes: dict[Hashable, Mesh] = {}
        self._keys: list[Hashable] = []
        self._counted: list[bool] = []
        for p in parameters:
            mesh = p.device_mesh if isinstance(p, DTensor) else largest
            key = (tuple(mesh.mesh.flatten().tolist()), tuple(mesh.shape))
            self._meshes.setdefault(key, mesh)
            self._keys.append(key)
            where = mesh.get_coordinate() or ()
            alike = [p.placements[d].is_replicate() if isinstance(p, DTensor) else True for d in range(mesh.ndim)]
            self._counted.append(not any(same and c for same, c in zip(alike, where, strict=True)))
        self._everybody: dict[Hashable, Processes] = {}
        self._checked: set[int] = set()  # plain parameters

    @property
    def mesh(self) -> Mesh:
        """The mesh of all parameters (RuntimeError: there are several)."""
        if len(self._meshes) > 1:
            raise RuntimeError(
                "mixed_batch() needs all parameters on one mesh, but they are on several; use one task() block per task"
            )
        return next(iter(self._meshes.values()))

    @property
    def everybody(self) -> Processes:
        """All processes of that mesh."""
        return self._all(next(iter(self._meshes)))

    def local(self, rows: Rows) -> list[list[Tensor | None]]:
        """The parts of the rows [T][P] that are here, in the shape of the parameters' own parts."""
        return [[self._part(i, x) for i, x in enumerate(row)] for row in rows]

    def wrapped(self, i: int, part: Tensor) -> Tensor:
        """The part of a combined gradient as the gradient of parameter i."""
        p = self.parameters[i]
        if not isinstance(p, DTensor):
            return part
        part = part.to(p.to_local().device)  # which FSDP may have on the CPU
        return DTensor.from_local(part, p.device_mesh, p.placements, run_check=False, shape=p.shape, stride=p.stride())

    def settle(self, facts: Facts, rows: Rows, blocks: Sequence[int]) -> None:
        """Make sure that all processes of each mesh have run the same tasks in the same order.

        Args:
            facts: what all must have been given alike.
            rows: [T][P] what was captured. blocks: the tasks whose gradients were captured, in their order.

        Raises:
            RuntimeError: they have not: then each gradient holds several tasks. And what `meet` raises.
        """
        mine = digest(list(blocks), [[x is not None for x in row] for row in rows])
        for key in self._meshes:
            if len(set(meet(self._all(key), "finish()", facts, mine))) > 1:
                raise RuntimeError(
                    "the processes that share the parameters ran different tasks, or in different orders, so that "
                    "their gradients are mixed; under FSDP and tensor parallelism every process opens the same "
                    "tasks in the same order (with a loss of zero where it has no samples)"
                )
        self._check_plain(rows)

    def parts(self, parameters: Sequence[int], positions: list[int]) -> dict[Hashable, list[int]]:
        """By mesh, which of the parameters count in this process."""
        found: dict[Hashable, list[int]] = {key: [] for key in self._meshes}
        for i, position in zip(parameters, positions, strict=True):
            if self._counted[i]:
                found[self._keys[i]].append(position)
        return found

    def added_up(self, key: Hashable, M: Tensor) -> Tensor:
        """What all processes of a mesh measured, the same to the bit in each."""
        return self._all(key).sum_(M.clone())

    def same(self, weights: Tensor) -> Tensor:
        """The weights of the first process of the mesh, in all of them."""
        for key in self._meshes:
            self._all(key).from_first_([weights])
        return weights

    def _all(self, key: Hashable) -> Processes:
        """The processes of a mesh as one group."""
        if key not in self._everybody:
            mesh = self._meshes[key]
            ranks = mesh.mesh.flatten().tolist()
            if mesh.ndim == 1:
                group = mesh.get_group()
            elif sorted(ranks) == list(range(dist.get_world_size())):
                group = dist.group.WORLD
            else:
                group = dist.new_group(sorted(ranks), use_local_synchronization=True)
            self._everybody[key] = Processes(group)
        return self._everybody[key]

    def _check_plain(self, rows: Rows) -> None:
        """Refuse plain parameters whose gradients are only parts of a sum: nobody would add them up (RuntimeError)."""
        plain = [
            i
            for i, p in enumerate(self.parameters)
            if not isinstance(p, DTensor) and i not in self._checked and any(row[i] is not None for row in rows)
        ]
        if not plain:
            return
        self._checked.update(plain)
        each = [x for row in rows for i in plain if (x := row[i]) is not None]
        names = [self._names[i] for row in rows for i in plain if row[i] is not None]
        told = torch.stack([x.double().norm() for x in each]).cpu()
        everywhere = torch.tensor(self._all(self._keys[plain[0]]).say(told.view(torch.int64).tolist()))
        norms = everywhere.view(torch.float64)
        apart = ((norms - norms[0]).abs() > 1e-2 * norms.abs().amax(0)).any(0)
        if apart.any():
            raise RuntimeError(
                f"the gradient of {names[int(apart.nonzero()[0])]}, which is no DTensor, differs between the processes "
                "that share the model, as in a part of it that is parallel over the sequence: each has a part of the "
                "sum only; make it a DTensor with distribute_tensor(..., [Replicate()])"
            )

    def _part(self, i: int, x: Tensor | None) -> Tensor | None:
        if not isinstance(x, DTensor):
            return x
        p = self.parameters[i]
        if isinstance(p, DTensor) and x.placements != p.placements:
            x = x.redistribute(p.device_mesh, p.placements)  # such as sums that the backward has left open
        part: Tensor = x.to_local()
        wait = getattr(part, "wait", None)
        return wait() if callable(wait) else part
