"""Gradient surgery on LoRA adapters: 100 tasks, one backward for all of them, a Gramian per adapted module.

python examples/lora.py
"""

import time

import peft
import torch
from transformers import LlamaConfig, LlamaForSequenceClassification

import gradsim
from gradsim.integrations.peft import granularity

TASKS = [f"task {t}" for t in range(100)]
WORDS, LENGTH, CLASSES = 60, 8, 3
torch.manual_seed(0)
sides = torch.randn(4, WORDS, CLASSES)  # four families of tasks: each word speaks for a class, in each another one


def batch() -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """Two samples of every task, in any order."""
    tasks = torch.randperm(2 * len(TASKS)) % len(TASKS)
    words = torch.randint(1, WORDS, (len(tasks), LENGTH))
    labels = sides[tasks % 4, words.T].sum(0).argmax(-1)
    return tasks, {"input_ids": words, "labels": labels}


config = LlamaConfig(
    vocab_size=WORDS, hidden_size=64, intermediate_size=128, num_hidden_layers=2, num_attention_heads=4,
    num_key_value_heads=4, num_labels=CLASSES, pad_token_id=0,
)  # fmt: skip
adapters = peft.LoraConfig(r=4, target_modules=["q_proj", "v_proj", "down_proj"], modules_to_save=["score"])
model = peft.get_peft_model(LlamaForSequenceClassification(config), adapters)
model.print_trainable_parameters()
opt = gradsim.GradVac(
    torch.optim.AdamW(model.parameters(), lr=1e-2),  # the frozen ones cost nothing
    tasks=TASKS,
    model=model,
    granularity=granularity(model, "module"),  # or "matrix": A and B apart; or "layer"
)
begin = time.perf_counter()
for step in range(15):
    tasks, inputs = batch()
    with opt.mixed_batch(tasks, "mean"):
        loss = model(**inputs).loss
        loss.backward()
    opt.step()
    opt.zero_grad()
    if step % 5 == 4:
        told = opt.statistics()
        print(
            f"step {step + 1}: loss {loss.item():.3f}, mean cosine {told['cosine_mean']:.3f}, "
            f"{told['corrections']:.0%} corrected, {(time.perf_counter() - begin) / (step + 1):.2f} s a step"
        )
similarity, groups = opt.similarity().mean(), opt.similarity().groups
family = torch.arange(len(TASKS)) % 4
same = (family[:, None] == family) & ~torch.eye(len(TASKS), dtype=torch.bool)
print(f"mean cosine within a family {similarity[same].mean():.3f}, between families ", end="")
print(f"{similarity[family[:, None] != family].mean():.3f}, in {len(groups)} groups of adapters")
