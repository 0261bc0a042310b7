"""Cases of small Hugging Face models: a Llama and a GPT-2 (tied embeddings), as built from a configuration."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.distributed.fsdp import fully_shard
from torch.nn.parallel import DistributedDataParallel as DDP
from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM

from distributed.setting import Setting, Stack
from distributed.stage import check


def _llama() -> nn.Module:
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=19,
        hidden_size=12,
        intermediate_size=15,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        max_position_embeddings=16,
        attn_implementation="sdpa",
    )
    return LlamaForCausalLM(config).double()


def _gpt2() -> nn.Module:
    torch.manual_seed(0)
    config = GPT2Config(
        vocab_size=19, n_embd=12, n_layer=2, n_head=2, n_positions=16, resid_pdrop=0, embd_pdrop=0, attn_pdrop=0
    )
    return GPT2LMHeadModel(config).double()


@dataclass
class Text:
    """One micro-batch of words [B, L] that are their own labels."""

    task: str
    words: Tensor

    def loss(self, model: nn.Module) -> Tensor:
        loss: Tensor = model(input_ids=self.words, labels=self.words).loss
        return loss


def _texts(step: int, rank: int, world: int) -> list[Text]:
    """Uneven micro-batches on each rank; each task has its own six words."""
    texts = []
    for t, task in enumerate("abc"):
        for n in range(1 + (rank + t + step) % 2):
            generator = torch.Generator().manual_seed(1000 * step + 100 * rank + 10 * n + t)
            texts.append(Text(task, torch.randint(6, (2 + rank % 2, 7), generator=generator) + 6 * t))
    return texts


def _even(step: int, rank: int, world: int) -> list[Text]:
    return [
        x
        for i, x in enumerate(_texts(step, rank, world))
        if x.task not in [y.task for y in _texts(step, rank, world)[:i]]
    ]


def hugging_face_under_ddp() -> None:
    for build in (_llama, _gpt2):
        check(Setting(_texts, make=build), Stack(DDP(build())))


def hugging_face_under_fsdp2() -> None:
    for build, layers in ((_llama, lambda m: m.model.layers), (_gpt2, lambda m: m.transformer.h)):
        check(Setting(_even, make=build), Stack(_sharded(build(), layers)))


def gradient_checkpointing_of_hugging_face() -> None:
    for kind in ("ddp", "fsdp2"):
        net = _llama()
        net.gradient_checkpointing_enable()
        stack = Stack(DDP(net) if kind == "ddp" else _sharded(net, lambda m: m.model.layers))
        check(Setting(_even, make=_llama, steps=2), stack)


def _sharded(net: nn.Module, layers: Callable[[nn.Module], list[nn.Module]]) -> nn.Module:
    for layer in layers(net):
        fully_shard(layer)
    return fully_shard(net)
