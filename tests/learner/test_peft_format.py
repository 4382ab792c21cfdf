"""Adapters in PEFT's format: what is written follows it, and PEFT's own and earlier adapters are read."""

import json
import math

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification

from tests.learner.worlds.letters import letters_tokenizer, tiny_model
from training.learner.models.loading import load_policy
from training.learner.models.lora import AdapterView, LoraConfig, SharedBase, load_scoring_view, scoring_view
from training.learner.models.packed_attention import forward_packed
from training.learner.models.packing import pack_sequences
from training.learner.models.peft_format import digest_of
from training.learner.models.reward_model import load_reward_model, score
from training.learner.models.saving import save_model
from training.learner.runtime.jobdir import BadInput

SEQUENCES = [[5, 6, 7, 8], [9, 3]]
PLACES = ["self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj",
          "mlp.gate_proj", "mlp.up_proj", "mlp.down_proj"]  # fmt: skip


def base_folder(folder, kind="llama"):
    model = tiny_model(kind)
    model.save_pretrained(folder)
    letters_tokenizer().save_pretrained(folder)
    return str(folder)


def trained_view(base, name="policy", is_scoring=False):
    """A view whose B, and head, are no longer zero."""
    lora = LoraConfig(rank=2, alpha=4.0)
    view = scoring_view(base, name, lora, 0, bias=False) if is_scoring else AdapterView(base, name, lora)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, parameter in view.named_parameters():
            if name.endswith((".b", "score.weight")):
                parameter.normal_(generator=generator)
    return view


def saved(folder, kind="llama"):
    """The folder that a policy's view is saved to, on the model in `folder/base`."""
    source = base_folder(folder / "base", kind)
    model, tokenizer = load_policy(source)
    view = trained_view(SharedBase(model, source))
    (folder / "model").mkdir()
    save_model(view, tokenizer, folder / "model")
    return folder / "model"


def saved_by_peft(folder, base, scale=1.0, head=None, **changes):
    """An adapter as PEFT saves it: the matrices of two layers, and the head of a model that scores."""
    generator = torch.Generator().manual_seed(1)
    tensors = {}
    for place, out in (("self_attn.q_proj", 32), ("mlp.down_proj", 32)):
        width = 64 if place == "mlp.down_proj" else 32
        name = f"base_model.model.model.layers.1.{place}"
        tensors[f"{name}.lora_A.weight"] = torch.randn(3, width, generator=generator)
        tensors[f"{name}.lora_B.weight"] = torch.randn(out, 3, generator=generator) * scale
    if head is not None:
        tensors["base_model.model.score.weight"] = head
    config = {"peft_type": "LORA", "task_type": "CAUSAL_LM" if head is None else "SEQ_CLS", "r": 3, "lora_alpha": 6,
              "base_model_name_or_path": base, "target_modules": ["q_proj", "down_proj"], "bias": "none",
              "use_dora": False, "use_rslora": False, "rank_pattern": {}, "alpha_pattern": {}, "lora_dropout": 0.1,
              "init_lora_weights": True, "fan_in_fan_out": False, "modules_to_save": None} | changes  # fmt: skip
    folder.mkdir()
    save_file(tensors, folder / "adapter_model.safetensors", metadata={"format": "pt"})
    (folder / "adapter_config.json").write_text(json.dumps(config))
    return tensors


@torch.no_grad()
def logits(model):
    return forward_packed(model, pack_sequences(SEQUENCES)).logits[0]


def test_names_and_settings_follow_peft_s_format(tmp_path):
    folder = saved(tmp_path) / "adapter"
    tensors = load_file(folder / "adapter_model.safetensors")
    expected = {
        f"base_model.model.model.layers.{layer}.{place}.lora_{side}.weight"
        for layer in range(2)
        for place in PLACES
        for side in "AB"
    }
    assert tensors.keys() == expected
    assert tensors["base_model.model.model.layers.0.mlp.up_proj.lora_A.weight"].shape == (2, 32)
    assert tensors["base_model.model.model.layers.0.mlp.up_proj.lora_B.weight"].shape[1] == 2
    config = json.loads((folder / "adapter_config.json").read_text())
    assert config == {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": str(tmp_path / "base"),
        "r": 2,
        "lora_alpha": 4.0,
        "lora_dropout": 0.0,
        "use_rslora": False,
        "bias": "none",
        "target_modules": sorted(place.rpartition(".")[2] for place in PLACES),
        "modules_to_save": None,
        "fan_in_fan_out": False,
        "inference_mode": True,
    }


def test_conv1d_layers_are_named_and_marked(tmp_path):
    folder = saved(tmp_path, "gpt2") / "adapter"
    config = json.loads((folder / "adapter_config.json").read_text())
    assert config["fan_in_fan_out"] and config["target_modules"] == ["c_attn", "c_fc", "c_proj"]
    matrix = load_file(folder / "adapter_model.safetensors")[
        "base_model.model.transformer.h.0.attn.c_attn.lora_B.weight"
    ]
    assert matrix.shape == (96, 2)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["llama", "gpt2"])
def test_an_adapter_s_folder_loads_as_its_base_with_the_adapter_merged(tmp_path, kind):
    folder = saved(tmp_path, kind)
    merged, _ = load_policy(str(folder))
    from_adapter, _ = load_policy(str(folder / "adapter"))
    torch.testing.assert_close(logits(from_adapter), logits(merged), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("rslora", [False, True])
def test_a_policy_loads_from_an_adapter_that_peft_saved(tmp_path, rslora):
    base = base_folder(tmp_path / "base")
    tensors = saved_by_peft(tmp_path / "theirs", base, use_rslora=rslora)
    model, _ = load_policy(str(tmp_path / "theirs"))
    plain = AutoModelForCausalLM.from_pretrained(base).state_dict()
    scale = 6 / math.sqrt(3) if rslora else 6 / 3
    for name, weight in model.state_dict().items():
        matrices = [tensors.get(f"base_model.model.{name.removesuffix('.weight')}.lora_{side}.weight") for side in "AB"]
        expected = plain[name] if matrices[0] is None else plain[name] + scale * matrices[1] @ matrices[0]
        torch.testing.assert_close(weight, expected)


@pytest.mark.slow
def test_a_reward_model_loads_from_an_adapter_that_peft_saved_merged_or_on_a_shared_base(tmp_path):
    base = base_folder(tmp_path / "base")
    head = torch.randn(1, 32, generator=torch.Generator().manual_seed(2))
    saved_by_peft(tmp_path / "theirs", base, scale=0.1, head=head)
    merged, _ = load_reward_model(str(tmp_path / "theirs"))
    shared, _ = load_reward_model(str(tmp_path / "theirs"), base=SharedBase(load_policy(base)[0], base))
    assert isinstance(shared.network, AdapterView) and not isinstance(merged.network, AdapterView)
    assert torch.equal(merged.head.weight.detach(), head)
    torch.testing.assert_close(score(shared, SEQUENCES), score(merged, SEQUENCES), atol=1e-5, rtol=1e-5)


def test_adapters_of_earlier_versions_are_read(tmp_path):
    source = base_folder(tmp_path / "base")
    base = SharedBase(load_policy(source)[0], source)
    view = trained_view(base, "reward", is_scoring=True)
    config = AutoModelForSequenceClassification.from_pretrained(source, num_labels=1).config
    config.save_pretrained(tmp_path / "old")
    adapter = tmp_path / "old" / "adapter"
    adapter.mkdir()
    save_file(
        {name: part.detach().clone() for name, part in view.state_dict().items()}, adapter / "adapter.safetensors"
    )
    (adapter / "adapter.json").write_text(json.dumps({"base": digest_of(source), "rank": 2, "alpha": 4.0}))
    again = load_scoring_view(base, "again", str(tmp_path / "old"))
    assert again.lora == LoraConfig(2, 4.0)
    for name, part in view.state_dict().items():
        assert torch.equal(part, again.state_dict()[name]), name


def test_the_digest_of_the_base_is_in_the_metadata(tmp_path):
    folder = saved(tmp_path) / "adapter"
    with safe_open(folder / "adapter_model.safetensors", "pt") as file:
        assert file.metadata() == {"format": "pt", "accord_base_digest": digest_of(str(tmp_path / "base"))}


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"use_dora": True}, "is not a plain LoRA adapter: its use_dora is true"),
        ({"peft_type": "IA3"}, 'its peft_type is "IA3"'),
        ({"init_lora_weights": "pissa"}, 'its init_lora_weights is "pissa"'),
        ({"rank_pattern": {"q_proj": 1}}, "its rank_pattern is"),
        ({"r": 4}, 'no pair of matrices of rank 4 for "model.layers.1'),
        ({"r": "3"}, 'must have a number "lora_alpha"'),
        ({"base_model_name_or_path": None}, 'must be a JSON object with "base_model_name_or_path"'),
        ({"task_type": "SEQ_CLS"}, "has no scoring head"),
    ],
)
def test_an_adapter_that_is_no_plain_lora_is_refused(tmp_path, changes, sentence):
    base = base_folder(tmp_path / "base")
    saved_by_peft(tmp_path / "theirs", base, **changes)
    with pytest.raises(BadInput, match=sentence):
        if changes == {"task_type": "SEQ_CLS"}:
            load_reward_model(str(tmp_path / "theirs"))
        load_policy(str(tmp_path / "theirs"))


def test_an_adapter_for_another_architecture_is_refused(tmp_path):
    saved_by_peft(tmp_path / "theirs", base_folder(tmp_path / "base", "gpt2"))
    with pytest.raises(BadInput, match=r'does not fit the model: it adapts "model\.layers\.1\.'):
        load_policy(str(tmp_path / "theirs"))
