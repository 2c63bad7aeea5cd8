"""What makes a stored run foreign: another version of its analysis or other libraries, and not a changed caption."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import visit
from visit import load_model
from visit.analyses.neuron_sets import NEURON_RUN, neuron_job
from visit.analyses.neuron_tokens import TOKENS_RUN
from visit.analyses.norm_sets import SHIFT_RUN
from visit.runs import job
from visit.runs.answers import ANSWERED_RUN, run_key
from visit.runs.worker import Worker
from visit.studies.run import STUDY_RUN
from visit.studies.settings import Settings
from visit.studies.study import prompt_set, study_key

VERSIONS = [ANSWERED_RUN, NEURON_RUN, SHIFT_RUN, STUDY_RUN, TOKENS_RUN]
PROMPTS = ["The capital of Japan is", "One two three"]


def program_of(root: Path) -> str:
    code = "from visit.runs.job import program; print(program())"
    env = {**os.environ, "PYTHONPATH": str(root)}
    return subprocess.run(
        [sys.executable, "-c", code], env=env, cwd=root, capture_output=True, text=True, check=True
    ).stdout


def test_a_changed_caption_leaves_the_stored_runs_valid(tmp_path):
    source = Path(visit.__file__).parent
    shutil.copytree(source, tmp_path / "visit", ignore=shutil.ignore_patterns("data", "__pycache__"))
    before = program_of(tmp_path)
    with (tmp_path / "visit/studies/captions.py").open("a") as file:
        file.write("\nANOTHER = 'caption'\n")
    assert program_of(tmp_path) == before != ""


def test_every_kind_of_run_has_a_version_of_its_own():
    assert len(set(VERSIONS)) == len(VERSIONS) and all(version[-1].isdigit() for version in VERSIONS)


def test_a_raised_version_is_another_run(monkeypatch, tmp_path):
    model, prompts = load_model("visit-mini"), prompt_set(PROMPTS)

    def key(version=NEURON_RUN):
        return run_key(version, model, prompts, 0.01)

    def make():
        return neuron_job(model, prompts.rows, 0.01)

    worker, study = Worker(tmp_path), study_key(model, prompts, Settings())
    worker.submit(key(), make).wait(60)
    assert Worker(tmp_path).recall(key(), make) is not None
    assert Worker(tmp_path).recall(key("neurons of tomorrow"), make) is None
    monkeypatch.setattr("visit.studies.study.STUDY_RUN", "study of tomorrow")
    assert study_key(model, prompts, Settings()) != study


@pytest.mark.parametrize("what", ["format", "library"])
def test_another_format_or_library_makes_the_files_foreign(monkeypatch, tmp_path, what):
    model, prompts = load_model("visit-mini"), prompt_set(PROMPTS)

    def make():
        return neuron_job(model, prompts.rows, 0.01)

    Worker(tmp_path).submit("a", make).wait(60)
    assert Worker(tmp_path).recall("a", make) is not None
    if what == "format":
        monkeypatch.setattr(job, "RUN_FORMAT", job.RUN_FORMAT + 1)
    else:
        monkeypatch.setattr(job.metadata, "version", lambda name: "0")
        job.program.cache_clear()
    assert Worker(tmp_path).recall("a", make) is None
    job.program.cache_clear()
