"""The built-in models against what they are made of, written out a second time."""

from __future__ import annotations

import math
import zlib
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import nn

from gradsim.data import Example, TaskSet
from gradsim.models import Options, make_model
from gradsim.models.ngrams import LONGEST, grams_of, pieces
from gradsim.models.transformer import TransformerLayer


class TestPieces:
    @given(st.text())
    def test_nothing_is_lost(self, word: str) -> None:
        found = pieces(word)
        whole = "".join(found)
        assert whole.startswith("<")
        assert whole.endswith(">")
        assert all(0 < len(piece) <= LONGEST + 2 for piece in found)
        assert all(len(piece) >= LONGEST for piece in found[:-1])
        assert pieces(whole[1:-1]) == found  # lower case and composed already

    def test_case_and_composition_do_not_matter(self) -> None:
        assert pieces("ÒKÉ") == pieces("o\u0300ke\u0301") == ["<òké>"]
        assert pieces("abcdefghijklm") == ["<abcdefghij", "klm>"]
        assert pieces("") == ["<>"]

    def test_grams_are_the_checksums_of_substrings(self) -> None:
        found = sorted(grams_of("<ነው>", 1000).tolist())
        texts = ["<", "ነ", "ው", ">", "<ነ", "ነው", "ው>", "<ነው", "ነው>", "<ነው>"]
        assert found == sorted(1 + zlib.crc32(text.encode()) % 1000 for text in texts)

    @given(st.text(min_size=1, max_size=12), st.integers(1, 50))
    def test_grams_stay_in_their_buckets(self, piece: str, buckets: int) -> None:
        found = grams_of(piece, buckets)
        assert found.min() >= 1  # 0 is for what fills up
        assert found.max() <= buckets


class TestCharacterModel:
    def test_a_word_starts_as_the_mean_of_its_grams(self, problems: dict[str, TaskSet]) -> None:
        model = make_model("builtin", problems["classification"], options={"buckets": 500, "dropout": 0.0})
        module: Any = model.build(0).double()
        batch = model.batch([Example("Abc de", 0), Example("a", 1)])
        vectors = module.embedding.grams.weight
        expected = torch.stack([vectors[torch.from_numpy(grams_of(p, 500))].mean(dim=0) for p in ("<abc>", "<de>")])
        expected = (expected - expected.mean(dim=1, keepdim=True)) / torch.sqrt(
            expected.var(dim=1, keepdim=True, correction=0) + 1e-5
        )
        expected = expected + module.embedding.positions.weight[:2]
        torch.testing.assert_close(module.embedding(batch["grams"])[0], expected)

    def test_a_text_is_the_mean_of_its_pieces_and_a_word_too(self, problems: dict[str, TaskSet]) -> None:
        text = make_model("builtin", problems["classification"]).batch(
            [Example("one twothreefourfive", 2), Example("a", 1)]
        )
        assert text["pool"].tolist() == [[[pytest.approx(1 / 3)] * 3], [[1.0, 0.0, 0.0]]]
        assert text["labels"].tolist() == [[2], [1]]
        words = make_model("builtin", problems["tagging"], max_length=4).batch(
            [Example(("a", "twothreefourfive", "b", "c"), (1, 2, 0, 1)), Example(("a",), (1,))]
        )
        assert words["pool"].tolist() == [
            [[1, 0, 0, 0], [0, 0.5, 0.5, 0], [0, 0, 0, 1], [0, 0, 0, 0]],
            [[1, 0, 0, 0], [0, 0, 0, 0], [0, 0, 0, 0], [0, 0, 0, 0]],
        ]
        assert words["labels"].tolist() == [[1, 2, 0, -100], [1, -100, -100, -100]]
        assert words["lengths"].tolist() == [4, 1]

    def test_a_word_that_was_cut_off_has_the_label_0(self, problems: dict[str, TaskSet]) -> None:
        model = make_model("builtin", problems["tagging"], max_length=2)
        module: Any = model.build(0)
        nn.init.constant_(module.head.labels.bias, -9.0)
        with torch.no_grad():
            module.head.labels.bias[2] = 9.0
        assert model.predict(module, model.batch([Example(("a", "b", "c"), (1, 1, 1))])) == [(2, 2, 0)]

    def test_what_lies_beyond_the_length_does_not_matter(self, problems: dict[str, TaskSet]) -> None:
        model = make_model("builtin", problems["classification"], max_length=3)
        first, second = (model.batch([Example(f"a b c {rest}", 0)]) for rest in ("", "d e"))
        assert first["grams"].shape[1] == 3
        assert all(torch.equal(first[key], second[key]) for key in first)

    def test_words_it_never_saw_still_have_an_order(self, problems: dict[str, TaskSet]) -> None:
        module = make_model("builtin", problems["classification"])
        one, two = module.batch([Example("man bites dog", 0)]), module.batch([Example("dog bites man", 0)])
        built = module.build(0).eval()
        assert not torch.allclose(built(one["grams"], one["pool"]), built(two["grams"], two["pool"]), atol=1e-4)


def test_the_layer_is_that_of_torch() -> None:
    """Held against nn.TransformerEncoderLayer, with the same weights and a mask."""
    torch.manual_seed(1)
    mine: Any = TransformerLayer(16, 4, 0.0).double()
    theirs = nn.TransformerEncoderLayer(16, 4, 32, 0.0, "gelu", batch_first=True, norm_first=True).double()
    pairs = {
        "self_attn.in_proj_weight": mine.query_key_value.weight,
        "self_attn.in_proj_bias": mine.query_key_value.bias,
        "self_attn.out_proj.weight": mine.attention_out.weight,
        "self_attn.out_proj.bias": mine.attention_out.bias,
        "norm1.weight": mine.attention_norm.weight,
        "norm1.bias": mine.attention_norm.bias,
        "norm2.weight": mine.feed_forward_norm.weight,
        "norm2.bias": mine.feed_forward_norm.bias,
        "linear1.weight": mine.feed_forward[0].weight,
        "linear1.bias": mine.feed_forward[0].bias,
        "linear2.weight": mine.feed_forward[2].weight,
        "linear2.bias": mine.feed_forward[2].bias,
    }
    theirs.load_state_dict({name: torch.randn_like(value) * 0.3 for name, value in pairs.items()})
    with torch.no_grad():
        for name, value in pairs.items():
            value.copy_(theirs.state_dict()[name])
    hidden = torch.randn(3, 7, 16, dtype=torch.float64)
    mask = torch.arange(7) < torch.tensor([[7], [4], [1]])
    expected = theirs(hidden, src_key_padding_mask=~mask)
    torch.testing.assert_close(mine(hidden, mask)[mask], expected[mask])
    above = torch.ones(7, 7).triu(1).bool()
    torch.testing.assert_close(mine(hidden, causal=True), theirs(hidden, src_mask=above))


class TestByteModel:
    @settings(max_examples=10, suppress_health_check=[HealthCheck.function_scoped_fixture])
    @given(st.text(max_size=12))
    def test_the_likelihood_is_that_of_byte_after_byte(self, problems: dict[str, TaskSet], text: str) -> None:
        """Each byte from its prefix alone, in float64: what comes later cannot have helped."""
        model = make_model("builtin", problems["text"], options={"width": 8, "heads": 2})
        module = model.build(0).double().eval()
        data = text.encode("utf-8")
        expected = 0.0
        for k, byte in enumerate(data):
            prefix = torch.tensor([[256, *data[:k]]])
            expected -= torch.log_softmax(module(prefix)[0, -1], dim=0)[byte].item()
        batch = model.batch([Example(text), Example("a longer one, for company")])
        likelihood, number = model.predict(module, batch)[0]  # type: ignore[misc]
        assert number == len(data)
        assert likelihood == pytest.approx(expected, rel=1e-9)

    def test_cut_at_its_length(self, problems: dict[str, TaskSet]) -> None:
        model = make_model("builtin", problems["text"], max_length=5)
        batch = model.batch([Example("abcdefgh"), Example("é")])
        assert batch["labels"].tolist() == [[97, 98, 99, 100, 101], [0xC3, 0xA9, -100, -100, -100]]
        assert batch["inputs"].tolist() == [[256, 97, 98, 99, 100], [256, 0xC3, 256, 256, 256]]

    def test_knows_nothing_at_first(self, problems: dict[str, TaskSet]) -> None:
        model = make_model("builtin", problems["text"])
        loss = model.loss(model.build(0).eval(), model.batch(problems["text"].tasks["a"].train))
        assert loss.item() == pytest.approx(math.log(256), abs=0.5)


class TestOptions:
    def test_they_decide_the_size(self, problems: dict[str, TaskSet]) -> None:
        options = {"width": 24, "layers": 3, "heads": 3, "buckets": 100, "dropout": 0.5}
        module: Any = make_model("builtin", problems["classification"], max_length=9, options=options).build(0)
        assert module.embedding.grams.weight.shape == (101, 24)
        assert module.embedding.positions.weight.shape == (9, 24)
        assert len(module.layers) == 3
        assert module.layers[2].heads == 3
        assert {m.p for m in module.modules() if isinstance(m, nn.Dropout)} == {0.5}

    @pytest.mark.parametrize(
        ("options", "error", "message"),
        [
            ({"widht": 3}, ValueError, "has no option 'widht'; it has width, layers, heads, buckets, dropout"),
            ({"width": 0}, ValueError, "width must be at least 1, not 0"),
            ({"layers": 1.0}, TypeError, "layers must be an int, not float"),
            ({"heads": 3}, ValueError, "width must be a multiple of heads, and 64 is none of 3"),
            ({"dropout": 1.0}, ValueError, r"dropout must be in \[0, 1\), not 1.0"),
            ({"dropout": "x"}, TypeError, "dropout must be a number, not str"),
        ],
    )
    def test_refusals(self, options: dict[str, Any], error: type[Exception], message: str) -> None:
        with pytest.raises(error, match=message):
            Options.of(options)


@pytest.mark.parametrize(
    ("problem", "arguments", "error", "message"),
    [
        ("text", {"objective": "masked"}, ValueError, "the built-in model is causal"),
        ("text", {"objective": "both"}, ValueError, "objective must be 'masked' or 'causal', not 'both'"),
        (
            "tagging",
            {"objective": "causal"},
            ValueError,
            "objective is for plain text, and the examples of made up have",
        ),
        ("text", {"max_length": 0}, ValueError, "max_length must be at least 1, not 0"),
        ("text", {"max_length": 2.0}, TypeError, "max_length must be an int, not float"),
    ],
)
def test_make_model_refuses(
    problems: dict[str, TaskSet], problem: str, arguments: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        make_model("builtin", problems[problem], **arguments)


def test_a_name_is_a_string_and_a_seed_a_whole_number(problems: dict[str, TaskSet]) -> None:
    with pytest.raises(TypeError, match="name must be a string, not int"):
        make_model(3, problems["text"])  # type: ignore[arg-type]
    model = make_model("builtin", problems["text"])
    with pytest.raises(TypeError, match="seed must be an int, not float"):
        model.build(1.5)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="seed must not be negative, and is -1"):
        model.build(-1)
