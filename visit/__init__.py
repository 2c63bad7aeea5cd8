"""VISIT: one forward pass of a language model, captured exactly and read as words.

`import visit` is cheap: torch and transformers are imported when a name that needs them is first used.
"""

from __future__ import annotations

import importlib
import os
import sys
from typing import Any

# OpenMP's threads spin while they wait: on a busy machine a study took 126 s instead of 17. torch reads this once, when
# it is loaded; what the user has set stays
if "torch" not in sys.modules:
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")

__version__ = "1.0.0"

# public name -> the module that holds it (no module bears the name of a public function)
_HOME = {
    "VisitError": "errors",
    "Model": "models.model",
    "load_model": "models.load",
    "Activations": "activations.record",
    "Edit": "activations.record",
    "chat_prompt": "models.chat",
    "capture": "activations.forward",
    "capture_many": "activations.forward",
    "read_vectors": "lenses.logit",
    "intersection": "lenses.logit",
    "Lens": "lenses.linear",
    "load_lens": "lenses.linear",
    "fit_lens": "lenses.fit_linear",
    "lens_map": "analyses.overview",
    "ledger": "exact.ledger",
    "influence": "exact.influence",
    "FlowGraph": "graph.flowgraph",
    "Keep": "graph.build",
    "build_flow_graph": "graph.build",
    "draw": "drawing.draw",
    "head_memory": "analyses.attention_memory",
    "token_shift": "analyses.norms",
    "neuron_statistics": "analyses.neuron_sets",
    "Study": "studies.record",
    "study": "studies.study",
    "Comparison": "analyses.graph_difference",
    "compare": "analyses.graph_difference",
    "effects": "causal.effects",
    "head_question": "causal.head_sets",
    "patch": "causal.patching",
    "faithfulness": "causal.faithfulness",
    "roles": "causal.roles",
    "paths": "causal.path_patching",
    "trace": "causal.tracing",
    "Ablation": "causal.ablate",
    "ablate": "causal.ablate",
    "edit_ledger": "causal.edit_ledger",
    "continuation": "causal.continuation",
    "Recording": "files.recording",
    "save_recording": "files.record_run",
    "load_recording": "files.recording",
    "check_recording": "files.recording_check",
}

__all__ = ["__version__", *_HOME]


_PACKAGES = ("drawing", "figures", "files")  # reached as visit.figures without a second import


def __getattr__(name: str) -> Any:
    if name in _PACKAGES:
        return importlib.import_module(f"visit.{name}")
    if name not in _HOME:
        raise AttributeError(f"module 'visit' has no attribute {name!r}")
    found = getattr(importlib.import_module(f"visit.{_HOME[name]}"), name)
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOME])
