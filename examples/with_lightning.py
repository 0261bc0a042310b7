"""Gradient surgery with Lightning: the callback is told the task of each sample, Lightning does the rest.

python examples/with_lightning.py
"""

import logging
import warnings

import lightning.pytorch as L
import torch
import torch.nn.functional as F
from torch.utils.data import DataLoader

import gradsim
from gradsim.integrations.lightning import GradSurgeryCallback

TASKS = ["de", "sw", "am"]
logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
warnings.filterwarnings("ignore", module="lightning")
torch.manual_seed(0)
teachers = torch.randn(20, 5) + 0.7 * torch.randn(len(TASKS), 20, 5)  # they agree in part


def sample(i: int) -> dict[str, object]:
    """A sample of one task; batches mix them."""
    t = i % len(TASKS)
    x = torch.randn(20, generator=torch.Generator().manual_seed(i))
    return {"task": t, "x": x, "y": (x @ teachers[t]).argmax()}


class Model(L.LightningModule):
    def __init__(self) -> None:
        super().__init__()
        self.net = torch.nn.Sequential(torch.nn.Linear(20, 64), torch.nn.GELU(), torch.nn.Linear(64, 5))

    def training_step(self, batch: dict[str, torch.Tensor], batch_idx: int) -> torch.Tensor:
        loss = F.cross_entropy(self.net(batch["x"]), batch["y"])
        self.log("loss", loss)
        return loss

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return gradsim.GradVac(torch.optim.AdamW(self.parameters(), lr=3e-3), tasks=TASKS, model=self)


class Print(L.Callback):
    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        told = {name: float(value) for name, value in trainer.callback_metrics.items()}
        print(f"epoch {trainer.current_epoch + 1}: " + ", ".join(f"{name} {value:.3f}" for name, value in told.items()))


L.Trainer(
    accelerator="cpu", devices=1, max_epochs=3, accumulate_grad_batches=2, gradient_clip_val=1.0, log_every_n_steps=8,
    callbacks=[GradSurgeryCallback(lambda batch: batch["task"]), Print()],
    logger=False, enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False,
).fit(Model(), DataLoader([sample(i) for i in range(2304)], batch_size=48, shuffle=True))  # fmt: skip
