"""The 36 languages of the demo, with the family and the script of each."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["LANGUAGES", "SELECTION", "Language"]


@dataclass(frozen=True)
class Language:
    """A language: its CLDR code, its English name, its family and its script."""

    code: str
    name: str
    family: str
    script: str


# Eight families of at least three languages. Slavic is split by script, because a model of characters cannot
# see past the script. The last two are not families in the linguist's sense: the three languages of each are
# unrelated (Urdu is even Indo-Aryan), but share their script or, in East Asia, many borrowed characters.
# Inside a family the languages with the most speakers come first.
_FAMILIES: dict[str, list[tuple[str, str, str]]] = {
    "Romance": [
        ("es", "Spanish", "Latin"),
        ("pt", "Portuguese", "Latin"),
        ("fr", "French", "Latin"),
        ("it", "Italian", "Latin"),
        ("ro", "Romanian", "Latin"),
        ("ca", "Catalan", "Latin"),
    ],
    "Germanic": [
        ("en", "English", "Latin"),
        ("de", "German", "Latin"),
        ("nl", "Dutch", "Latin"),
        ("sv", "Swedish", "Latin"),
        ("da", "Danish", "Latin"),
        ("nb", "Norwegian", "Latin"),
    ],
    "Slavic (Cyrillic)": [
        ("ru", "Russian", "Cyrillic"),
        ("uk", "Ukrainian", "Cyrillic"),
        ("sr", "Serbian", "Cyrillic"),
        ("bg", "Bulgarian", "Cyrillic"),
        ("be", "Belarusian", "Cyrillic"),
        ("mk", "Macedonian", "Cyrillic"),
    ],
    "Slavic (Latin)": [
        ("pl", "Polish", "Latin"),
        ("cs", "Czech", "Latin"),
        ("hr", "Croatian", "Latin"),
        ("sk", "Slovak", "Latin"),
    ],
    "Turkic": [
        ("tr", "Turkish", "Latin"),
        ("uz", "Uzbek", "Latin"),
        ("az", "Azerbaijani", "Latin"),
        ("kk", "Kazakh", "Cyrillic"),
        ("ky", "Kyrgyz", "Cyrillic"),
    ],
    "Indo-Aryan": [
        ("hi", "Hindi", "Devanagari"),
        ("mr", "Marathi", "Devanagari"),
        ("ne", "Nepali", "Devanagari"),
    ],
    "East Asian": [
        ("zh", "Chinese", "Han"),
        ("ja", "Japanese", "Kana and Han"),
        ("ko", "Korean", "Hangul"),
    ],
    "Arabic script": [
        ("ar", "Arabic", "Arabic"),
        ("ur", "Urdu", "Arabic"),
        ("fa", "Persian", "Arabic"),
    ],
}

LANGUAGES: tuple[Language, ...] = tuple(
    Language(code, name, family, script) for family, rows in _FAMILIES.items() for code, name, script in rows
)

# The two languages of each family with the most speakers: a rule fixed before any similarity was seen. Sixteen is
# what the exact solver handles in about a second, and every family can form a group of its own.
SELECTION: tuple[Language, ...] = tuple(
    language for family in _FAMILIES for language in [x for x in LANGUAGES if x.family == family][:2]
)
