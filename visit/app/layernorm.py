"""The parts of the layer norm page: one prompt before and after a norm, and the norms over a set of prompts."""

from __future__ import annotations

from typing import Any

import pandas as pd
import streamlit as st

from visit.app.cached_heads import st_target_shifts, st_token_shift
from visit.app.fields import listed, segments
from visit.app.figure_list import about_set, altair_figure
from visit.app.opened import not_recorded
from visit.app.prompt_sets import choose_set, on_model, watched
from visit.app.sessions import change, session, state
from visit.app.state import CONTROLS
from visit.app.subject import Subject
from visit.app.widgets import beside, downloads, in_cells, on_point, plain, sentences, unfolding
from visit.figures import norms as figures
from visit.text.glossary import explain
from visit.text.visible import as_word, visible


def chosen_site(subject: Subject) -> tuple[int | None, str, bool | None]:
    """(layer, norm, whether the lens applies the final norm) that the page is about, with their controls."""
    model = subject.model
    names = _norms_here(subject)
    with st.container(horizontal=True, vertical_alignment="bottom"):
        norm: Any = st.segmented_control("Norm", required=True, wrap=True, **segments("norm", names))
        asked = state().layer
        layer = -(-model.n_layers // 4) - 1 if asked is None else min(asked, model.n_layers - 1)
        if norm != "final":
            st.selectbox("Layer", width=110, **listed("layer", range(model.n_layers), layer))
        lens: Any = st.segmented_control("The lens", required=True, wrap=True, help=explain("lens"), **segments("lens"))
    if special := _what_norms(model.family):
        st.caption(special)
    session().looked |= {"layer": None if norm == "final" else layer, "norm": norm}
    return (None if norm == "final" else layer), norm, (False if lens == "without" else None)


def _norms_here(subject: Subject) -> list[str]:
    """The norms that the model has, as far as they are recorded where this is a recording."""
    names = ("ln1", "post_attn", "ln2", "post_mlp", "final")
    if subject.recorded is not None:
        known = {key.split()[1] for key in subject.recorded.results if key.startswith("norm ")}
        return [name for name in names if name in known]
    from visit.models.model import has_norm

    return [name for name in names if has_norm(subject.model, name)]


def _what_norms(family: Any) -> str | None:
    """What is special about this family's norms, in a sentence; None where they are as in GPT-2."""
    if family.post_attn:
        own = "" if family.ln1 else " Attention and MLP read the stream as it is."
        return (f"{family.name} norms what attention and MLP give before it joins the stream.{own} Everywhere in VISIT "
                "the gain of these norms is part of what a head or neuron writes.")  # fmt: skip
    if family.shared_norm:
        return f"In {family.name} attention and MLP stand side by side and read one norm, ln1."
    if family.parallel:
        return f"In {family.name} attention and MLP stand side by side: ln1 and ln2 read the same stream."
    if family.norm == "rms":
        return f"{family.name} has RMSNorms: they rescale and have a gain, but neither recentre nor add a bias."
    return None


def in_sentences(subject: Subject, layer: int | None, norm: str, final: bool | None) -> None:
    """What the norm does to the target and to the words on top, in sentences."""
    from visit.narrate.norms import norm_story

    table = st_token_shift(*subject.key, subject.pos, subject.target, layer, norm, final)
    where = "the final norm" if layer is None else f"{_PLACES.get(norm, norm)} of layer {layer}"
    sentences(norm_story(table, where), "norm_story", lambda _: None)


_PLACES = {"post_attn": "the norm after attention", "post_mlp": "the norm after the MLP"}


def one_prompt(subject: Subject, layer: int | None, norm: str, final: bool | None) -> None:
    """One vector before and after one norm: words, ranks, steps, and the target in every layer."""
    where = "the final norm" if layer is None else f"{_PLACES.get(norm, norm)}, layer {layer}"
    st.header(
        f"This prompt at position {subject.pos} ({plain(subject.token)}): {where}",
        anchor=False,
        help=explain("ln1_out"),
    )
    table = st_token_shift(*subject.key, subject.pos, subject.target, layer, norm, final)
    with beside("norm"):
        left, right = st.columns(2, gap="large")
    with left:
        altair_figure(figures.rank_lines(table), "Top words before and after the norm", None, "shift", lambda: table,
                      width="stretch")  # fmt: skip
        st.caption("The ten most probable words before and after the norm. A line leads each word to its rank on the "
                   "other side, or under the ten where it stands lower; blue-green rises in rank, vermilion falls, the "
                   "thick line is the target.")  # fmt: skip
    with right:
        _extremes(table, norm != "final" if final is None else final)
    if norm != "final":
        shifts = st_target_shifts(*subject.key, subject.pos, subject.target, final)
        altair_figure(
            figures.target_chart(shifts, norm, layer), width="stretch", alt="The target before and after, all layers",
            **on_point("norm_layers", "place", lambda point: change(layer=int(point["layer"]))),
        )  # fmt: skip
        st.caption(
            f"The probability of {plain(subject.word)} before and after this norm in every layer; click a layer to "
            "look at it."
        )

    def tables() -> tuple[dict[str, Any], dict[str, pd.DataFrame]]:
        now, meta = state(), {**subject.meta, "distractor": None}
        shown = {"norm": now.norms.norm, "layer": "" if now.layer is None else str(now.layer), "lens": now.norms.lens}
        return meta | shown, {"shift": table}

    downloads("layernorm", tables)


def _extremes(table: pd.DataFrame, final: bool) -> None:
    steps = [c for c in ("centring", "scaling", "gain", "bias") if table[c].notna().any()]
    falling = table[(table["falls"] <= 8) & (table["delta"] < 0)].sort_values("falls")
    both = pd.concat([falling, table[(table["rises"] <= 8) & (table["delta"] > 0)].sort_values("rises")])
    shown = pd.DataFrame({
        "word": [as_word(t) for t in both["token"]], "before": both["before_prob"], "after": both["after_prob"],
        "delta": both["delta"], **{s: both[s] for s in steps},
    })  # fmt: skip
    cells = in_cells(shown, percents=["before", "after"], changes=["delta", *steps])
    st.dataframe(cells, hide_index=True, height=330, placeholder="–", column_config={
        "word": "Word", "before": "P before", "after": "P after", "delta": "Change Δ",
        **{s: f"by {s}" for s in steps},
    })  # fmt: skip
    first = "Centring and scaling change" if "centring" in steps else "Scaling changes"
    if final:
        moved = float(table[[s for s in ("centring", "scaling") if s in steps]].abs().max().max())
        short = "" if moved < 1e-5 else " but for the ε in the norms, which weighs where a vector is this short"
        why = (f"{first} nothing here by construction{short}, as the lens does that anyway: what filters is the norm's "
               f"gain{' and bias' if 'bias' in steps else ''}.")  # fmt: skip
    else:
        why = "The lens leaves the final norm out here, so all steps are seen."
    st.caption(
        "The words that lose and gain most probability (a word may rise in rank and lose probability), and the norm's "
        f"steps, which add up to Δ exactly. {why}"
    )


# ---- a set of prompts ------------------------------------------------------------------------------------------------


def many_prompts(subject: Subject, layer: int | None, norm: str, final: bool | None) -> None:
    """The paper's section 5.2 and appendix E on a set of prompts: Figures 7, 21, 22, Tables 1 to 6, and the test."""
    if not_recorded(subject, "Over a set of prompts"):
        return
    from visit.analyses.norm_sets import SHIFT_RUN, shift_job
    from visit.analyses.norm_tables import filter_in_plain_words, filter_verdict, tables_of
    from visit.runs.answers import run_key

    st.header("Over a set of prompts", anchor=False)
    model = subject.model
    chosen = choose_set(model)
    if chosen is None:
        return
    key = run_key(SHIFT_RUN, model, chosen, norm, str(final))
    run = watched(
        ("layernorm", chosen.hash, norm, str(final)),
        key,
        on_model(model, lambda model: shift_job(model, chosen.rows, (norm,), final)),
    )
    sums = None if run is None else run.result
    if sums is None or not sums.count:
        return
    mean: Any = st.segmented_control(
        "The mean", required=True, help="What a set reads can be taken in two ways. The paper's tables use the second.",
        **segments("mean"),
    )  # fmt: skip
    words = _listed_words()
    tables, verdict = tables_of(model, sums, norm, layer, mean, words)
    holds = filter_verdict(tables["test"])
    word = "undecided" if holds is None else "agrees" if holds else "differs"
    st.markdown(f"**{word}** with the paper, in which a norm filters function words. "
                f"{plain(filter_in_plain_words(tables['test']))}")  # fmt: skip
    st.caption(plain(verdict))
    about = {**about_set(model, chosen, sums.count), "norm": norm, "mean": mean}
    with beside("classes"):
        left, right = st.columns(2, gap="large")
    with left:
        altair_figure(figures.class_distributions(tables["classes"]), width="stretch",
                      alt="The change of function and content words per layer", about=about)  # fmt: skip
    with right:
        altair_figure(figures.interval_chart(tables["test"]), width="stretch",
                      alt="Function words minus content words, with 95 % intervals", about=about)  # fmt: skip
    st.caption(f"{sums.count:,} prompts, last token. Left: how much probability words of either kind gain or lose "
               "(bar: the "
               "middle half; ◆: the mean). Right: the mean of function words minus that of content words, with a 95 % "
               "bootstrap interval over words. Both scales are symmetric-logarithmic: equal steps are equal factors, "
               "on either side of 0.")  # fmt: skip
    with unfolding("function-words", "The list of function words: look at it, change it", ":material/list:") as opened:
        if opened:
            _word_list()
    figure7 = "Figure 7: every word's id against the change of its probability"
    with unfolding("norm-figure7", figure7) as opened:
        if opened:
            _figure7(tables, about)
    if "layers" in tables:
        name = {"ln1": "Figure 21", "ln2": "Figure 22"}.get(norm, "As Figures 21 and 22, for this norm")
        with unfolding("norm-layers", f"{name}: the words that change most, layer by layer") as opened:
            if opened:
                with st.container(height=430, border=False):
                    altair_figure(figures.layer_panels(tables["layers"]), "Words over layers", about, width="content")
                st.caption("The words that change most, before the norm, after it, and the difference, in every layer.")
    with unfolding("norm-tables", "Tables 1 to 6: top words, and the words that lose most") as opened:
        if opened:
            with beside("tables"):
                left, right = st.columns(2, gap="large")
            _small(left, tables["top"], "The ten top words before and after (Tables 1, 2, 4)")
            _small(right, tables["falling"], "What loses most, quarter by quarter (Tables 3, 5, 6)")


def _listed_words() -> frozenset[str]:
    """The function words of this page: the shipped list, with what the address has more and less."""
    from visit.analyses.function_words import function_words

    changed = state().norms.function_words.lower().split()
    more, less = ({word[1:] for word in changed if word[0] == sign} for sign in "+-")
    return (function_words() | more) - less


def _word_list() -> None:
    """The list as a text to change. The address holds what it has more and less than the shipped one."""
    from visit.analyses.function_words import FILE, function_words

    shipped, words = function_words(), _listed_words()
    lines = [line if line.lstrip().startswith("#") else " ".join(w for w in line.split() if w.lower() in words)
             for line in FILE.read_text(encoding="utf-8").splitlines()]  # fmt: skip
    key, more = "w_function_words", sorted(words - shipped)
    text = "\n".join([*lines, *(["# added", " ".join(more)] if more else [])])
    if function_words(st.session_state.get(key, "")) != words:
        st.session_state[key] = text

    def take() -> None:
        found = function_words(st.session_state[key])
        change_text = " ".join([f"+{w}" for w in sorted(found - shipped)] + [f"-{w}" for w in sorted(shipped - found)])
        try:
            CONTROLS["function_words"].read(change_text)
        except ValueError as problem:
            session().notes = [f"This list is too different from the shipped one to stand in a link ({problem})."]
        else:
            change(function_words=change_text)

    st.text_area("Function words, separated by spaces", key=key, height=220, on_change=take)


def _figure7(tables: dict[str, pd.DataFrame], about: dict[str, Any]) -> None:
    chart = figures.shift_scatter(tables["shift"], tables["control"])
    with st.container(height=430, border=False):  # scrolls where it is narrow
        altair_figure(chart, "Token id against the change of its probability", about, width="content")
    st.caption("Every dot is a word: its id against how much its probability changes through the norm. Right: as "
               "many random "
               "vectors with the same mean and standard deviation per dimension.")  # fmt: skip


def _small(place: Any, table: pd.DataFrame, title: str) -> None:
    texts = [c for c in table.columns if table[c].map(lambda v: isinstance(v, str)).all()]
    shown = table.assign(**{c: [visible(v) if c == "place" else as_word(v) for v in table[c]] for c in texts})
    place.markdown(f"**{title}**")
    probs = [name for name in ("before_prob", "after_prob") if name in shown]
    cells = in_cells(shown, percents=probs, changes=["delta"] if "delta" in shown else [])
    place.dataframe(cells, hide_index=True, placeholder="–", height=388, column_config={
        "layer": "Layer", "place": "Place", "id": "Id", "token": "Word", "before": "Before", "after": "After",
        "before_prob": "P before", "after_prob": "P after", "delta": "Change Δ",
    })  # fmt: skip
