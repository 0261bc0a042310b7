"""Encoder-decoder models of transformers, images and speech."""

from __future__ import annotations

import torch
from one_backward.zoo_case import (
    HEADS,
    INNER,
    LAYERS,
    PAD,
    WIDTH,
    WORDS,
    Batch,
    Case,
    lengths,
    per_label,
    summed,
    text,
    translated,
)
from one_backward.zoo_encoders import maker
from torch import Tensor

T5 = {
    "vocab_size": WORDS,
    "d_model": WIDTH,
    "d_kv": 4,
    "d_ff": INNER,
    "num_layers": LAYERS,
    "num_heads": HEADS,
    "decoder_start_token_id": 0,
    "pad_token_id": 0,
}
EXPANDED = "the relative bias is expanded to one per sample"
PAIR = {
    "d_model": WIDTH,
    "encoder_layers": LAYERS,
    "decoder_layers": LAYERS,
    "encoder_attention_heads": HEADS,
    "decoder_attention_heads": HEADS,
    "encoder_ffn_dim": INNER,
    "decoder_ffn_dim": INNER,
    "vocab_size": WORDS,
    "max_position_embeddings": 40,
    "pad_token_id": PAD,
    "bos_token_id": 2,
    "eos_token_id": 3,
    "decoder_start_token_id": 3,
}
FRAMES = 10
WHISPER = {**PAIR, "num_mel_bins": 8, "max_source_positions": FRAMES, "max_target_positions": 40}
WHISPER |= {"suppress_tokens": None, "begin_suppress_tokens": None}
VIT = {
    "hidden_size": WIDTH,
    "num_attention_heads": HEADS,
    "num_hidden_layers": LAYERS,
    "intermediate_size": INNER,
    "image_size": 8,
    "patch_size": 4,
    "num_labels": 3,
}
WAV2VEC2 = {
    "hidden_size": WIDTH,
    "num_attention_heads": HEADS,
    "num_hidden_layers": LAYERS,
    "intermediate_size": INNER,
    "conv_dim": (8, WIDTH),
    "conv_kernel": (4, 3),
    "conv_stride": (2, 2),
    "num_feat_extract_layers": 2,
    "num_conv_pos_embeddings": 4,
    "num_conv_pos_embedding_groups": 2,
    "classifier_proj_size": 12,
    "apply_spec_augment": False,  # masks drawn outside of torch's random numbers
    "vocab_size": 20,
    "pad_token_id": 0,
    "num_labels": 3,
}


def images(samples: int, length: int, seed: int) -> Batch:
    """Images of one size with one of three labels."""
    generator = torch.Generator().manual_seed(seed)
    pixels = torch.randn(samples, 3, 8, 8, generator=generator)
    return {"pixel_values": pixels, "labels": torch.randint(3, (samples,), generator=generator)}


def spoken(samples: int, length: int, seed: int) -> Batch:
    """Spectra of one size and their words."""
    words, there, generator = text(samples, length, seed)
    sound = torch.randn(samples, 8, 2 * FRAMES, generator=generator)
    return {"input_features": sound, "labels": torch.where(there == 1, words, -100)}


def waves(samples: int, length: int, seed: int) -> tuple[Tensor, Tensor, torch.Generator]:
    """Sound [B, 16 L], its mask, and what draws on; not too long, for CTC adds up rounding along the time."""
    length = min(length, 7)
    generator = torch.Generator().manual_seed(seed)
    sound = torch.randn(samples, 16 * length, generator=generator)
    mask = (torch.arange(16 * length) < 16 * lengths(samples, length, generator)[:, None]).long()
    return sound * mask, mask, generator


def spoken_classes(samples: int, length: int, seed: int) -> Batch:
    """Sound, padded, with one of three labels."""
    sound, mask, generator = waves(samples, length, seed)
    labels = torch.randint(3, (samples,), generator=generator)
    return {"input_values": sound, "attention_mask": mask, "labels": labels}


def spelled(samples: int, length: int, seed: int) -> Batch:
    """Sound, padded, with the letters that are said in it."""
    sound, mask, generator = waves(samples, length, seed)
    letters = torch.randint(1, 20, (samples, 3), generator=generator)
    there = torch.arange(3) < torch.randint(1, 4, (samples, 1), generator=generator)
    return {"input_values": sound, "attention_mask": mask, "labels": torch.where(there, letters, -100)}


MT5 = {**T5, "feed_forward_proj": "gated-gelu", "tie_word_embeddings": False}
LAYER_NORMED = {**WAV2VEC2, "feat_extract_norm": "layer", "do_stable_layer_norm": True, "conv_bias": True}

CASES = [
    Case("t5", "T5", maker("T5ForConditionalGeneration", T5), translated, units=per_label, remark=EXPANDED),
    Case(
        "mt5",
        "mT5",
        maker("MT5ForConditionalGeneration", MT5),
        translated,
        units=per_label,
        remark=EXPANDED,
        spread=0.05,
    ),
    Case(
        "t5-excluded",
        "T5, the bias excluded",
        maker("T5ForConditionalGeneration", T5),
        translated,
        units=per_label,
        exclude=("relative_attention_bias",),
        remark="the bias gets the plain sum",
    ),
    Case("m2m100", "M2M-100, NLLB", maker("M2M100ForConditionalGeneration", PAIR), translated, units=per_label),
    Case("marian", "Marian", maker("MarianMTModel", PAIR), translated, units=per_label, spread=0.05),
    Case("mbart", "mBART", maker("MBartForConditionalGeneration", PAIR), translated, units=per_label),
    Case("vit", "ViT", maker("ViTForImageClassification", VIT), images),
    Case("whisper", "Whisper", maker("WhisperForConditionalGeneration", WHISPER), spoken, units=per_label, spread=0.05),
    Case("wav2vec2", "wav2vec2, classification", maker("Wav2Vec2ForSequenceClassification", WAV2VEC2), spoken_classes),
    Case(
        "wav2vec2-ctc",
        "wav2vec2, CTC",
        maker("Wav2Vec2ForCTC", {**LAYER_NORMED, "ctc_loss_reduction": "sum"}),
        spelled,
        units=summed,
        spread=0.05,
        remark="a sum over the samples",
    ),
    Case(
        "wav2vec2-ctc-mean",
        "wav2vec2, CTC, mean",
        maker("Wav2Vec2ForCTC", {**WAV2VEC2, "ctc_loss_reduction": "mean"}),
        spelled,
        spread=0.05,
    ),
]
