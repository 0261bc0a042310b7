"""Models of transformers: from a checkpoint on the disk, from a configuration, and what cannot be had."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from gradsim.data import Example, TaskData, TaskSet
from gradsim.models import make_model
from gradsim.models.likelihood import IGNORED
from gradsim.models.tokens import encode_text, encode_words

transformers = pytest.importorskip("transformers")

BERT = "config:bert?hidden_size=16,num_hidden_layers=1,num_attention_heads=2,intermediate_size=32"


@pytest.fixture
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """The library asks nobody, instead of asking again and again for half a minute."""
    import huggingface_hub

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)


class TestCheckpoint:
    def test_the_body_is_the_checkpoints_and_the_head_new(self, checkpoint: Path, problems: dict[str, TaskSet]) -> None:
        from safetensors.torch import load_file

        saved = load_file(checkpoint / "model.safetensors")
        model = make_model(str(checkpoint), problems["classification"])
        first, second = (dict(model.build(seed).named_parameters()) for seed in (1, 2))
        body = [name for name in first if name in saved]
        assert len(body) > 30
        for name in body:
            assert torch.equal(first[name], saved[name].float())  # in float32, though the file is in bfloat16
            assert torch.equal(first[name], second[name])
        assert first["classifier.weight"].shape == (3, 16)
        assert not torch.equal(first["classifier.weight"], second["classifier.weight"])

    def test_a_head_with_other_labels_is_replaced(
        self, checkpoint: Path, problems: dict[str, TaskSet], tmp_path: Path
    ) -> None:
        model = make_model(str(checkpoint), problems["classification"])
        model.build(0).save_pretrained(tmp_path)  # type: ignore[operator]
        for file in checkpoint.glob("*token*"):
            shutil.copy(file, tmp_path)
        five = TaskSet({"a": TaskData()}, "classification", tuple("vwxyz"), "five labels")
        module: Any = make_model(str(tmp_path), five).build(0)
        assert module.classifier.weight.shape == (5, 16)
        assert module.config.id2label == dict(enumerate("vwxyz"))

    def test_it_comes_in_training_mode(self, checkpoint: Path, problems: dict[str, TaskSet]) -> None:
        """transformers hands checkpoints over without dropout."""
        assert make_model(str(checkpoint), problems["tagging"]).build(0).training

    def test_it_is_quiet_and_leaves_the_settings_alone(
        self, checkpoint: Path, problems: dict[str, TaskSet], capfd: pytest.CaptureFixture[str]
    ) -> None:
        logging = transformers.utils.logging
        before = logging.get_verbosity()
        logging.set_verbosity_info()
        logging.enable_progress_bar()
        try:
            make_model(str(checkpoint), problems["tagging"]).build(0)
            assert capfd.readouterr() == ("", "")
            assert logging.get_verbosity() == logging.INFO
            assert logging.is_progress_bar_enabled()
        finally:
            logging.set_verbosity(before)

    def test_it_is_masked_because_the_checkpoint_is(self, checkpoint: Path, problems: dict[str, TaskSet]) -> None:
        masked: Any = make_model(str(checkpoint), problems["text"])
        causal: Any = make_model(str(checkpoint), problems["text"], objective="causal")
        assert (masked.kind, causal.kind) == ("AutoModelForMaskedLM", "AutoModelForCausalLM")
        assert type(causal.build(0)).__name__ == "BertLMHeadModel"

    def test_longer_than_its_positions_is_refused(self, checkpoint: Path, problems: dict[str, TaskSet]) -> None:
        model: Any = make_model(str(checkpoint), problems["classification"])
        assert model.max_length == 24
        assert model.batch([Example("river " * 99, 0)])["input_ids"].shape == (1, 24)
        with pytest.raises(ValueError, match=r"max_length is 25, but the model '.*' takes 24 tokens at most"):
            make_model(str(checkpoint), problems["classification"], max_length=25)

    def test_a_damaged_checkpoint_is_one_sentence(
        self, checkpoint: Path, problems: dict[str, TaskSet], tmp_path: Path
    ) -> None:
        (tmp_path / "config.json").write_text("{")
        with pytest.raises(ValueError, match=f"cannot load the model '{tmp_path}'") as caught:
            make_model(str(tmp_path), problems["text"])
        assert "\n" not in str(caught.value)
        shutil.copytree(checkpoint, tmp_path / "no weights", ignore=shutil.ignore_patterns("*.safetensors"))
        model = make_model(str(tmp_path / "no weights"), problems["text"])
        with pytest.raises(ValueError, match=r"cannot load the model '.*no weights'") as caught:
            model.build(0)
        assert "\n" not in str(caught.value)

    @pytest.mark.parametrize("damage", ["cut", "garbage", "other sizes"])
    def test_damaged_weights_are_one_sentence(
        self, checkpoint: Path, problems: dict[str, TaskSet], tmp_path: Path, damage: str
    ) -> None:
        shutil.copytree(checkpoint, tmp_path / "copy")
        file = tmp_path / "copy" / ("config.json" if damage == "other sizes" else "model.safetensors")
        data = file.read_bytes()
        file.write_bytes(
            {"cut": data[: len(data) // 2], "garbage": b"\x00" * 400}.get(damage)
            or data.replace(b'"hidden_size": 16', b'"hidden_size": "16"')
        )
        assert file.read_bytes() != data
        with pytest.raises(ValueError, match=r"cannot load the model '.*copy'") as caught:
            make_model(str(tmp_path / "copy"), problems["text"]).build(0)
        assert "\n" not in str(caught.value)

    def test_a_tokenizer_that_is_too_large(self, checkpoint: Path, problems: dict[str, TaskSet]) -> None:
        with pytest.raises(ValueError, match="the tokenizer has 384 tokens, and the model vectors for 14"):
            make_model(str(checkpoint), problems["text"], options={"tokenizer": "bytes"})


class TestTokens:
    def test_the_first_piece_of_a_word_carries_its_tag(self, checkpoint: Path, problems: dict[str, TaskSet]) -> None:
        """the | bank ##s | of | (nothing) | river ##ine, between [CLS] and [SEP]."""
        model = make_model(str(checkpoint), problems["tagging"])
        words = ("the", "banks", "of", "", "riverine")
        batch = model.batch([Example(words, (0, 1, 2, 1, 2)), Example(("a",), (1,))])
        assert batch["input_ids"].tolist() == [[2, 5, 6, 7, 8, 9, 10, 3], [2, 11, 3, 0, 0, 0, 0, 0]]
        assert batch["attention_mask"].tolist() == [[1] * 8, [1] * 3 + [0] * 5]
        x = IGNORED
        assert batch["labels"].tolist() == [[x, 0, 1, x, 2, 2, x, x], [x, 1, x, x, x, x, x, x]]
        assert batch["starts"].tolist() == [[1, 2, 4, -1, 5], [1, -1, -1, -1, -1]]
        module: Any = model.build(0)
        with torch.no_grad():
            module.classifier.bias += torch.tensor([-99.0, 99.0, 0.0])
        assert model.predict(module, batch) == [(1, 1, 1, 0, 1), (1,)]

    def test_each_word_gets_the_answer_of_its_own_token(self, checkpoint: Path, problems: dict[str, TaskSet]) -> None:
        model = make_model(str(checkpoint), problems["tagging"])
        module: Any = model.build(0).eval()
        examples = [Example(("riverine", "banks", "of", "the"), (0, 0, 0, 0)), Example(("c", "ab"), (0, 0))]
        with torch.no_grad():
            module.classifier.weight.mul_(100)
            for example, answer in zip(examples, model.predict(module, model.batch(examples)), strict=True):
                alone = model.batch([example])
                best = module(alone["input_ids"]).logits[0].argmax(dim=1).tolist()
                assert answer == tuple(best[start] for start in alone["starts"][0].tolist())

    def test_words_that_were_cut_off(self, checkpoint: Path, problems: dict[str, TaskSet]) -> None:
        model = make_model(str(checkpoint), problems["tagging"], max_length=5)
        batch = model.batch([Example(("the", "banks", "of"), (1, 1, 1))])
        assert batch["input_ids"].tolist() == [[2, 5, 6, 7, 3]]
        assert batch["starts"].tolist() == [[1, 2, -1]]

    def test_bytes_word_by_word(self) -> None:
        """ByT5 gives byte b the id b + 3 and ends with 1; a space belongs to the word behind it."""
        tokenizer = transformers.ByT5Tokenizer()
        expected = [100, 101, 35, 198, 172, 35, 102, 1]
        assert encode_words(tokenizer, ["ab", "é", "", "c"], 99) == ([*expected[:5], 35, 35, 102, 1], [0, 2, -1, 6])
        assert encode_words(tokenizer, ["ab", "é", "c"], 99) == (expected, [0, 2, 5])
        assert encode_words(tokenizer, ["ab", "é", "c"], 4) == ([100, 101, 35, 1], [0, 2, -1])
        assert encode_words(tokenizer, [], 99) == ([1], [])
        assert encode_text(tokenizer, "ab é c", 99) == expected
        assert encode_text(tokenizer, "ab é c", 4) == [100, 101, 35, 1]


class TestConfig:
    def test_overrides_decide_the_size(self, problems: dict[str, TaskSet]) -> None:
        module: Any = make_model(f"{BERT},hidden_act=relu,tie_word_embeddings=false", problems["text"]).build(0)
        config = module.config
        assert (config.hidden_size, config.num_hidden_layers, config.hidden_act) == (16, 1, "relu")
        assert config.tie_word_embeddings is False
        assert config.vocab_size == 384  # the bytes'

    def test_a_file_with_the_tokenizer_beside_it(self, checkpoint: Path, problems: dict[str, TaskSet]) -> None:
        for place in (checkpoint, checkpoint / "config.json"):
            model = make_model(f"config:{place}?num_hidden_layers=1", problems["classification"])
            assert model.batch([Example("the river", 0)])["input_ids"].tolist() == [[2, 5, 9, 3]]
            module: Any = model.build(0)
            assert (module.config.vocab_size, len(module.bert.encoder.layer)) == (14, 1)
            trained: Any = make_model(str(checkpoint), problems["classification"]).build(0)
            assert not torch.equal(
                module.bert.embeddings.word_embeddings.weight, trained.bert.embeddings.word_embeddings.weight
            )

    def test_a_tokenizer_from_elsewhere(self, checkpoint: Path, problems: dict[str, TaskSet]) -> None:
        model = make_model(BERT, problems["classification"], options={"tokenizer": str(checkpoint)})
        assert model.batch([Example("the river", 0)])["input_ids"].tolist() == [[2, 5, 9, 3]]

    def test_positions_of_roberta_start_behind_the_padding(self, problems: dict[str, TaskSet]) -> None:
        name = "config:roberta?hidden_size=16,num_hidden_layers=1,num_attention_heads=2,max_position_embeddings=40"
        model: Any = make_model(name, problems["classification"])
        assert model.max_length == 39
        module = model.build(0)
        assert model.predict(module, model.batch([Example("x" * 99, 0)]))

    def test_bert_looks_ahead_only_when_masked(self, problems: dict[str, TaskSet]) -> None:
        for objective, ahead in (("masked", True), ("causal", False)):
            module: Any = make_model(BERT, problems["text"], objective=objective).build(0).eval()
            ids = torch.arange(50, 60)[None]
            changed = ids.clone()
            changed[0, 7] = 99
            with torch.no_grad():
                same = torch.isclose(module(ids).logits[0, :7], module(changed).logits[0, :7], atol=1e-6)
            assert bool(same.all()) is not ahead

    def test_a_causal_model_is_asked_for_the_next_token(self, problems: dict[str, TaskSet]) -> None:
        model = make_model("config:gpt2?n_embd=16,n_layer=1,n_head=2", problems["text"])
        module: Any = model.build(0).double().eval()
        data = "abc é".encode()
        ids = [byte + 3 for byte in data] + [1]
        expected = 0.0
        with torch.no_grad():
            for k in range(1, len(ids)):
                logits = module(torch.tensor([ids[:k]])).logits[0, -1]
                expected -= torch.log_softmax(logits, dim=0)[ids[k]].item()
        batch = model.batch([Example("abc é"), Example("a longer one for company")])
        likelihood, number = model.predict(module, batch)[0]  # type: ignore[misc]
        assert number == len(ids) - 1
        assert likelihood == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize(
    ("name", "arguments", "message"),
    [
        ("config:nosuch", {}, "no configuration 'nosuch' for the model 'config:nosuch'"),
        ("config:bert?hiden_size=3", {}, r"the configuration 'bert' has no 'hiden_size' \(in "),
        ("config:bert?hidden_size=wide", {}, "the configuration 'bert' does not take 'hidden_size=wide'"),
        ("config:bert?hidden_size", {}, "must go on after the question mark like hidden_size=64"),
        (
            "config:vit",
            {},
            "transformers has no AutoModelForCausalLM for models of the type 'vit'",
        ),
        ("config:llama", {"objective": "masked"}, "transformers has no AutoModelForMaskedLM .* type 'llama'"),
        (BERT, {"options": {"width": 3}}, "a Hugging Face model has no option 'width'; it has tokenizer"),
        (BERT, {"max_length": 513}, "takes 512 tokens at most"),
        ("nobody/nothing", {}, r"cannot load the model 'nobody/nothing' \(give a local path, or config:TYPE"),
        (BERT, {"options": {"tokenizer": "nobody/nothing"}}, "cannot load the tokenizer 'nobody/nothing'"),
    ],
)
def test_what_cannot_be_had_is_one_sentence(
    problems: dict[str, TaskSet], no_network: None, name: str, arguments: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        make_model(name, problems["text"], **arguments)
    assert "\n" not in str(caught.value)


def test_sizes_that_do_not_fit_each_other(problems: dict[str, TaskSet]) -> None:
    model = make_model("config:bert?hidden_size=15,num_hidden_layers=1,num_attention_heads=2", problems["text"])
    with pytest.raises(ValueError, match=r"no bert model can be made from its configuration: .*15"):
        model.build(0)


def test_without_the_library(problems: dict[str, TaskSet], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(ImportError, match=r"pip install 'gradsim-kernels\[hf\]'"):
        make_model("config:bert", problems["text"])
