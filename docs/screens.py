"""Screenshots of the app: `python docs/screens.py [FOLDER] [NAME…]` remakes them (default folder: screenshots/).

Every scene at 1440 and 800 px, light and dark. `python docs/screens.py --readme` remakes the six pictures of the
README in `docs/screens/`: what stands on the first screen of 1440 × 900, light, at two thirds of its size. It needs
SmolLM2 (`python -m visit models fetch smollm2`).
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

ROOT = Path(__file__).parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tests" / "helpers")]

from browser import browser, idle, ready, server  # noqa: E402

NAMES = "When Mary and John went to the store, John gave a drink to"
NOT = "The capital of Japan is not the city of"
LONG = " and ".join(["the capital of France is the city of Paris", "the capital of Italy is the city of Rome"] * 3)
# name -> the address's query, and the page if it is not the flow page; `models` below makes the models in capitals
SCENES: dict[str, dict[str, str]] = {
    "fact": {"node": "L4.head1"},
    "names": {"prompt": NAMES, "distractor": " John"},
    "long": {"prompt": LONG + " and the capital of Japan is the city of"},
    "one-token": {"prompt": "The"},
    "emoji": {"prompt": "🙂 שלום עולם <b>x</b>\n\x01 é", "detail": "3w"},
    "overview": {"detail": "states"},
    "gap": {"layers": "0,4-5,7"},
    "everything": {"detail": "everything", "layers": "3-4", "heads": "4"},
    "broken-link": {"layers": "<script>", "pos": "many", "heads": "lots"},
    "mistake": {"prompt": " ", "target": "two words"},
    "llama": {"model": "LLAMA", "prompt": "The capital of Japan", "layers": "0-2"},
    "gpt2-small-size": {"model": "GPT2", "prompt": NAMES, "detail": "states", "neurons": "4", "heads": "4"},
    "compare": {"page": "compare"},
    "compare-not": {"page": "compare", "prompt_b": NOT, "node": "L4.head1.value5b", "detail": "4w"},
    "compare-difference": {"page": "compare", "view": "difference", "node": "L4.head1"},
    "memory": {"page": "memory"},
    "memory-names": {"page": "memory", "prompt": NAMES, "head": "L3.head5", "sink": "aside", "order": "contribution"},
    "memory-long": {"page": "memory", "prompt": LONG + " and the capital of Japan is the city of"},
    "layernorm": {"page": "layernorm", "layer": "5"},
    "neurons": {"page": "neurons", "neuron": "L7.mlp_value377", "word": "Paris"},
    "study": {"page": "study", "count": "50"},
    "study-before": {"page": "study", "count": "200"},
    "study-during": {"page": "study", "count": "all", "figures": "2b,5,16,17,18,19,20"},
    "parallel": {"model": "NEOX", "prompt": NAMES, "layers": "0-2", "detail": "everything"},
    "post-norms": {"model": "GEMMA", "prompt": NAMES, "layers": "0-2"},
    "post-norms-memory": {"model": "GEMMA", "prompt": NAMES, "page": "memory", "head": "L0.head1"},
    "post-norms-layernorm": {"model": "GEMMA", "page": "layernorm"},
    "no-norm-before": {"model": "OLMO", "page": "layernorm"},
    "no-norm-before-neurons": {"model": "OLMO", "page": "neurons"},
    "compare-models": {"page": "compare", "model_b": "LLAMA", "prompt_b": "The capital of Japan is the city of"},
}


def models(folder: Path) -> dict[str, str]:
    """One model of each shape, and one of GPT-2 small's depth, with random weights, saved as users save theirs."""
    import torch
    from transformers import (
        AutoModelForCausalLM,
        AutoTokenizer,
        Gemma3TextConfig,
        GPT2Config,
        GPTNeoXConfig,
        LlamaConfig,
        Olmo2Config,
    )

    from visit.models.catalog import MINI_FOLDER

    words = AutoTokenizer.from_pretrained(MINI_FOLDER)
    ids = {"bos_token_id": 0, "eos_token_id": 0}
    shape: dict[str, Any] = {
        "num_hidden_layers": 3, "hidden_size": 96, "num_attention_heads": 6, "intermediate_size": 256,
        "vocab_size": len(words), "max_position_embeddings": 256, **ids,
    }  # fmt: skip
    kinds = ["sliding_attention", "full_attention", "sliding_attention"]
    configs = {
        "LLAMA": LlamaConfig(num_key_value_heads=2, **shape), "OLMO": Olmo2Config(num_key_value_heads=2, **shape),
        "GEMMA": Gemma3TextConfig(
            num_key_value_heads=2, head_dim=20, sliding_window=6, layer_types=kinds, final_logit_softcapping=5.0,
            **shape,
        ),
        "NEOX": GPTNeoXConfig(**shape),
        "GPT2": GPT2Config(n_layer=12, n_embd=192, n_head=12, vocab_size=len(words), n_positions=256, **ids),
    }  # fmt: skip
    torch.manual_seed(3)
    for name, config in configs.items():
        AutoModelForCausalLM.from_config(config).save_pretrained(folder / name)
        words.save_pretrained(folder / name)
    return {name: str(folder / name) for name in configs}


def run_set(page: Any) -> None:
    """Start the run of the prompt set, unless it is done already, and wait for the last figure."""
    page.get_by_text("Over a set of prompts").wait_for(timeout=60_000)
    page.wait_for_timeout(2000)
    if page.get_by_role("button", name="Run").count():
        page.get_by_role("button", name="Run").click()
    page.get_by_text("Figure 7").or_(page.get_by_text("Figure 8")).first.wait_for(timeout=60_000)


def study(page: Any, name: str) -> None:
    """The page of the studies before its run, while it goes on, or after it."""
    run, report = page.get_by_role("button", name="Run", exact=True), page.get_by_role("button", name="Report")
    run.or_(report).or_(page.get_by_role("button", name="Stop, and keep")).first.wait_for(timeout=120_000)
    idle(page)
    if name == "study-before":
        return
    if run.count():
        run.click()
    if name == "study-during":
        page.get_by_role("heading", name="Fig. 2b").wait_for(timeout=120_000)
    else:
        report.wait_for(timeout=300_000)
        page.wait_for_timeout(6000)


README = {  # name -> the address
    "start": "/", "flow": "/flow?model=smollm2", "compare": "/compare?prompt_b=The+capital+of+France+is+the+city+of",
    "whatif": "/whatif?edits=L4.head1~zero@-1", "lesson": "/flow?lesson=3-recall&step=2", "room": "/room",
}  # fmt: skip


def readme(folder: Path) -> None:
    """The six pictures that the README shows."""
    folder.mkdir(parents=True, exist_ok=True)
    with server() as address, browser() as chromium:
        for name, path in README.items():
            context = chromium.new_context(viewport={"width": 1440, "height": 900}, device_scale_factor=2 / 3)
            page = context.new_page()
            page.goto(address + path)
            page.locator("[data-testid=stApp][data-test-script-state=notRunning]").wait_for(timeout=120_000)
            if name == "room":
                _seat(page, address)
            page.wait_for_timeout(8000)  # what is read and measured beside the page
            idle(page)
            page.screenshot(path=folder / f"{name}.png")
            context.close()
            print(name, flush=True)


def _seat(teacher: Any, address: str) -> None:
    """A room of three students who have answered its first question."""
    teacher.get_by_role("button", name="Open the room").click(timeout=60_000)
    teacher.locator(".room-code b").wait_for(timeout=60_000)
    code = teacher.locator(".room-code b").inner_text()
    for name, answer in (("Ada", 1), ("Emmy", 1), ("Kurt", 0)):
        page = teacher.context.browser.new_page()
        page.goto(f"{address}/learn?room={code}")
        page.get_by_role("textbox", name="Nickname").fill(name, timeout=60_000)
        page.get_by_role("button", name="Join", exact=True).click()
        page.get_by_role("button", name="Begin it").click(timeout=60_000)
        page.get_by_text("Leave the class").wait_for(timeout=60_000)
        page.get_by_role("radiogroup").first.get_by_role("radio").nth(answer).check(force=True)
        teacher.get_by_text("have answered").first.wait_for(timeout=30_000)
        idle(page)


def main() -> None:
    import tempfile

    if sys.argv[1:] == ["--readme"]:
        readme(ROOT / "docs" / "screens")
        return
    if any(argument.startswith("-") for argument in sys.argv[1:]):
        sys.exit(__doc__)
    folder = Path(sys.argv[1] if len(sys.argv) > 1 else ROOT / "screenshots")
    folder.mkdir(parents=True, exist_ok=True)
    wanted = sys.argv[2:] or list(SCENES)
    with tempfile.TemporaryDirectory() as saved, server() as address, browser() as chromium:
        paths = models(Path(saved))
        for name in wanted:
            query = {key: paths.get(value, value) for key, value in SCENES[name].items()}
            place = query.pop("page", "flow")
            for width in (1440, 800):
                for theme in ("light", "dark"):
                    page = chromium.new_page(viewport={"width": width, "height": 1000}, color_scheme=theme)
                    page.goto(f"{address}/{place}?{urlencode(query)}")
                    if name == "mistake":
                        page.get_by_text("The prompt is blank").wait_for()
                    elif place in ("layernorm", "neurons"):
                        run_set(page)
                    elif place == "study":
                        study(page, name)
                    else:
                        ready(page)
                        if place == "compare" and query.get("view") != "difference":
                            page.locator(".nodes").nth(1).wait_for()
                    page.wait_for_timeout(1500)
                    height = page.evaluate("() => document.querySelector('[data-testid=stMain]').scrollHeight")
                    page.set_viewport_size({"width": width, "height": min(height + 10, 4000)})
                    page.wait_for_timeout(1200)
                    page.screenshot(path=folder / f"{name}-{width}-{theme}.png")
                    page.close()
            print(name, flush=True)


if __name__ == "__main__":
    main()
