"""Whether a model in memory is still what lies on the disk: sizes and times of its files, looked up at every use."""

from __future__ import annotations

import json
from pathlib import Path

from visit.models import wheels
from visit.models.catalog import MINI

Stamp = tuple[tuple[str, int, int], ...]  # (file, bytes, nanoseconds of its last change)
READ = (".safetensors", ".json", ".gguf", ".model", ".txt", ".jinja")  # what a model or its tokenizer is read from
ADAPTER = "adapter_config.json"


def stamp(name: str) -> Stamp:
    """The files that a name's model is read from; of an adapter in a folder, those of its base too. None is opened.

    Empty for what does not change under its name (visit-mini, a revision of the hub), and where nothing is there.
    """
    if name == MINI:
        return ()
    try:
        path = wheels.find(name) or Path(name).expanduser()
        files = [path] if path.is_file() else sorted(p for p in path.iterdir() if p.suffix.lower() in READ)
        found = [(str(file), (about := file.stat()).st_size, about.st_mtime_ns) for file in files]
        if (path / ADAPTER) in files:
            base = json.loads((path / ADAPTER).read_text(encoding="utf-8"))["base_model_name_or_path"]
            beside = path / base
            found += stamp(str(beside) if (beside / "config.json").is_file() else base)
    except (OSError, ValueError, LookupError, TypeError, RecursionError):  # loading says what is wrong with it
        return ()
    return tuple(found)
