"""Getting a configuration, a tokenizer or weights from transformers, quietly and with errors of one sentence."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

__all__ = ["BYTES", "load_config", "load_tokenizer", "load_weights", "transformers"]

BYTES = "bytes"  # the tokenizer of ByT5: it needs no file
_CONFIG = "config:"


def transformers() -> Any:
    """The module. Raises `ImportError` that says how to get it."""
    try:
        import transformers as module
    except ImportError as error:
        raise ImportError("Hugging Face models need transformers: pip install 'gradsim-kernels[hf]'") from error
    return module


@contextmanager
def quiet() -> Iterator[None]:
    """Without progress bars, and without messages below an error; both are as before afterwards."""
    told = transformers().utils.logging
    hub = logging.getLogger("huggingface_hub")
    verbosity, bars, level = told.get_verbosity(), told.is_progress_bar_enabled(), hub.level
    told.set_verbosity_error()
    told.disable_progress_bar()
    hub.setLevel(logging.ERROR)
    try:
        yield
    finally:
        told.set_verbosity(verbosity)
        hub.setLevel(level)
        if bars:
            told.enable_progress_bar()


def load_config(name: str) -> tuple[Any, str | None]:
    """The configuration that `name` means, and the name or path its weights are under, None for random weights.

    `name` is a checkpoint's name or path, or `config:` with a type or a path and perhaps `?key=value,...`. Raises
    `ValueError` for what cannot be found, and for a key that the configuration does not have.
    """
    if not name.startswith(_CONFIG):
        config = _local_first(transformers().AutoConfig.from_pretrained, name, "model")
        return config, name
    base, _, query = name.removeprefix(_CONFIG).partition("?")
    changes = dict(_change(part, name) for part in query.split(",")) if query else {}
    auto = transformers().AutoConfig
    with _one_sentence(f"no configuration {base!r} for the model {name!r}"):
        if Path(base).exists():
            make: Callable[..., Any] = lambda **keys: auto.from_pretrained(base, **keys)  # noqa: E731
        else:
            make = lambda **keys: auto.for_model(base, **keys)  # noqa: E731
        plain = make()
    unknown = [key for key in changes if not hasattr(plain, key)]
    if unknown:
        raise ValueError(f"the configuration {base!r} has no {unknown[0]!r} (in {name!r})")
    with _one_sentence(f"the configuration {base!r} does not take {query!r}"):
        return make(**changes), None


def _change(part: str, name: str) -> tuple[str, Any]:
    key, equals, value = part.partition("=")
    if not (key.strip() and equals):
        raise ValueError(f"{name!r} must go on after the question mark like hidden_size=64,num_hidden_layers=2")
    try:
        return key.strip(), json.loads(value)
    except ValueError:
        return key.strip(), value.strip()  # a string such as gelu, without JSON's quotes


def load_tokenizer(name: str, tokenizer: str | None) -> tuple[Any, bool]:
    """The tokenizer and whether it is that of ByT5, which stands in where a `config:` comes without one.

    `tokenizer`: a name or a path, `"bytes"`, or None for the one that lies with the model. Raises `ValueError` where
    it cannot be loaded.
    """
    module = transformers()
    config = name.startswith(_CONFIG)
    place = name.removeprefix(_CONFIG).partition("?")[0]
    if config:
        path = Path(place)
        place = str(path.parent if path.is_file() else path)
    there = not config or (Path(place).is_dir() and any(Path(place).glob("*token*")))
    if tokenizer == BYTES or (tokenizer is None and not there):
        # the id of an extra token is there anyway: the vocabulary stays at 384
        return module.ByT5Tokenizer(mask_token="<extra_id_0>"), True
    # words come one by one: tokenizers of the RoBERTa family then want to add the space themselves
    load = module.AutoTokenizer.from_pretrained
    return _local_first(load, tokenizer or place, "tokenizer", add_prefix_space=True), False


def load_weights(auto: Any, source: str | None, config: Any) -> Any:
    """A model of an auto class: the checkpoint `source` with new heads where they do not fit, or random weights.

    In float32, whatever the checkpoint is in: gradients are compared. Raises `ValueError` where it cannot be loaded.
    """
    if source is None:
        with quiet(), _one_sentence(f"no {config.model_type} model can be made from its configuration"):
            return auto.from_config(config, dtype=torch.float32)
    return _local_first(
        auto.from_pretrained, source, "model", config=config, dtype=torch.float32, ignore_mismatched_sizes=True
    )


def _local_first(load: Callable[..., Any], source: str, what: str, **keys: Any) -> Any:
    """What lies here or in the cache, and only then the network, whose retries take half a minute without one."""
    try:
        with quiet():
            return load(source, local_files_only=True, **keys)
    except _failures() as error:
        if Path(source).exists():
            raise ValueError(f"cannot load the {what} {source!r}: {_first_line(error)}") from error
    hint = "give a local path" + (", or config:TYPE for random weights" if what == "model" else "")
    with quiet(), _one_sentence(f"cannot load the {what} {source!r} ({hint})"):
        return load(source, **keys)


@contextmanager
def _one_sentence(message: str) -> Iterator[None]:
    try:
        yield
    except _failures() as error:
        raise ValueError(f"{message}: {_first_line(error)}") from error


def _failures() -> tuple[type[Exception], ...]:
    """What the libraries raise for names that are not there, values that do not fit and files that are damaged."""
    from huggingface_hub.errors import StrictDataclassError
    from safetensors import SafetensorError

    return OSError, ValueError, TypeError, KeyError, RuntimeError, StrictDataclassError, SafetensorError


def _first_line(error: Exception) -> str:
    line = str(error).strip().split("\n")[0]
    return (line if len(line) <= 200 else line[:197] + "...") or type(error).__name__
