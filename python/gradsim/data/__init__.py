"""Readers and samplers: the multilingual names of the Unicode CLDR, and the held-out split of a task set."""

from gradsim.data.cldr import NameTable, shared_names
from gradsim.data.holdout import hold_out
from gradsim.data.languages import LANGUAGES, SELECTION, Language

__all__ = ["LANGUAGES", "SELECTION", "Language", "NameTable", "hold_out", "shared_names"]
