"""SmolLM2's shipped recording is what the model computes here, and a run through a fitted lens comes back."""

from __future__ import annotations

import io

import visit
from visit.files.recording import load_recording
from visit.files.shipped_recordings import ShippedRecording, shipped_recordings

JAPAN = "The capital of Japan is the city of"


def test_the_shipped_recording_holds(smollm2):
    file = shipped_recordings()[ShippedRecording("smollm2", JAPAN)]
    recording = load_recording(file)
    assert file.stat().st_size <= 2_000_000 and recording.model.loads == "smollm2"
    found = recording.check(smollm2, k=12, seed=5)
    assert found.attrs["holds"] and found.attrs["same_model"], found[~found["holds"]]


def test_two_prompts_of_a_trained_model_are_drawn_as_they_are(smollm2):
    out, keep = io.BytesIO(), visit.Keep(heads=2, mlp_neurons=2, attn_neurons=0)
    visit.save_recording(out, smollm2, JAPAN, JAPAN.replace("Japan", "Korea"), layers=[23], keep=keep, memory=1)
    found = load_recording(out.getvalue())
    live = visit.build_flow_graph(smollm2, visit.capture(smollm2, JAPAN), layers=[23], keep=keep)
    assert visit.draw(found.graph, "everything") == visit.draw(live, "everything")
    assert len(out.getvalue()) < 2_500_000 and found.pair.result("contrast")["prompts"]
