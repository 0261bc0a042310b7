"""Numbers and names as people read them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gradsim.report.words import clean, count, in_figure, listed, named, number, plain, signed, with_spread


@pytest.mark.parametrize(
    ("value", "shown", "with_sign"),
    [
        (0.12345, "0.123", "+0.123"),
        (-0.12345, "−0.123", "−0.123"),
        (-0.0001, "0.000", "0.000"),
        (0.0001, "0.000", "0.000"),
        (0.0, "0.000", "0.000"),
        (12.5, "12.500", "+12.500"),
        (None, "–", "–"),
        (float("nan"), "–", "–"),
    ],
)
def test_number_and_signed(value: float | None, shown: str, with_sign: str) -> None:
    assert number(value) == shown
    assert signed(value) == with_sign


@given(st.floats(-1e6, 1e6), st.integers(1, 6))
def test_a_number_reads_back_as_its_rounding(value: float, digits: int) -> None:
    shown = number(value, digits)
    assert float(shown.replace("−", "-")) == pytest.approx(round(value, digits), abs=1e-9)
    assert not shown.startswith("−") or float(shown.replace("−", "-")) < 0
    assert float(signed(value, digits).replace("−", "-")) == float(shown.replace("−", "-"))
    assert signed(value, digits).startswith("+") == (float(shown.replace("−", "-")) > 0)


def test_spread_count_and_lists() -> None:
    assert with_spread(0.5, None) == "0.500"
    assert with_spread(61.234, 0.456, 2) == "61.23 ± 0.46"
    assert with_spread(1.0, 0.25, 1, sign=True) == "+1.0 ± 0.2"
    assert [count(n, "task") for n in (0, 1, 2, 12_000)] == ["0 tasks", "1 task", "2 tasks", "12,000 tasks"]
    assert count(2, "class", "classes") == "2 classes"
    assert [listed([]), listed(["a"]), listed(["a", "b"]), listed("abc")] == ["none", "a", "a and b", "a, b and c"]
    assert listed("abcde", 3) == "a, b, c and 2 more"


def test_values_of_metadata() -> None:
    values = [True, False, None, 7, 1_234_567, 5e-4, "text", [1, "b"], [], {"a": [1]}]
    shown = ["yes", "no", "none", "7", "1,234,567", "0.0005", "text", "1, b", "none", '{"a": [1]}']
    assert list(map(plain, values)) == shown


def test_right_to_left_names_are_isolated() -> None:
    assert named("hau") == "hau"
    assert named("العربية") == "\u2068العربية\u2069"
    assert named("a\u202eb") == "\u2068a\u202eb\u2069"  # an override that would mirror the rest of the sentence


@given(st.text())
def test_what_is_shown_can_be_written(text: str) -> None:
    for shown in (clean(text), named(text), in_figure(text)):
        shown.encode("utf-8")
        assert not any(ord(x) < 32 or 127 <= ord(x) < 160 for x in shown)


def test_lone_surrogates_and_controls_are_replaced() -> None:
    assert clean("a\ud800b\x00\x1b\t\n") == "a\ufffdb\ufffd\ufffd\ufffd\ufffd"


@given(st.text(alphabet="$x\\^{}_", max_size=12))
def test_matplotlib_draws_a_name_as_it_is(text: str) -> None:
    from matplotlib.text import Text

    shown, is_formula = Text()._preprocess_math(in_figure(text, 99))
    assert not is_formula
    assert shown == text


def test_long_names_are_cut_in_figures() -> None:
    assert in_figure("a" * 27) == "a" * 25 + "…"
    assert in_figure("a" * 26) == "a" * 26
