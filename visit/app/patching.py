"""Compare's part "Patch B into A": B's values put into A's run one place at a time, as a map; a click makes one of
these patches the change of What if, and shows its graph.

What is measured, and when: the quick map (one backward pass, the largest measured) and a very small exact one at once,
with the page. All else that is measured is a run of the worker: one that takes little on every machine begins by itself
in the background, a larger one when it is asked for, with its time said before.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple

import streamlit as st

from visit.app import edit_list
from visit.app.cached_pairs import st_patch, st_patch_seconds
from visit.app.fields import segments
from visit.app.grid import as_table, grid
from visit.app.measuring import UNASKED, measured, st_measuring
from visit.app.opened import not_recorded
from visit.app.problems import shown_errors
from visit.app.prompt_sets import on_model, watched
from visit.app.sessions import change, draw_anew, session, set_opened, state
from visit.app.subject import Subject
from visit.app.widgets import READING_AID, downloads, folded, plain, sentences, unfolding
from visit.errors import VisitError
from visit.models.catalog import is_hosted
from visit.runs.worker import WORKER
from visit.text.glossary import explain
from visit.text.markdown import escaped
from visit.text.numbers import duration, percent, ratio
from visit.text.visible import as_word

VERIFIED = 10  # of the largest estimates, that the quick map measures
ALL_UNASKED = 1e11  # weights × patches, up to which all are measured where nobody has chosen
HOSTED_PATCHES = 600.0  # seconds that measuring all may take on a hosted app, as it is forecast
WITH_THE_PAGE = 1.0  # seconds that an exact map may take without a run of its own
COLUMNS = 20  # positions that are on screen at once
SUGGESTED, CANDIDATES = 4, 30  # other answers offered where both sides give the same, of B's most probable words


class Sides(NamedTuple):
    """Both passes, and the corrections of how their tokens are aligned."""

    a: Subject
    b: Subject
    align: str


def patch_b_into_a(two: Sides, changed_run: Callable[[], None]) -> None:
    """Where does B's value carry B's answer? Nothing is computed before it is opened.

    `changed_run`: draws what becomes of A with the list of changes, and its graph.
    """
    if not_recorded(two.a, "Patch B into A"):
        return
    label = "Patch B into A: where does B’s value carry B’s answer?"
    with unfolding("patch", label, ":material/content_paste_go:") as opened:
        if opened:
            with shown_errors():
                if _can_be_asked(two):
                    _patches(two, changed_run)


def _can_be_asked(two: Sides) -> bool:
    """Whether there is anything to patch here; what to do is said where there is not."""
    if two.a.model is not two.b.model:
        st.info(
            "Values go from one run into another of the same model; A and B are two models.", icon=":material/info:"
        )
        return False
    if any(side.pos != len(side.acts.token_ids) - 1 for side in (two.a, two.b)):
        st.info("A patch is measured by the answer after the last token; another position is looked at now.",
                icon=":material/info:")  # fmt: skip
        st.button("Look at the last tokens", key="patch_last", on_click=change, kwargs={"pos": -1, "pos_b": -1})
        return False
    if two.a.target == two.b.target:
        st.info(
            f"A and B answer the same word, “{plain(two.a.word)}”: there is no way from one to the other. Choose "
            "another answer for B (or name both as *Target*, under *More* beside the prompts):", icon=":material/info:",
        )  # fmt: skip
        _other_answers(two)
        return False
    return True


def _other_answers(two: Sides) -> None:
    """Of B's most probable next words those that B makes more likely than A does, each as B's answer."""
    from visit.analyses.overview import predictions

    word = two.a.target
    logits_a, logits_b = (side.acts.logits[side.pos] for side in (two.a, two.b))  # type: ignore[index]
    more = (logits_b - logits_b[word]) - (logits_a - logits_a[word])
    rows = predictions(two.b.model, two.b.acts, two.b.pos, CANDIDATES)
    rows = rows.assign(more=[float(more[i]) for i in rows["id"]]).nlargest(SUGGESTED, "more")
    with st.container(horizontal=True, gap="small"):
        for token, prob in zip(rows["token"], rows["prob"], strict=True):
            st.button(f"“{plain(as_word(token))}” ({percent(prob)})", key=f"patch_answer {token}",
                      on_click=change, kwargs={"target_b": token})  # fmt: skip


# ---- the map ---------------------------------------------------------------------------------------------------------
def _patches(two: Sides, changed_run: Callable[[], None]) -> None:
    from visit.figures.patching import patch_grid
    from visit.narrate.patching import patch_story, scale_story

    said = st.container()
    st.segmented_control("B’s value of", required=True, wrap=True, **segments("patch"))
    try:
        table = _measured_map(two)
    except VisitError as problem:
        said.info(escaped(str(problem)), icon=":material/info:")
        return
    if table is None:
        return
    with said:
        sentences(patch_story(table), "patch_story", partial(_put_in, two))
    st.caption(f"{plain(scale_story(table.attrs))} Other answers: *Target*, under *More* beside the prompts.")
    shown, left_out = _shown_columns(two, table)
    found = patch_grid(shown, _shown_patch(two), (two.a.key, two.b.key, state().compare.patch))
    grid("patch_map", found, partial(_put_in, two), lambda: shown, code="patched")
    for note in [*([left_out] if left_out else []), *table.attrs["notes"]]:
        st.caption(plain(note))
    if two.align:
        st.caption(
            "Tokens are paired as a change “from the other prompt” pairs them; your corrections are not used here."
        )
    with st.container(horizontal=True, gap="small"):
        with folded(*READING_AID, key="patch_help"):
            st.caption(_HOW_TO_READ)
            st.caption(explain("attribution patching"))
        downloads("patch", lambda: (table.attrs, {"patch": table}), partial(_picture, table))
    as_table("patch_map", patch_grid(table))
    _patched_run(two, found, changed_run)


def _shown_columns(two: Sides, table: Any) -> tuple[Any, str]:
    """(the map's rows as far as they are shown, which positions are left out): of many positions those that move most,
    the last one, and that of the patch that is looked at."""
    most = table.assign(size=table["effect"].abs()).groupby("pos")["size"].max().sort_values(ascending=False)
    if len(most) <= COLUMNS:
        return table, ""
    place = _shown_patch(two).rpartition("@")[2]
    first = [int(pos) for pos in (place, two.a.pos) if str(pos).isdecimal()]
    kept = list(dict.fromkeys([*first, *most.index]))[:COLUMNS]
    rest = most.drop(kept)
    told = (
        f"{COLUMNS} of {len(most)} positions are shown, those where a patch moves the answer most; at the others it "
        f"moves by {ratio(float(rest.max()))} of the way at most. The table and the files have all."
    )
    return table[table["pos"].isin(kept)], told


_HOW_TO_READ = (
    "Each cell is a run of A in which one place has the value that B has there, and everything after it is computed "
    "anew. 0: the answer stays as in A. 1: it becomes B’s. Below 0: it moves away from B’s. So a cell near 1 says that "
    "this one value is enough to carry B’s answer; it does not say that no other is, and single effects need not add "
    "up to 1. Held fixed: all of A before that place. A dot marks what was measured while other cells are estimates."
)


def _picture(table: Any, kind: str) -> bytes:
    from visit.files.patch_picture import patch_file

    return patch_file(table, kind)


def _measured_map(two: Sides) -> Any:
    """The map as it is asked for; None while it is not there. Raises `VisitError` where nothing can be patched."""
    site, at = _site_and_place()
    asked = two.a.key, two.b.key, two.b.target, two.a.target, site, at
    seconds = st_patch_seconds(*asked)
    label = f"all measured (about {duration(seconds)})"
    method: Any = st.segmented_control(
        "Measured", required=True, wrap=True, help=explain("attribution patching"),
        **segments("patching", ["quick", "exact"], lambda v: label if v == "exact" else _QUICK, _method(two, site)),
    )  # fmt: skip
    if method == "exact":
        if seconds <= WITH_THE_PAGE:
            return st_patch(*asked, None)
        found = _exact_run(two, site, at, seconds)
        if found is not None:
            return found
    quick = partial(st_patch_seconds, *asked, VERIFIED)
    if quick() <= UNASKED:
        with st.spinner("Estimating every patch, measuring the largest…"):
            return st_patch(*asked, VERIFIED)
    one = st_measuring(*two.a.about, f"patch {asked[1:]}")
    return measured(one, lambda: st_patch(*asked, VERIFIED), quick, "which patches matter")


_QUICK = f"quick: estimated, the {VERIFIED} largest measured"


def _site_and_place() -> tuple[str, str]:
    chosen = state().compare.patch
    return chosen.removesuffix("_all"), {"heads": "last", "heads_all": "all"}.get(chosen, "each")


def _method(two: Sides, site: str) -> str:
    """ "quick" or "exact": as chosen, else by how much there is to measure, which is the same on every machine."""
    chosen, model = state().compare.patching, two.a.model
    if chosen != "auto":
        return chosen
    places = model.n_layers * (model.n_heads if site == "heads" else len(two.a.acts.token_ids))
    return "exact" if places * sum(w.numel() for w in model.hf.parameters()) <= ALL_UNASKED else "quick"


def _exact_run(two: Sides, site: str, at: str, seconds: float) -> Any:
    """All patches as a run of the worker: its map so far, with estimates where it has not been; None before that.

    Where nobody has chosen it begins by itself, behind every run that somebody waits for.
    """
    from visit.causal.patching import PatchingJob, attributed
    from visit.causal.two_runs import two_runs
    from visit.runs.answers import model_run_key

    a, b, words = two.a, two.b, (two.b.target, two.a.target)

    def job(model: Any) -> PatchingJob:  # it waits without its passes: they are made again where they have gone
        made = PatchingJob.of(two_runs(model, a.acts, b.acts, *words), site, at)  # type: ignore[arg-type]
        made.estimates = attributed(made.runs, made.site)
        return made

    key = model_run_key("patching 1", two.a.model, a.acts.token_ids, b.acts.token_ids, *words, site, at)
    make = on_model(two.a.model, job)

    def begin() -> None:
        with suppress(VisitError):  # too many runs wait: the quick map stands
            WORKER.submit(key, make, background=True)
            draw_anew()

    if is_hosted() and seconds > HOSTED_PATCHES and WORKER.find(key) is None:
        st.info(
            f"This app is hosted for many: a run may take {duration(HOSTED_PATCHES)}. The largest are measured below; "
            "for all take shorter prompts, or run VISIT on your own machine.", icon=":material/group:",
        )  # fmt: skip
        return None
    unasked = begin if state().compare.patching == "auto" else None
    run = watched("patching", key, make, f"Measure all (about {duration(seconds)})", unasked)
    return None if run is None else run.result


# ---- one patch -------------------------------------------------------------------------------------------------------
def _put_in(two: Sides, cell: str) -> None:
    """Make one patch ("L12.resid_pre@3") the change that is looked at. Other changes stay in the list, switched off."""
    node, _, pos = cell.rpartition("@")
    at = pos if pos == "all" else str(two.a.in_address(int(pos)))
    others = [replace(one, on=False) for one in edit_list.current() if one.how != "from"]
    edit_list.store([*others, edit_list.Listed(node, "from", at=at)])
    set_opened("edited_flows", True)


def _shown_patch(two: Sides) -> str:
    """The patch that is looked at, as a cell is called; empty where none is."""
    on = [one for one in edit_list.current() if one.on]
    if len(on) != 1 or on[0].how != "from":
        return ""
    at = on[0].at
    return f"{on[0].node}@{at if at == 'all' else int(at) % len(two.a.acts.token_ids)}"


def _patched_run(two: Sides, found: Any, changed_run: Callable[[], None]) -> None:
    """What becomes of A with the patch, and its graph."""
    chosen = _shown_patch(two)
    if not chosen:
        st.caption("Click a cell to run A with this patch and see its graph; it then stands in the list of *What if*.")
        return
    with st.container(horizontal=True, vertical_alignment="center", gap="small"):
        for cell in found.cells[found.cells["id"] == chosen].to_dict("records"):
            st.markdown(f"**{plain(cell['place'])}**: {plain(cell['told'])}.", width="content")
        st.button(
            "Open in What if", icon=":material/content_cut:", key="patch_whatif", on_click=_go_to_whatif,
            help="The list of changes, the words that change most, the text that follows, the checks.",
        )  # fmt: skip
        st.button("Take the patch out", icon=":material/close:", key="patch_out", type="tertiary",
                  on_click=_leave_patch_out)  # fmt: skip
    changed_run()


def _leave_patch_out() -> None:
    edit_list.store([one for one in edit_list.current() if one.how != "from"])


def _go_to_whatif() -> None:
    session().goto = "pages/whatif.py"
