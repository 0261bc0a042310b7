"""Names of territories, languages and currencies in many languages, from the Unicode CLDR as Babel ships it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from gradsim.data.languages import LANGUAGES, Language

__all__ = ["NameTable", "shared_names"]


@dataclass(frozen=True)
class NameTable:
    """The names of the same C concepts in T languages: `names[t][c]` is what language t calls concept c.

    Concepts are written `territory:DE`, `language:de` and `currency:EUR`.
    """

    languages: tuple[Language, ...]
    concepts: tuple[str, ...]
    names: tuple[tuple[str, ...], ...]

    @property
    def codes(self) -> list[str]:
        """The language codes: the tasks of the demo."""
        return [language.code for language in self.languages]

    def select(self, languages: Sequence[Language]) -> NameTable:
        """The same concepts in some of the languages. Raises `ValueError` for one that is not there."""
        missing = [language.code for language in languages if language not in self.languages]
        if missing:
            raise ValueError(f"languages must be among {self.codes}, not {missing}")
        rows = [self.languages.index(language) for language in languages]
        return NameTable(tuple(languages), self.concepts, tuple(self.names[row] for row in rows))


def _names_of(code: str) -> dict[str, str]:
    try:
        from babel import Locale
    except ImportError as error:
        raise ImportError("the CLDR names need Babel: pip install 'gradsim-kernels[demo]'") from error

    locale = Locale.parse(code)
    # Two-letter codes only: the three-digit regions of UN M.49 and the rare three-letter languages are named in few
    # locales, and would leave nothing in common.
    names = {f"territory:{key}": name for key, name in locale.territories.items() if len(key) == 2}
    names |= {f"language:{key}": name for key, name in locale.languages.items() if len(key) == 2}
    names |= {f"currency:{key}": name for key, name in locale.currencies.items()}
    return names


def shared_names(languages: Sequence[Language] = LANGUAGES) -> NameTable:
    """The concepts that every one of `languages` has a name for, in the order of their codes.

    Which concepts those are follows from the version of the CLDR inside Babel (599 for all 36 languages with Babel
    2.18). Nothing is read from the network. Raises `ValueError` for no language or one named twice, and
    `ImportError` where Babel is not installed.
    """
    codes = [language.code for language in languages]
    if not codes or len(set(codes)) != len(codes):
        raise ValueError(f"languages must be one or more different languages, not {codes}")
    tables = [_names_of(code) for code in codes]
    concepts = sorted(set.intersection(*[set(table) for table in tables]))
    return NameTable(tuple(languages), tuple(concepts), tuple(tuple(table[c] for c in concepts) for table in tables))
