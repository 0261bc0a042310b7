"""What a configuration of transformers must say to go with a problem, its labels and a tokenizer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from gradsim.models.hub import transformers

__all__ = ["fit", "kind_of", "longest"]

# Positions are counted from behind the padding's id, as in fairseq, so that fewer tokens fit than there are positions.
_AFTER_PADDING = ("camembert", "data2vec-text", "esm", "ibert", "longformer", "luke", "mpnet", "xmod")


def kind_of(config: Any, problem: str, objective: str | None) -> str:
    """The auto class for a problem. Raises `ValueError` where transformers has none for this type of model."""
    auto = transformers().models.auto.modeling_auto
    maps = {
        "AutoModelForSequenceClassification": auto.MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES,
        "AutoModelForTokenClassification": auto.MODEL_FOR_TOKEN_CLASSIFICATION_MAPPING_NAMES,
        "AutoModelForMaskedLM": auto.MODEL_FOR_MASKED_LM_MAPPING_NAMES,
        "AutoModelForCausalLM": auto.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES,
    }
    wanted = {
        "classification": "AutoModelForSequenceClassification",
        "tagging": "AutoModelForTokenClassification",
        "masked": "AutoModelForMaskedLM",
        "causal": "AutoModelForCausalLM",
    }
    kind = wanted[problem if problem != "text" else objective or _objective(config, maps["AutoModelForMaskedLM"])]
    if config.model_type not in maps[kind]:
        raise ValueError(f"transformers has no {kind} for models of the type {config.model_type!r}")
    return kind


def _objective(config: Any, masked: Any) -> str:
    """What the checkpoint was made for; without a word of it, masked if the type can be."""
    made_for = " ".join(getattr(config, "architectures", None) or ())
    if "MaskedLM" in made_for or "CausalLM" in made_for or "LMHead" in made_for:
        return "masked" if "MaskedLM" in made_for else "causal"
    return "masked" if config.model_type in masked else "causal"


def fit(config: Any, tokenizer: Any, kind: str, labels: Sequence[str], *, random: bool, as_bytes: bool) -> None:
    """Make configuration and tokenizer fit each other, the labels and the problem, in place.

    Raises `ValueError` for a tokenizer with more tokens than a checkpoint has vectors, or without what is needed.
    """
    if labels:
        config.id2label = dict(enumerate(labels))
        config.label2id = {label: k for k, label in enumerate(labels)}
    if kind == "AutoModelForCausalLM" and hasattr(config, "is_decoder"):
        config.is_decoder = True  # of those that can be both, such as BERT
    if kind == "AutoModelForSequenceClassification":
        config.problem_type = "single_label_classification"
    if tokenizer.pad_token_id is None:
        # most decoders have none; what is padded is masked, so any will do
        if tokenizer.eos_token is None:
            raise ValueError("the tokenizer has neither a padding token nor an end token")
        tokenizer.pad_token = tokenizer.eos_token
    if kind == "AutoModelForMaskedLM" and tokenizer.mask_token_id is None:
        raise ValueError(f"the tokenizer of a masked model needs a mask token, and {type(tokenizer).__name__} has none")
    if random and (as_bytes or len(tokenizer) > config.vocab_size):
        config.vocab_size = len(tokenizer)
    if len(tokenizer) > config.vocab_size:
        raise ValueError(f"the tokenizer has {len(tokenizer)} tokens, and the model vectors for {config.vocab_size}")
    config.pad_token_id = tokenizer.pad_token_id
    if random:
        for name in ("bos_token_id", "eos_token_id"):
            value = getattr(tokenizer, name)
            setattr(config, name, tokenizer.eos_token_id if value is None else value)


def longest(config: Any, tokenizer: Any) -> int | None:
    """The most tokens that the model takes; None if it does not say."""
    positions = getattr(config, "max_position_embeddings", None)
    if not isinstance(positions, int) or positions < 1:
        return None
    if "roberta" in config.model_type or config.model_type in _AFTER_PADDING:
        positions -= tokenizer.pad_token_id + 1
    return positions
