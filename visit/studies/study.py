"""A study from prompts to tables and verdicts: the run, its key, and what its numbers are of."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import asdict
from functools import partial
from typing import Any

import pandas as pd

from visit.cache import cache_folder
from visit.errors import VisitError
from visit.lenses.linear import Lens, checked
from visit.models.attention import window
from visit.models.model import Model, tokenize
from visit.models.provenance import provenance
from visit.runs.answers import fitting, run_key
from visit.runs.job import Progress, RunFile, drive
from visit.runs.prompts import PromptSet, Row, as_rows
from visit.studies.duration import CHARTS, study_forecast
from visit.studies.plan import plan
from visit.studies.record import Study, Verdict
from visit.studies.run import STUDY_RUN, StudyRun
from visit.studies.settings import ALIGNED, Settings, read_through, settled
from visit.studies.sums import StudySums
from visit.studies.tables import chance, norm_test, random_pairs, tables
from visit.studies.verdicts import verdicts
from visit.studies.word_verdicts import word_verdicts


def study(
    model: Model, prompts: PromptSet | Sequence[str | Row], progress: Callable[[Progress], None] | None = None,
    resume: bool = False, lens: Lens | None = None, **settings: Any,
) -> Study:  # fmt: skip
    """The paper's section 3, appendix D and the figures of norms and neurons, for this model and these prompts.

    `prompts`: strings, rows with targets (`visit.runs.prompts.Row`), or a `PromptSet`; `settings`: the fields of
    `visit.studies.settings.Settings` (`figures`, `k`, `pos`, `layers`, `values`, `second`, `draws`, `seed`, `correct`,
    `sources`); `lens`: a fitted lens, through which Figures 14 and "early" are read beside the plain one; `progress`:
    called with a `Progress` (`visit.runs.job`) after every step, the last time when all is done, tables and verdicts
    included; `resume`: what is done is kept in the user's cache folder, now and then and
    when the run is interrupted, and an equal call goes on from there to the same numbers. `meta["seconds"]` is of the
    whole run, breaks left out. Scores are shares between 0 and 1, bands 95 % bootstrap over prompts. Prompts that the
    model cannot read are left out and named in `meta["left_out"]`. Raises `VisitError` where none is left, or a
    setting is out of range, or the lens is another model's. Source: paper section 3, App. D; verdicts, bands, RBO and
    "early" ours.
    """
    started = time.perf_counter()
    known = [name for name in Settings.__dataclass_fields__ if name != "lens"]
    unknown = sorted(set(settings) - set(known))
    if unknown:
        raise VisitError(f"A study's settings are {', '.join(known)}; got {unknown[0]!r}.")
    values: dict[str, Any] = {name: tuple(v) if isinstance(v, list | range) else v for name, v in settings.items()}
    lens = checked(model, lens)
    wanted = read_through(settled(Settings(**values), model), lens)
    usable = studied(model, prompt_set(prompts), wanted)
    parts = study_forecast(model, usable.rows, wanted)
    expected = float(parts.loc[parts["part"] != CHARTS, "seconds"].sum())
    file = RunFile(cache_folder() / "runs", study_key(model, usable, wanted)) if resume else None
    with closing(drive(partial(StudyRun, model, usable.rows, wanted, lens), file)) as going:
        job, now = next(going)
        begun = job.snapshot().seconds
        if progress is not None and now.done:
            progress(now)
        for _, now in going:
            if progress is not None and now.done < now.total:  # tables and verdicts follow the last step
                progress(now)
    found = study_of(model, usable, job.snapshot(), expected)
    found.meta["seconds"] = begun + time.perf_counter() - started
    if progress is not None:
        progress(now)
    return found


def study_key(model: Model, usable: PromptSet, settings: Settings) -> tuple[Any, ...]:
    """What makes two runs of a study equal: the app's and the command's go on from each other."""
    return run_key(STUDY_RUN, model, usable, repr(settings))


def prompt_set(prompts: PromptSet | Sequence[str | Row]) -> PromptSet:
    """Prompts of any kind as a set."""
    return prompts if isinstance(prompts, PromptSet) else PromptSet("prompts", tuple(as_rows(prompts)))


def studied(model: Model, promptset: PromptSet, settings: Settings) -> PromptSet:
    """The prompts of a set that a study can run, the others in its notes. Raises `VisitError` where none is left.

    Left out are those that the model cannot read, that have no such position and, where only correct answers are
    wanted, those without a target of one token.
    """
    usable = fitting(model, promptset, targets=settings.correct == "only")
    lengths = [len(tokenize(model, row.prompt)) for row in usable.rows]
    short = {i: f"{n} tokens, so no position {settings.pos}" for i, n in enumerate(lengths)
             if not -n <= settings.pos < n}  # fmt: skip
    usable = usable.without(short)
    if not usable.rows:
        why = f" ({usable.notes[0]})" if usable.notes else ""
        raise VisitError(f"{promptset.name} holds no prompt that this study can run{why}. Give others.")
    return usable


def study_of(
    model: Model, usable: PromptSet, sums: StudySums, expected: float | None = None,
    figures: Sequence[str] | None = None,
) -> Study:  # fmt: skip
    """The study of a run's sums so far. `usable`: of `studied`; `figures`: make these tables only.

    Raises `VisitError` where no prompt was counted: none answered correctly, or the model computes no numbers.
    """
    if not sums.prompts:
        why = "the model computes no numbers (NaN or infinite)" if sums.broken else "none is answered correctly"
        raise VisitError(f"No prompt of {usable.name} can be counted: {why}. Give others.")
    meta = study_meta(model, usable, sums, expected)
    made = tables(model, sums, figures)
    found = verdicts(sums, meta, made)
    found |= _of_others(model, sums, made)
    return Study(made, found, meta)


def study_meta(model: Model, usable: PromptSet, sums: StudySums, expected: float | None = None) -> dict[str, Any]:
    """What a study's numbers are of. `baseline`: by chance; `random_pairs`: of random vectors through the lens."""
    settings = sums.settings
    planned = plan(model, settings, 1, any(len(block.groups) > 1 for block in sums.blocks))
    broken = [f"line {line}: the model computes no numbers (NaN or infinite) for it" for line in sums.broken]
    heads = f"each head's {settings.sources} most attended positions (fewer in shorter prompts)"
    return {
        **provenance(model, "n_layers", "n_heads", "d_vocab"),
        "settings": asdict(settings), "lens": settings.lens or "plain",
        "prompt_set": {"name": usable.name, "hash": usable.hash},
        "prompts": sums.prompts, "left_out": [*map(str, usable.notes), *broken], "skipped": sums.skipped,
        "correct": sums.correct, "incorrect": sums.incorrect,
        "baseline": {**chance(model.d_vocab, settings.k, settings.measures), "probability": 1 / model.d_vocab},
        "random_pairs": random_pairs(model, settings.k, settings.measures, settings.seed),
        "layers": list(planned.layers), "thinned": _thinned(model, settings), "figures_left_out": planned.left_out,
        "pairs": f"Figures 19 and 20: {heads}, the query as that position sees it, the key as the query's sees it; "
                 "naively: before any rotation",
        "seconds": sums.seconds, "seconds_expected": expected,
    }  # fmt: skip


def _thinned(model: Model, settings: Settings) -> list[str]:
    """What was not looked at, and what a limited sight means for the ranks of attention, in sentences."""
    found = []
    if settings.layers is not None and len(settings.layers) < model.n_layers:
        found.append(f"{len(settings.layers)} of {model.n_layers} layers.")
    if not settings.asks("16", "18"):
        return found
    if settings.values is not None:
        found.append(f"Figures 16 and 18: each head's {settings.values} most attended memory values only.")
    if sizes := [size for layer in range(model.n_layers) if (size := window(model, layer)) is not None]:
        found.append(
            f"Figures 16 and 18: {len(sizes)} of {model.n_layers} layers see {min(sizes)} positions only; in longer "
            "prompts the positions outside have pattern 0 and stand last."
        )
    return found


def _of_others(model: Model, sums: StudySums, made: dict[str, pd.DataFrame]) -> dict[str, list[Verdict]]:
    """What the figures of norms and neurons say of the paper's claims."""
    others = {figure: table for figure, table in made.items() if figure not in ALIGNED}
    test = None
    if "7" in made:
        test = sums.words.test if sums.words is not None else norm_test(model, sums)
    known = made if sums.words is None else {**sums.words.tables, **made}
    return word_verdicts(model, others, sums.prompts, test, known.get("7"), sums.settings.seed)
