"""Hugging Face's Trainer with gradient surgery: three tasks that want different things of one small Llama.

python examples/trainer.py
torchrun --nproc-per-node 2 examples/trainer.py
"""

import tempfile

import datasets
import torch
from transformers import LlamaConfig, LlamaForCausalLM, TrainingArguments

from gradsim.integrations.transformers import GradSurgeryTrainer

STEPS = {"up": 1, "double": 2, "down": -1}  # task -> how it counts, modulo 31
SIZES = {"up": 240, "double": 60, "down": 30}  # one with much data and two with little


def count(task: str, size: int) -> list[list[int]]:
    return [[(start + k * STEPS[task]) % 31 for k in range(8)] for start in range(size)]


def losses(model: torch.nn.Module) -> str:
    model.eval()
    rows = {task: torch.tensor(count(task, 31)) for task in STEPS}
    with torch.no_grad():
        return ", ".join(f"{task} {model(input_ids=x, labels=x).loss.item():.2f}" for task, x in rows.items())


torch.manual_seed(0)
config = LlamaConfig(
    vocab_size=31, hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4, pad_token_id=0,
)  # fmt: skip
model = LlamaForCausalLM(config)
rows = [(task, row) for task, size in SIZES.items() for row in count(task, size)]
data = {"task": [task for task, _ in rows], **{name: [row for _, row in rows] for name in ("input_ids", "labels")}}
args = TrainingArguments(
    tempfile.mkdtemp(), max_steps=60, per_device_train_batch_size=12, learning_rate=5e-3, logging_steps=20,
    save_strategy="no", report_to="none", disable_tqdm=True, dataloader_pin_memory=False, use_cpu=True,
)  # fmt: skip
trainer = GradSurgeryTrainer(
    model=model,
    args=args,
    train_dataset=datasets.Dataset.from_dict(data),
    tasks=list(STEPS),
    task_column="task",
    surgery={"method": "gradvac", "granularity": "all_layer"},
    sampling="uniform",  # a third of each batch for every task, however much data that has
)
before = losses(model)
trainer.train()
if trainer.is_world_process_zero():
    told = trainer.surgery_optimizer.statistics()
    print(f"\nloss before: {before}\nloss after:  {losses(model)}")
    print(
        f"mean cosine of the gradients {told['cosine_mean']:.2f}, corrected in {told['corrections']:.0%} of the visits"
    )
    print(trainer.surgery_optimizer.similarity().mean())
if torch.distributed.is_initialized():
    torch.distributed.barrier()
    torch.distributed.destroy_process_group()
