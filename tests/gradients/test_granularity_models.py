"""The layers of the models that people train, built tiny from their configurations."""

from __future__ import annotations

from typing import Any

import pytest
from torch import nn

from gradsim import Granularity

transformers = pytest.importorskip("transformers")

SMALL = {"hidden_size": 16, "num_attention_heads": 2, "num_hidden_layers": 2, "intermediate_size": 32}
SEQ2SEQ = {
    "d_model": 16,
    "encoder_layers": 2,
    "decoder_layers": 1,
    "encoder_attention_heads": 2,
    "decoder_attention_heads": 2,
    "encoder_ffn_dim": 32,
    "decoder_ffn_dim": 32,
}
T5 = {"vocab_size": 50, "d_model": 16, "d_kv": 8, "d_ff": 32, "num_layers": 2, "num_decoder_layers": 1, "num_heads": 2}
WORDS = {"vocab_size": 50, "pad_token_id": 1}
SWIN = {"image_size": 32, "patch_size": 4, "embed_dim": 8, "depths": [1, 2], "num_heads": [1, 2], "window_size": 4}

WHISPER = {"num_mel_bins": 8, "max_source_positions": 8, "max_target_positions": 8}
GPT2 = {"vocab_size": 50, "n_embd": 16, "n_layer": 2, "n_head": 2}

# model, configuration, the Transformer layers it must be found to have, the other groups
MODELS: list[tuple[str, dict[str, Any], str, str]] = [
    ("BertForMaskedLM", {**SMALL, **WORDS}, "bert.encoder.layer.0 bert.encoder.layer.1", "bert cls"),
    (
        "XLMRobertaForSequenceClassification",
        {**SMALL, **WORDS},
        "roberta.encoder.layer.0 roberta.encoder.layer.1",
        "roberta classifier",
    ),
    ("GPT2LMHeadModel", GPT2, "transformer.h.0 transformer.h.1", "transformer"),
    ("LlamaForCausalLM", {**SMALL, "vocab_size": 50}, "model.layers.0 model.layers.1", "model lm_head"),
    (
        "AlbertModel",
        {**SMALL, **WORDS, "embedding_size": 8},
        "encoder.albert_layer_groups.0",
        "embeddings encoder pooler",
    ),
    (
        "T5ForConditionalGeneration",
        T5,
        "encoder.block.0 encoder.block.1 decoder.block.0",
        "shared encoder decoder",
    ),
    (
        "M2M100ForConditionalGeneration",
        {**SEQ2SEQ, **WORDS},
        "model.encoder.layers.0 model.encoder.layers.1 model.decoder.layers.0",
        "model",
    ),
    (
        "BartModel",
        {**SEQ2SEQ, **WORDS},
        "encoder.layers.0 encoder.layers.1 decoder.layers.0",
        "shared encoder decoder",
    ),
    (
        "WhisperModel",
        {**SEQ2SEQ, **WORDS, **WHISPER},
        "encoder.layers.0 encoder.layers.1 decoder.layers.0",
        "encoder decoder",
    ),
    (
        "SwinModel",
        SWIN,
        "encoder.layers.0.blocks.0 encoder.layers.1.blocks.0 encoder.layers.1.blocks.1",
        "embeddings encoder layernorm",
    ),
]


def build(name: str, configuration: dict[str, Any]) -> nn.Module:
    kind = getattr(transformers, name)
    net: nn.Module = kind(kind.config_class(**configuration))
    return net


@pytest.mark.parametrize(("name", "configuration", "layers", "others"), MODELS, ids=[row[0] for row in MODELS])
def test_layers(name: str, configuration: dict[str, Any], layers: str, others: str) -> None:
    net = build(name, configuration)
    names = [n for n, _ in net.named_parameters()]
    groups = Granularity("all_layer").groups(names)
    found = [g for g in groups.names if g in layers.split()]
    assert found == layers.split()
    assert set(groups.names) - set(found) == set(others.split())
    for group, members in zip(groups.names, groups.members, strict=True):
        assert all(names[i].startswith(group + ".") or names[i] == group for i in members)
    for layer in found:  # the whole layer, nothing else
        expected = [i for i, n in enumerate(names) if n.startswith(layer + ".")]
        assert groups.members[groups.names.index(layer)] == expected


def test_vit() -> None:
    net = build("ViTModel", {**SMALL, "image_size": 8, "patch_size": 4})
    groups = Granularity("all_layer").groups([n for n, _ in net.named_parameters()])
    assert len([g for g in groups.names if g.rsplit(".", 1)[-1].isdigit()]) == 2
    assert "embeddings" in groups.names


@pytest.mark.parametrize(
    ("name", "configuration"),
    [("T5ForConditionalGeneration", T5), ("M2M100ForConditionalGeneration", {**SEQ2SEQ, **WORDS})],
)
def test_sides_of_sequence_to_sequence_models(name: str, configuration: dict[str, Any]) -> None:
    names = [n for n, _ in build(name, configuration).named_parameters()]
    groups = Granularity("enc_dec").groups(names)
    assert set(groups.names) == {"encoder", "decoder", "rest"}
    assert [names[i] for i in groups.members[groups.names.index("rest")]] == [n for n in names if "shared" in n]


def test_a_decoder_alone_has_no_sides() -> None:
    net = build("GPT2LMHeadModel", GPT2)
    with pytest.raises(ValueError, match="has neither"):
        Granularity("enc_dec").groups([n for n, _ in net.named_parameters()])
