"""From names to groups: the four granularities of the paper, callables, expressions, exclusions."""

from __future__ import annotations

import re
from typing import Any

import pytest
from torch import nn

from gradsim import Granularity


def members(granularity: Granularity, names: list[str]) -> dict[str, list[str]]:
    """Group name -> names of its parameters; every index is used once."""
    groups = granularity.groups(names)
    assert sorted([*groups.excluded, *(i for group in groups.members for i in group)]) == list(range(len(names)))
    return {k: [names[i] for i in group] for k, group in zip(groups.names, groups.members, strict=True)}


def names_of(net: nn.Module) -> list[str]:
    return [name for name, _ in net.named_parameters()]


def layers(*names: str) -> list[str]:
    return list(members(Granularity("all_layer"), list(names)))


def test_whole_model_and_all_matrix() -> None:
    names = ["a.weight", "a.bias", "b"]
    assert members(Granularity("whole_model"), names) == {"whole_model": names}
    assert members(Granularity("all_matrix"), names) == {name: [name] for name in names}
    assert Granularity("whole_model").groups([]).names == []


def test_enc_dec() -> None:
    names = ["shared.weight", "model.encoder.l.w", "model.decoder.encoder.w", "model.decoder.w", "head.w", "encoders.w"]
    assert members(Granularity("enc_dec"), names) == {
        "rest": ["shared.weight", "head.w", "encoders.w"],
        "encoder": ["model.encoder.l.w"],
        "decoder": ["model.decoder.encoder.w", "model.decoder.w"],
    }
    assert members(Granularity("enc_dec"), ["encoder.w"]) == {"encoder": ["encoder.w"]}
    with pytest.raises(ValueError, match=r"'enc_dec' needs .* has neither.*'head.w'"):
        Granularity("enc_dec").groups(["head.w", "encoders.w"])


@pytest.mark.parametrize("word", ["layer", "layers", "h", "block", "blocks", "resblocks", "albert_layer_groups"])
def test_lists_of_layers(word: str) -> None:
    assert layers(f"x.{word}.0.a.weight", f"x.{word}.11.a.weight", "x.y.w", "z.w") == [
        f"x.{word}.0",
        f"x.{word}.11",
        "x",
        "z",
    ]
    assert layers(f"{word}.0.weight", f"{word}.1.weight") == [word]  # linear layers of a perceptron
    assert layers(f"{word}.0.weight", f"{word}.0.norm.weight") == [f"{word}.0"]  # one parameter lies deeper
    assert layers(f"{word}s_0.1.a.weight", f"my{word}.0.a.weight", f"{word}.x.a.weight") == [
        f"{word}s_0",
        f"my{word}",
        word,
    ]


def test_the_outermost_list_is_the_layer_except_in_stages() -> None:
    assert layers("encoder.block.3.layer.0.q.weight", "encoder.block.3.layer.1.norm.weight") == ["encoder.block.3"]
    assert layers(
        "layers.0.blocks.0.attn.weight", "layers.0.blocks.1.attn.weight", "layers.0.downsample.norm.weight"
    ) == [
        "layers.0.blocks.0",
        "layers.0.blocks.1",
        "layers",
    ]
    assert layers("layers.2.blocks.weight", "layers.2.mlp.weight") == ["layers.2"]
    assert layers("layers.0.blocks.0.weight") == ["layers"]  # a stage of linear layers


def test_plain_pytorch_models() -> None:
    mlp = nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 1))
    assert members(Granularity(), names_of(mlp)) == {"0": ["0.weight", "0.bias"], "2": ["2.weight", "2.bias"]}
    transformer = nn.Transformer(8, 2, 2, 1, 16, batch_first=True)
    groups = members(Granularity(), names_of(transformer))
    assert list(groups) == ["encoder.layers.0", "encoder.layers.1", "encoder", "decoder.layers.0", "decoder"]
    assert groups["encoder"] == ["encoder.norm.weight", "encoder.norm.bias"]
    assert "encoder.layers.0.self_attn.in_proj_weight" in groups["encoder.layers.0"]
    assert list(members(Granularity("enc_dec"), names_of(transformer))) == ["encoder", "decoder"]
    encoder = nn.TransformerEncoder(nn.TransformerEncoderLayer(8, 2, 16), 2, enable_nested_tensor=False)
    assert list(members(Granularity(), names_of(encoder))) == ["layers.0", "layers.1"]


def test_tied_parameters_are_there_once() -> None:
    net = nn.ModuleDict({"embedding": nn.Embedding(5, 3), "output": nn.Linear(3, 5, bias=False)})
    net["output"].weight = net["embedding"].weight
    assert members(Granularity("all_matrix"), names_of(net)) == {"embedding.weight": ["embedding.weight"]}


def test_what_wrappers_put_into_names_is_ignored() -> None:
    names = ["_orig_mod.layers.0._checkpoint_wrapped_module.mlp.weight", "_fsdp_wrapped_module._orig_mod.head.weight"]
    assert list(members(Granularity(), names)) == ["layers.0", "head"]
    assert list(members(Granularity("all_matrix"), names)) == ["layers.0.mlp.weight", "head.weight"]
    assert Granularity("whole_model", exclude="head.weight").groups(names).excluded == [1]
    assert Granularity("whole_model", exclude="_orig_mod.head").groups(names).excluded == [1]
    assert layers("my_orig_mod.weight", "x.weight") == ["my_orig_mod", "x"]
    with pytest.raises(ValueError, match="'a' is there twice"):
        Granularity().groups(["_orig_mod.a", "a"])


def test_a_callable() -> None:
    names = ["a.weight", "a.bias", "b.weight"]
    granularity = Granularity(lambda name: None if name.endswith("bias") else name[0].upper())
    assert members(granularity, names) == {"A": ["a.weight"], "B": ["b.weight"]}
    assert granularity.groups(names).excluded == [1]
    with pytest.raises(TypeError, match=r"granularity\('a.weight'\) must return the name of a group or None, not int"):
        Granularity(lambda name: 3).groups(names)  # type: ignore[arg-type,return-value]


def test_a_dict_of_expressions() -> None:
    names = ["enc.0.attn.weight", "enc.0.mlp.weight", "enc.1.attn.weight", "head.weight"]
    granularity = Granularity({r"attn": "attention", re.compile(r"^enc\.\d"): "feed-forward"})
    assert members(granularity, names) == {
        "attention": [names[0], names[2]],
        "feed-forward": [names[1]],
        "rest": [names[3]],
    }
    assert list(members(Granularity({"attn": "one", "mlp": "one"}), names)) == ["one", "rest"]
    with pytest.raises(ValueError, match=r"'conv' matches no parameter .*the keys of the dict are the expressions"):
        Granularity({"attn": "attention", "conv": "c"}).groups(names)


def test_exclude_takes_names_modules_and_expressions() -> None:
    names = ["a.weight", "a.bias", "ab.weight", "layers.1.w", "layers.10.w"]

    def excluded(*entries: Any) -> list[str]:
        return [names[i] for i in Granularity("all_matrix", exclude=entries).groups(names).excluded]

    assert excluded("a.weight") == ["a.weight"]
    assert excluded("a") == ["a.weight", "a.bias"]  # the module, not what has an a in its name
    assert excluded("layers.1") == ["layers.1.w"]
    assert excluded("bias$", re.compile("^l")) == ["a.bias", "layers.1.w", "layers.10.w"]
    assert excluded("b.w") == ["ab.weight"]
    assert Granularity("whole_model", exclude="a.bias").groups(names).excluded == [1]
    for entry in ("conv", re.compile("^weight")):
        with pytest.raises(
            ValueError, match=r"matches no parameter; the names are like 'a.weight', 'a.bias', 'ab.weight'"
        ):
            excluded(entry)


def test_an_expression_counts_only_what_is_not_excluded() -> None:
    with pytest.raises(ValueError, match="'a' matches no parameter"):
        Granularity({"a": "A"}, exclude="a").groups(["a.weight", "b.weight"])


def test_needs_names() -> None:
    needs = [Granularity(s).needs_names for s in ("whole_model", "all_matrix", "all_layer", "enc_dec", str, {"a": "b"})]
    assert needs == [False, False, True, True, True, True]
    assert Granularity("whole_model", exclude="a").needs_names


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        (("layer",), ValueError, "granularity must be one of"),
        ((None,), TypeError, "not NoneType"),
        (({},), ValueError, "empty dict"),
        (({"(": "x"},), ValueError, r"'\(' is not a regular expression"),
        (({"a": 1},), TypeError, "must map expressions to names of groups, not to int"),
        (({1: "a"},), TypeError, "must hold regular expressions, not int"),
        (("all_layer", 3), TypeError, "exclude must be a sequence"),
        (("all_layer", [3]), TypeError, "exclude must hold regular expressions"),
        (("all_layer", "["), ValueError, "exclude: .* is not a regular expression"),
    ],
)
def test_wrong_arguments(arguments: tuple[Any, ...], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        Granularity(*arguments)
