"""The models that the app offers, and what a hosted app refuses. No torch: the sidebar needs this before it loads."""

from __future__ import annotations

import os
from pathlib import Path

from visit.errors import VisitError

MINI = "visit-mini"
MINI_FOLDER = Path(__file__).parent / "mini" / "model"

# name -> what the chooser says about it: the size of its download
LISTED: dict[str, str] = {
    MINI: "embedded",
    "distilbert/distilgpt2": "350 MB",
    "openai-community/gpt2": "550 MB",
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
