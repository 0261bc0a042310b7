"""Models for text: a small Transformer over characters, and whatever Hugging Face's transformers load."""

from gradsim.models.make import make_model
from gradsim.models.model import Batch, TextModel
from gradsim.models.options import Options

__all__ = ["Batch", "Options", "TextModel", "make_model"]
