"""Decoders of transformers, as language models."""

from __future__ import annotations

from functools import partial

from one_backward.zoo_case import (
    HEADS,
    INNER,
    LAYERS,
    PAD,
    WIDTH,
    WORDS,
    Case,
    classes,
    left_padded,
    next_words,
    per_next_label,
)
from one_backward.zoo_encoders import checkpointed, lora, maker

GPT2 = {
    "vocab_size": WORDS,
    "n_embd": WIDTH,
    "n_layer": LAYERS,
    "n_head": HEADS,
    "n_positions": 40,
    "pad_token_id": PAD,
    "bos_token_id": 2,
    "eos_token_id": 2,
}
SMALL = {
    "hidden_size": WIDTH,
    "num_attention_heads": HEADS,
    "num_key_value_heads": 2,
    "num_hidden_layers": LAYERS,
    "intermediate_size": INNER,
    "vocab_size": WORDS,
    "max_position_embeddings": 40,
    "pad_token_id": PAD,
    "bos_token_id": 2,
    "eos_token_id": 3,
}
WIDE_HEADS = {**SMALL, "head_dim": 8}  # more than the width has room for: as in Qwen3 and Gemma

gpt2 = maker("GPT2LMHeadModel", GPT2)
llama = maker("LlamaForCausalLM", SMALL)

CASES = [
    Case("gpt2", "GPT-2", gpt2, next_words, units=per_next_label),
    Case(
        "gpt2-classes",
        "GPT-2, classification",
        maker("GPT2ForSequenceClassification", {**GPT2, "num_labels": 3}),
        classes,
    ),
    Case("llama", "Llama", llama, left_padded, units=per_next_label),
    Case("qwen2", "Qwen2", maker("Qwen2ForCausalLM", SMALL), next_words, units=per_next_label),
    Case("qwen3", "Qwen3", maker("Qwen3ForCausalLM", WIDE_HEADS), next_words, units=per_next_label),
    Case("gemma", "Gemma", maker("GemmaForCausalLM", WIDE_HEADS), next_words, units=per_next_label),
    Case(
        "gemma2",
        "Gemma 2",
        maker("Gemma2ForCausalLM", {**WIDE_HEADS, "sliding_window": 4}),
        next_words,
        units=per_next_label,
        attentions=("eager",),
        remark="has no SDPA in transformers",
    ),
    Case(
        "gemma3",
        "Gemma 3, text",
        maker("Gemma3ForCausalLM", {**WIDE_HEADS, "sliding_window": 4}),
        left_padded,
        units=per_next_label,
    ),
    Case(
        "mistral",
        "Mistral",
        maker("MistralForCausalLM", {**SMALL, "sliding_window": 4}),
        next_words,
        units=per_next_label,
    ),
    Case(
        "llama-lora",
        "Llama with LoRA",
        partial(lora, llama, ["q_proj", "v_proj", "down_proj"]),
        next_words,
        units=per_next_label,
        needs=("transformers", "peft"),
        remark="peft",
    ),
    *(
        Case(
            f"gpt2-checkpointed-{word}",
            f"GPT-2, gradient checkpointing ({word})",
            partial(checkpointed, gpt2, word == "reentrant"),
            next_words,
            units=per_next_label,
            modes=("train",),
        )
        for word in ("reentrant", "non-reentrant")
    ),
]
