"""The models that the app offers, and what a hosted app refuses. No torch: the sidebar needs this before it loads."""

from __future__ import annotations

import os
from pathlib import Path
from typing import NamedTuple

from visit.errors import VisitError

MINI = "visit-mini"
MINI_FOLDER = Path(__file__).parent / "mini" / "model"


class Listed(NamedTuple):
    """A model that the app offers: what it downloads in bytes (0: embedded), and its parameters."""

    download: int
    parameters: int


# All have safetensors. Downloads hold masks beside the weights in GPT-2, GPT-Neo and Pythia; Pythia is float16, Qwen
# and SmolLM are bfloat16. The hub's own figure is asked before a download begins.
LISTED: dict[str, Listed] = {
    MINI: Listed(0, 1_892_608),
    "distilbert/distilgpt2": Listed(353_000_000, 81_912_576),
    "openai-community/gpt2": Listed(548_000_000, 124_439_808),
    "openai-community/gpt2-medium": Listed(1_520_000_000, 354_823_168),
    "openai-community/gpt2-large": Listed(3_247_000_000, 774_030_080),
    "openai-community/gpt2-xl": Listed(6_432_000_000, 1_557_611_200),
    "EleutherAI/pythia-70m": Listed(166_000_000, 70_426_624),
    "EleutherAI/pythia-160m": Listed(375_000_000, 162_322_944),
    "EleutherAI/pythia-410m": Listed(911_000_000, 405_334_016),
    "EleutherAI/pythia-1b": Listed(2_091_000_000, 1_011_781_632),
    "EleutherAI/pythia-1.4b": Listed(2_930_000_000, 1_414_647_808),
    "EleutherAI/gpt-neo-125m": Listed(526_000_000, 125_198_592),
    "Qwen/Qwen2.5-0.5B": Listed(988_000_000, 494_032_768),
    "Qwen/Qwen3-0.6B-Base": Listed(1_192_000_000, 596_049_920),
    "HuggingFaceTB/SmolLM2-135M": Listed(269_000_000, 134_515_008),
    "HuggingFaceTB/SmolLM2-360M": Listed(724_000_000, 361_821_120),
}


def is_hosted() -> bool:
    """True where VISIT_HOSTED=1: a public server, on which only listed models load."""
    return os.environ.get("VISIT_HOSTED", "").strip() in ("1", "true", "yes")


def check_hosted(name: str) -> None:
    """Refuse, on a hosted app, every model that is not listed (and with it every local path)."""
    if is_hosted() and name not in LISTED:
        raise VisitError(
            f"This app is hosted and loads only its listed models ({', '.join(LISTED)}); {name!r} is not one of them. "
            "Run VISIT on your own machine to load any model."
        )
