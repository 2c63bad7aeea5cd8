"""How much memory a model will need and how much there is; a model that would need more is never begun."""

from __future__ import annotations

import models
import pytest
import torch
from transformers import AutoConfig

from visit import VisitError, capture, load_model
from visit.analyses.doctor import sizes_of
from visit.cache import weight
from visit.models.catalog import (
    LISTED,
    MINI,
    MINI_FOLDER,
    Forecast,
    choose_dtype,
    dimensions,
    forecast,
    memory_at_hand,
    need,
    record_bytes,
)
from visit.models.checkpoint import inspect_weights

GB = 10**9


@pytest.fixture
def memory(monkeypatch):
    """Set what the machine has free."""
    return lambda free: monkeypatch.setattr("visit.models.load.memory_at_hand", lambda *_a: int(free))


@pytest.mark.parametrize("name", models.NAMES)
def test_a_record_takes_what_the_forecast_says(name):
    model = models.small(name, torch.float32)
    acts = capture(model, [5, 9, 7, 4, 8, 6, 5, 4, 3, 2])
    words = 2000  # its tokens as texts, which a small model cannot hide
    assert weight(acts) - words <= record_bytes(sizes_of(model), 10, 4) <= 1.3 * weight(acts)


def test_dimensions_of_a_config_are_no_smaller_than_the_models():
    for name in models.NAMES:
        model = models.small(name, torch.float32)
        parameters = sum(p.numel() for p in model.hf.parameters())
        guessed, true = dimensions(model.hf.config, parameters), sizes_of(model)
        free = {"d_mlp": 0, "n_kv_heads": 0}  # other names in every family, and Falcon's config tells no truth
        assert guessed._replace(**free) == true._replace(**free)
        assert guessed.d_mlp >= true.d_mlp and guessed.n_kv_heads >= true.n_kv_heads


def test_precision_falls_to_half_only_where_float32_does_not_fit(memory):
    config = AutoConfig.from_pretrained(MINI_FOLDER)
    parameters = inspect_weights(MINI_FOLDER).parameters
    whole, half = (forecast(parameters, dimensions(config, parameters), kind) for kind in ("float32", "bfloat16"))
    memory(whole.total + GB)
    assert load_model(MINI).dtype == torch.float32
    memory((whole.total + half.total) / 2 + (150 << 20))
    assert load_model(MINI).dtype == torch.bfloat16
    with pytest.raises(VisitError, match=r"in float32, and.*dtype bfloat16 \(2"):
        load_model(MINI, dtype="float32")


def test_loading_never_starts_when_it_does_not_fit(memory, monkeypatch):
    memory(50 << 20)
    monkeypatch.setattr("visit.models.load.read_weights", lambda *_a: pytest.fail("the weights were read"))
    with pytest.raises(VisitError, match=r"'visit-mini' is not loaded: it needs 2\d\d MB in float32 or 2\d\d MB in bf"):
        load_model(MINI)


def test_the_offer_is_the_largest_listed_model_that_fits():
    large = [Forecast(kind, 64, 1_557_611_200 * item, 0, 0, 0) for kind, item in (("float32", 4), ("bfloat16", 2))]
    with pytest.raises(VisitError) as problem:
        choose_dtype("x/xl", large, int(2.7 * GB))
    said = str(problem.value)
    assert "6.2 GB in float32 or 3.1 GB in bfloat16" in said and "2.5 GB of memory" in said
    offered = next(name for name in LISTED if f"Choose {name} (" in said)
    assert need(offered) < 2.5 * GB
    assert all(LISTED[n].parameters <= LISTED[offered].parameters for n in LISTED if need(n) < 2.5 * GB)
    assert choose_dtype("x/xl", large, 4 * GB) == "bfloat16" and choose_dtype("x/xl", large, 8 * GB) == "float32"


def test_listed_sizes_are_those_of_the_embedded_model():
    parameters = inspect_weights(MINI_FOLDER).parameters
    assert LISTED[MINI].parameters == parameters


SHAPES = {
    "openai-community/gpt2": {"model_type": "gpt2"},
    "openai-community/gpt2-xl": {"model_type": "gpt2", "n_layer": 48, "n_embd": 1600, "n_head": 25},
    "EleutherAI/pythia-70m": {
        "model_type": "gpt_neox", "num_hidden_layers": 6, "hidden_size": 512, "num_attention_heads": 8,
        "intermediate_size": 2048, "vocab_size": 50304,
    },
    "HuggingFaceTB/SmolLM2-135M": {
        "model_type": "llama", "num_hidden_layers": 30, "hidden_size": 576, "num_attention_heads": 9,
        "num_key_value_heads": 3, "intermediate_size": 1536, "vocab_size": 49152, "tie_word_embeddings": True,
    },
    "Qwen/Qwen2.5-0.5B": {
        "model_type": "qwen2", "num_hidden_layers": 24, "hidden_size": 896, "num_attention_heads": 14,
        "num_key_value_heads": 2, "intermediate_size": 4864, "vocab_size": 151936, "tie_word_embeddings": True,
    },
}  # fmt: skip


@pytest.mark.parametrize("name", SHAPES)
def test_listed_parameters_are_those_of_the_architecture(name):
    from transformers import AutoModelForCausalLM

    values = dict(SHAPES[name])
    config = AutoConfig.for_model(values.pop("model_type"), **values)
    with torch.device("meta"):
        hf = AutoModelForCausalLM.from_config(config)
    assert sum(p.numel() for p in hf.parameters()) == LISTED[name].parameters
    assert LISTED[name].parameters * 1.99 <= LISTED[name].download <= LISTED[name].parameters * 4.8


# ---- the machine -----------------------------------------------------------------------------------------------------
def groups(root, rows, files):
    """A machine's /proc and /sys with control groups."""
    (root / "proc/self").mkdir(parents=True)
    (root / "proc/self/cgroup").write_text("\n".join(rows) + "\n")
    for path, text in files.items():
        file = root / "sys/fs/cgroup" / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(str(text))
    return root


def test_a_container_of_version_2_counts_by_its_smallest_limit(tmp_path):
    root = groups(tmp_path, ["0::/a/b"], {
        "a/b/memory.max": "max", "a/b/memory.current": 5, "a/memory.max": 1000 << 20, "a/memory.current": 700 << 20,
        "a/memory.stat": f"anon 1\ninactive_file {100 << 20}\n",
    })  # fmt: skip
    assert memory_at_hand(root=root) == 400 << 20


def test_a_container_of_version_1_whose_path_is_the_hosts(tmp_path):
    root = groups(tmp_path, ["9:cpu:/x", "8:memory:/docker/1234"], {
        "memory/memory.limit_in_bytes": 800 << 20, "memory/memory.usage_in_bytes": 900 << 20,
        "memory/memory.stat": f"cache 1\ntotal_inactive_file {150 << 20}\n",
    })  # fmt: skip
    assert memory_at_hand(root=root) == 50 << 20


def test_without_a_limit_the_free_memory_counts(tmp_path, monkeypatch):
    monkeypatch.setattr("visit.models.catalog.psutil.virtual_memory", lambda: type("M", (), {"available": 123}))
    root = groups(tmp_path, ["8:memory:/"], {
        "memory/memory.limit_in_bytes": 9223372036854771712, "memory/memory.usage_in_bytes": 1,
    })  # fmt: skip
    assert memory_at_hand(root=root) == 123 == memory_at_hand(root=tmp_path / "elsewhere")
