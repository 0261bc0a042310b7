"""Words as sets of hashed character n-grams."""

from __future__ import annotations

import unicodedata
import zlib
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

__all__ = ["LONGEST", "grams_of", "pieces"]

LONGEST = 10  # characters in a piece: most words are one piece, and scripts without spaces are cut somewhere
_SIZES = (1, 2, 3, 4)


def pieces(word: str) -> list[str]:
    """A word in lower case and NFC, with `<` before and `>` after it, cut into pieces of `LONGEST` characters."""
    plain = unicodedata.normalize("NFC", word).lower()
    cut = [plain[i : i + LONGEST] for i in range(0, len(plain), LONGEST)] or [""]
    cut[0] = "<" + cut[0]
    cut[-1] += ">"
    return cut


@lru_cache(maxsize=2**16)
def grams_of(piece: str, buckets: int) -> NDArray[np.int64]:
    """The n-grams of a piece, n = 1 to 4, as numbers from 1 to `buckets` (Bojanowski et al., 2017, section 3.2).

    A hash instead of a vocabulary: nothing has to be learned or saved, and no letter of any script is unknown. CRC-32
    is the same everywhere; a lone surrogate, which JSON can hold, is hashed as it is.
    """
    grams = [piece[i : i + n] for n in _SIZES for i in range(len(piece) - n + 1)]
    return np.array([1 + zlib.crc32(gram.encode("utf-8", "surrogatepass")) % buckets for gram in grams], dtype=np.int64)
