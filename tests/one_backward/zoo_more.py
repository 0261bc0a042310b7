"""Further architectures of transformers, left to the long run."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from one_backward.zoo_case import (
    LAYERS,
    PAD,
    WIDTH,
    WORDS,
    Case,
    classes,
    next_words,
    per_label,
    per_next_label,
    translated,
)
from one_backward.zoo_decoders import SMALL as DECODER
from one_backward.zoo_encoders import SMALL as ENCODER
from one_backward.zoo_encoders import maker
from one_backward.zoo_pairs import PAIR, VIT, WAV2VEC2, images, spoken_classes

MARKS = {"bos_token_id": 2, "eos_token_id": 3, "cls_token_id": 2, "sep_token_id": 3}
DISENTANGLED = {"relative_attention": True, "pos_att_type": ["p2c", "c2p"], "position_buckets": 4}
EXPERTS = {"num_experts": 4, "num_local_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16}
MAMBA = {"hidden_size": WIDTH, "num_hidden_layers": LAYERS, "vocab_size": WORDS, "state_size": 4, "pad_token_id": PAD}
BLOOM = {"hidden_size": WIDTH, "n_head": 4, "n_layer": LAYERS, "vocab_size": WORDS, "pad_token_id": PAD}
SWIN = {"image_size": 8, "patch_size": 1, "embed_dim": 8, "depths": [1, 2], "num_heads": [1, 2], "window_size": 4}
CONVNEXT = {"hidden_sizes": [8, 16], "depths": [1, 1], "num_stages": 2, "patch_size": 2}
RESNET = {"hidden_sizes": [8, 16], "depths": [1, 1], "embedding_size": 8, "layer_type": "basic"}
LABELS = {"num_labels": 3}
ROUTED = "its tokens are sorted by expert: no longer by sample"
BOTH = ("eager", "sdpa")
OWN = ("eager",)  # has no SDPA in transformers

Row = tuple[str, str, dict[str, Any], tuple[str, ...]]
ENCODERS: list[Row] = [
    ("ELECTRA", "ElectraForSequenceClassification", ENCODER, BOTH),
    ("DeBERTa-v2", "DebertaV2ForSequenceClassification", ENCODER | DISENTANGLED, OWN),
    ("ModernBERT", "ModernBertForSequenceClassification", ENCODER | MARKS, BOTH),
    ("MPNet", "MPNetForSequenceClassification", ENCODER, OWN),
]
DECODERS: list[Row] = [
    ("OPT", "OPTForCausalLM", DECODER | {"ffn_dim": 32, "word_embed_proj_dim": WIDTH}, BOTH),
    ("BLOOM", "BloomForCausalLM", BLOOM, OWN),
    ("GPT-NeoX, Pythia", "GPTNeoXForCausalLM", DECODER, BOTH),
    ("Phi-3", "Phi3ForCausalLM", DECODER, BOTH),
    ("OLMo 2", "Olmo2ForCausalLM", DECODER, BOTH),
    ("Cohere", "CohereForCausalLM", DECODER, BOTH),
    ("SmolLM3", "SmolLM3ForCausalLM", DECODER, BOTH),
    ("Falcon", "FalconForCausalLM", DECODER, BOTH),
    ("Mamba", "MambaForCausalLM", MAMBA, OWN),
]
ROUTING: list[Row] = [
    ("Mixtral", "MixtralForCausalLM", DECODER | EXPERTS, BOTH),
    ("Qwen3-MoE", "Qwen3MoeForCausalLM", DECODER | EXPERTS, BOTH),
]
PAIRS: list[Row] = [
    ("BART", "BartForConditionalGeneration", PAIR, BOTH),
    ("Pegasus", "PegasusForConditionalGeneration", PAIR, BOTH),
]
IMAGES: list[Row] = [
    ("BEiT", "BeitForImageClassification", VIT | {"use_relative_position_bias": True, "out_indices": [0]}, BOTH),
    ("Swin", "SwinForImageClassification", SWIN | LABELS, BOTH),
    ("ConvNeXt", "ConvNextForImageClassification", CONVNEXT | LABELS, OWN),
]
SPEECH: list[Row] = [("HuBERT", "HubertForSequenceClassification", WAV2VEC2, BOTH)]


def cases(rows: list[Row], draw: Callable[..., Any], **more: Any) -> list[Case]:
    return [
        Case(
            model.split(",")[0].lower().replace(" ", "-"),
            model,
            maker(kind, options),
            draw,
            attentions=attentions,
            **more,
        )
        for model, kind, options, attentions in rows
    ]


CASES = [
    *cases(ENCODERS, classes),
    *cases(DECODERS, next_words, units=per_next_label, spread=0.1),
    *cases(PAIRS, translated, units=per_label, spread=0.05),
    *cases(IMAGES, images),
    *cases(SPEECH, spoken_classes),
    *cases(
        ROUTING,
        next_words,
        units=per_next_label,
        refused={"train": "cannot tell apart", "eval": "cannot tell apart"},
        remark=ROUTED,
    ),
    *cases(
        [("ResNet", "ResNetForImageClassification", RESNET | LABELS, OWN)],
        images,
        refused={"train": "BatchNorm2d in training mode"},
        remark="BatchNorm couples the samples in training mode",
        spread=0.05,
    ),
]
