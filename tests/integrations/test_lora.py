"""Models with peft adapters: the groups of their parameters, and training with them."""

from __future__ import annotations

import pickle
import re
import warnings
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import gradsim

peft = pytest.importorskip("peft")
pytest.importorskip("transformers")
from transformers import LlamaConfig, LlamaForSequenceClassification  # noqa: E402

from gradsim.integrations.peft import granularity  # noqa: E402

TASKS = ["de", "sw", "am"]
SIZES: dict[str, Any] = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2}
Q0, V0, Q1, V1 = (f"model.layers.{layer}.self_attn.{x}_proj" for layer in (0, 1) for x in "qv")
A, B = "lora_A.default.weight", "lora_B.default.weight"


@pytest.fixture(autouse=True)
def one_thread(same_start: None) -> None:
    torch.set_num_threads(1)


def llama(**sizes: int) -> nn.Module:
    config = LlamaConfig(vocab_size=40, num_key_value_heads=2, pad_token_id=0, num_labels=3, **{**SIZES, **sizes})
    model: nn.Module = LlamaForSequenceClassification(config)
    return model


def lora(layers: int = 2, **options: Any) -> nn.Module:
    """A Llama with adapters whose B is not zero, so that every adapter has a gradient from the start."""
    torch.manual_seed(0)
    model = llama(num_hidden_layers=layers)
    settings = {"r": 2, "target_modules": ["q_proj", "v_proj"], "init_lora_weights": False, "lora_dropout": 0.0}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        adapted: nn.Module = peft.get_peft_model(model, peft.LoraConfig(**{**settings, **options}))
    return adapted.double().train()


def groups_of(model: nn.Module, by: str) -> dict[str, list[str]]:
    """Group -> names of its parameters, without what peft puts before them."""
    names = [name for name, _ in model.named_parameters()]
    groups = granularity(model, by).groups(names)
    members = [[names[i].removeprefix("base_model.model.") for i in indices] for indices in groups.members]
    return dict(zip(groups.names, members, strict=True))


def test_per_matrix() -> None:
    own = [f"{module}.{x}" for module in (Q0, V0, Q1, V1) for x in (A, B)]
    assert groups_of(lora(), "matrix") == {name: [name] for name in own}


def test_per_adapted_module() -> None:
    pairs = {module: [f"{module}.{A}", f"{module}.{B}"] for module in (Q0, V0, Q1, V1)}
    assert groups_of(lora(), "module") == pairs
    names = [name for name, _ in lora().named_parameters()]
    assert granularity(lora()).groups(names) == granularity(lora(), "module").groups(names)


def test_per_layer() -> None:
    layers = {f"model.layers.{i}": [f"{m}.{x}" for m in modules for x in (A, B)] for i, modules in LAYERS.items()}
    assert groups_of(lora(), "layer") == layers


LAYERS = {0: (Q0, V0), 1: (Q1, V1)}


@pytest.mark.parametrize("by", ["module", "layer"])
def test_a_module_that_is_trained_as_a_whole_is_a_group(by: str) -> None:
    """modules_to_save: the copy is trained, the original stays frozen and is in no group."""
    found = groups_of(lora(modules_to_save=["score"]), by)
    assert found["score"] == ["score.modules_to_save.default.weight"]
    assert len(found) == {"module": 5, "layer": 3}[by]


def test_dora_and_single_tokens() -> None:
    """DoRA's magnitude goes with its A and B; trained rows of an embedding are a module of their own."""
    found = groups_of(lora(use_dora=True, trainable_token_indices=[1, 2]), "module")
    assert found[Q0] == [f"{Q0}.{A}", f"{Q0}.{B}", f"{Q0}.lora_magnitude_vector.default.weight"]
    assert found["model.embed_tokens"] == ["model.embed_tokens.token_adapter.trainable_tokens_delta.default"]
    assert len(found) == 5


def test_other_adapters_than_lora() -> None:
    config = peft.IA3Config(target_modules=["k_proj", "down_proj"], feedforward_modules=["down_proj"])
    found = groups_of(peft.get_peft_model(llama(), config), "module")
    assert list(found) == [f"model.layers.{i}.{x}" for i in (0, 1) for x in ("self_attn.k_proj", "mlp.down_proj")]
    assert all(len(members) == 1 for members in found.values())


def test_an_embedding_and_what_was_unfrozen_by_hand() -> None:
    model = lora(target_modules=["embed_tokens"])
    model.get_parameter("base_model.model.model.norm.weight").requires_grad_(True)
    found = groups_of(model, "module")
    assert found["model.embed_tokens"] == [f"model.embed_tokens.lora_embedding_{x}.default" for x in "AB"]
    assert found["model.norm"] == ["model.norm.weight"] and len(found) == 2


def test_only_the_adapter_that_is_trained() -> None:
    model = lora()
    model.add_adapter("other", peft.LoraConfig(r=2, target_modules=["k_proj"]))
    assert list(groups_of(model, "module")) == [Q0, V0, Q1, V1]
    model.set_adapter("other")
    assert list(groups_of(model, "module")) == [f"model.layers.{i}.self_attn.k_proj" for i in (0, 1)]


def test_inside_another_module_and_compiled() -> None:
    around = nn.Module()
    around.net = lora()
    assert list(groups_of(around, "layer")) == [f"net.base_model.model.model.layers.{i}" for i in (0, 1)]
    compiled = nn.Module()
    compiled._orig_mod = lora()  # as torch.compile wraps it
    assert list(groups_of(compiled, "module")) == [Q0, V0, Q1, V1]


def tied() -> nn.Module:
    """Adapters that share one A: the parameter is there once, in the group of its first module."""
    model = lora()
    attention = [layer.self_attn for layer in model.base_model.model.model.layers]
    attention[1].q_proj.lora_A = attention[0].q_proj.lora_A
    return model


def test_tied_adapters() -> None:
    found = groups_of(tied(), "module")
    assert found[Q0] == [f"{Q0}.{A}", f"{Q0}.{B}"] and found[Q1] == [f"{Q1}.{B}"]


def test_what_is_excluded_and_what_is_pickled() -> None:
    model = lora()
    names = [name for name, _ in model.named_parameters()]
    spec = granularity(model, "module", exclude="lora_A")
    groups = spec.groups(names)
    assert all("lora_B" in names[i] for members in groups.members for i in members)
    assert pickle.loads(pickle.dumps(spec)).groups(names) == groups


def data(task: int, step: int, size: int = 2) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1000 * step + task)
    return torch.randint(1, 40, (size, 5), generator=generator), torch.randint(3, (size,), generator=generator)


def loss_of(model: nn.Module, words: Tensor, labels: Tensor) -> Tensor:
    loss: Tensor = model(input_ids=words, labels=labels).loss
    return loss


def wrapped(model: nn.Module, tasks: Sequence[str] = TASKS, by: str = "module", **options: Any) -> gradsim.GradVac:
    """Around all parameters, as users write it; the base stays frozen."""
    base = torch.optim.SGD(model.parameters(), lr=0.1)
    return gradsim.GradVac(base, tasks=list(tasks), model=model, granularity=granularity(model, by), **options)


@pytest.mark.parametrize("by", ["matrix", "module", "layer"])
@pytest.mark.parametrize("more", [{}, {"use_dora": True, "modules_to_save": ["score"]}])
def test_training_is_that_on_lists_of_the_trained_gradients(by: str, more: dict[str, Any]) -> None:
    """The optimizer has the frozen parameters too; the reference knows the trained ones alone, by groups of indices."""
    model, expected = lora(**more), lora(**more)
    opt = wrapped(model, by=by, beta=0.3, seed=3)
    named = [(name, p) for name, p in expected.named_parameters() if p.requires_grad]
    surgery = gradsim.Surgery(
        "gradvac", tasks=TASKS, names=[name for name, _ in named], beta=0.3, seed=3,
        granularity=lambda name: group_by_hand(name, by),
    )  # fmt: skip
    for step in range(2):
        for t, task in enumerate(TASKS):
            with opt.task(task):
                loss_of(model, *data(t, step)).backward()
        opt.step()
        opt.zero_grad()
        trained = [p for _, p in named]
        rows = [torch.autograd.grad(loss_of(expected, *data(t, step)), trained) for t in range(len(TASKS))]
        for p, x in zip(trained, surgery(rows), strict=True):
            p.data -= 0.1 * x
    for (name, x), y in zip(model.named_parameters(), expected.parameters(), strict=True):
        torch.testing.assert_close(x, y, rtol=1e-9, atol=1e-12, msg=lambda text, name=name: f"{name}: {text}")
    found = [name.removeprefix("base_model.model.") for name in surgery.similarity().groups]
    assert opt.similarity().groups == found
    torch.testing.assert_close(opt.similarity().cosine, surgery.similarity().cosine, equal_nan=True)


def group_by_hand(name: str, by: str) -> str:
    name = name.removeprefix("base_model.model.")
    if by == "matrix":
        return name
    if by == "layer" and (layer := re.match(r"model\.layers\.\d+", name)):
        return layer[0]
    return re.split(r"\.(?:lora_|modules_to_save)", name)[0]


def test_frozen_parameters_cost_no_rows_and_no_groups() -> None:
    model = lora()
    opt = wrapped(model)
    trained = sum(p.nbytes for p in model.parameters() if p.requires_grad)
    for t, task in enumerate(TASKS):
        with opt.task(task):
            loss_of(model, *data(t, 0)).backward()
    assert opt.buffer.memory_bytes == len(TASKS) * trained
    assert opt.surgery.state_dict()["tensors"]["target"].shape == (4, 3, 3)
    opt.step()
    assert all(p.grad is None for p in model.parameters() if not p.requires_grad)


def test_two_hundred_tasks_in_one_batch() -> None:
    """One backward for all; the same as one backward per task. The state is T x T per group of adapters alone."""
    tasks = [f"task {t}" for t in range(200)]
    parts = [data(t, 0, size=1) for t in range(200)]
    models = lora(layers=1), lora(layers=1)
    opts = [wrapped(model, tasks) for model in models]
    for task, part in zip(tasks, parts, strict=True):
        with opts[0].task(task):
            (loss_of(models[0], *part) / len(tasks)).backward()
    words, labels = (torch.cat([part[i] for part in parts]) for i in (0, 1))
    with opts[1].mixed_batch(list(range(200))):
        loss_of(models[1], words, labels).backward()
    for opt in opts:
        opt.finish()
    for (name, x), y in zip(models[0].named_parameters(), models[1].parameters(), strict=True):
        if x.requires_grad:
            torch.testing.assert_close(y.grad, x.grad, rtol=1e-6, atol=1e-9, msg=lambda t, name=name: f"{name}: {t}")
    tensors = opts[1].surgery.state_dict()["tensors"].values()
    assert sum(x.nbytes for x in tensors) < 6 * 2 * 200 * 200 * 8


def test_a_parameter_that_was_not_there_is_refused() -> None:
    model = lora()
    opt = wrapped(model)
    model.add_adapter("other", peft.LoraConfig(r=2, target_modules=["k_proj"]))
    new = [p for name, p in model.named_parameters() if "other" in name]
    with pytest.raises(ValueError, match=r"was not in the model that .* was given; call it with the model"):
        opt.add_param_group({"params": new})
    assert len(opt.param_groups) == 1
    with pytest.raises(ValueError, match=r"was not in the model"):
        granularity(lora(), "module").groups(["somewhere.else"])


def test_wrong_arguments() -> None:
    frozen = nn.Linear(2, 2).requires_grad_(False)
    with pytest.raises(ValueError, match="by must be 'matrix', 'module' or 'layer', not 'all_layer'"):
        granularity(lora(), "all_layer")
    with pytest.raises(ValueError, match="no parameter that is trained; add the adapters first"):
        granularity(frozen)
    with pytest.raises(TypeError, match=r"must be a torch\.nn\.Module, not str"):
        granularity("llama")  # type: ignore[arg-type]
