"""The What-if page: a list of changes and what they change, and the effect of every part beside what it adds."""

from __future__ import annotations

from functools import partial
from typing import Any

import pandas as pd
import streamlit as st

from visit.app import edit_list
from visit.app.cache import Prompt
from visit.app.cached_effects import st_ablation, st_continuation, st_edited_flows
from visit.app.cached_flow import st_opened
from visit.app.fields import choice, field
from visit.app.figure_list import collect_figure
from visit.app.graph_panel import opened_blocks, show
from visit.app.opened import not_recorded
from visit.app.problems import shown_errors
from visit.app.prompt_bar import as_typed
from visit.app.sessions import is_opened, session, source_prompt, state
from visit.app.subject import Subject
from visit.app.widgets import beside, downloads, in_cells, plain, section, unfolding
from visit.text.glossary import explain
from visit.text.node_id import NodeId, part_name
from visit.text.numbers import number, percent
from visit.text.visible import as_word, visible


# ---- the list of changes ---------------------------------------------------------------------------------------------
def changes(subject: Subject) -> None:
    """What becomes of the prediction with the changes, first of all; then their list, the words, the flows."""
    if not_recorded(subject, "What is changed"):
        return
    listed = edit_list.current()
    found, refused = None, {}
    verdict = st.container()
    with shown_errors(), verdict:
        if any(one.on for one in listed):
            with st.spinner("Running the prompt with the changes…"):
                found, refused = st_ablation(*subject.about, state().whatif.edits, _source(subject))
            _verdict(subject, found, refused)
    with section("changed", "What is changed", explain("edit")):
        _add_form(subject)
        if len(listed) > 1:
            st.button("Clear the list", icon=":material/delete:", key="edits_clear", type="tertiary",
                      on_click=partial(edit_list.store, []))  # fmt: skip
        if found is not None:
            _checked(found, refused)
        if is_opened("patch") and any(one.how == "from" for one in listed):
            st.button("Back to the map of patches", icon=":material/arrow_back:", key="edits_patch", type="tertiary",
                      on_click=_to_the_map)  # fmt: skip
        if not listed:
            st.caption("Nothing yet: click a part in the map, the scatter or the table below, or name one.")
    edit_list.rows(lambda pos: _word_at(subject, pos), refused)
    if found is not None:
        _outcome(subject, found)


def _source(subject: Subject) -> Prompt:
    """The other prompt, as a chat message where this one is."""
    return as_typed(subject.model, source_prompt())


def _to_the_map() -> None:
    session().goto = "pages/compare.py"


def with_changes(subject: Subject) -> None:
    """What becomes of the prediction with the listed changes, and both flows: for a page that makes such a list."""
    with st.spinner("Running the prompt with the changes…"):
        found, refused = st_ablation(*subject.about, state().whatif.edits, _source(subject))
    _verdict(subject, found, refused)
    if found is not None:
        _both_flows(subject)


def _verdict(subject: Subject, found: Any, refused: dict[int, str]) -> None:
    """The answer in a sentence, its numbers in a line; a change that is left out is said before anything else."""
    on = {n: one for n, one in enumerate(edit_list.current()) if one.on}
    if found is None:
        st.error(
            f"None of the changes can be made here. {plain(next(iter(refused.values())))}", icon=":material/block:"
        )
        return
    if refused:
        names = ", ".join(part_name(on[n].node) for n in refused)
        st.warning(f"Left out of all that follows, for it cannot be made here: {plain(names)} ({len(refused)} of "
                   f"{len(on)} changes). The list says why.", icon=":material/block:")  # fmt: skip
    made = [one for n, one in on.items() if n not in refused]
    with st.container(key="whatif_verdict"):
        st.markdown(f"{plain(edit_list.changes_in_words(made, bool(refused)))} {_outcome_in_words(subject, found)}")
    _numbers_line(subject, found)


def _outcome_in_words(subject: Subject, found: Any) -> str:
    """ "Tokyo goes from 99.5 % to 12 %, and the first choice is Kyoto."""
    from visit.analyses.overview import predictions

    rows = found.table.set_index("quantity")
    before, after = (percent(rows.loc["prob", side]) for side in ("before", "after"))
    first, then = (int(rows.loc["rank", side]) == 1 for side in ("before", "after"))
    moves = f"stays at {after}" if before == after else f"goes from {before} to **{after}**"
    word = f"“{plain(subject.word)}”"
    if then:
        return f"{word} {moves} and {'stays' if first else 'becomes'} the first choice."
    best = predictions(subject.model, found.edited, subject.pos, 1).iloc[0]
    return f"{word} {moves}; the first choice is “{plain(visible(best['token']))}”, with {percent(best['prob'])}."


def _word_at(subject: Subject, pos: int) -> str:
    count = len(subject.acts.token_ids)
    if not -count <= pos < count:
        return f"{pos}, which this prompt does not have"
    return f"{pos % count} ({visible(subject.named[pos])})"


def _add_form(subject: Subject) -> None:
    with st.popover("Change a part", icon=":material/add:", key="edit_form", on_change="rerun") as form:
        if not form.open:
            return
        node = st.text_input("Part", "L0.head0", key="edit_node", max_chars=60, help=_IDS)
        how = st.selectbox("How", list(edit_list.HOWS), format_func=edit_list.HOWS.__getitem__, key="edit_how")
        factor = 1.0
        if how in ("scale", "add"):
            factor = st.slider("Factor", -1.0, 2.0, 0.0 if how == "scale" else 1.0, 0.05, key="edit_factor")
        if how in ("from", "add"):
            st.text_area("The other prompt", **field("prompt_b", source_prompt()))
        here = f"at position {subject.pos}"
        where = st.segmented_control("Where", [here, "at every position"], default=here, required=True,
                                     key="edit_where")  # fmt: skip
        with shown_errors():
            one = edit_list.Listed(node, how, factor, str(subject.in_address(subject.pos)) if where == here else "all")
            edit_list.check(subject.model, one)
            st.button("Change it", type="primary", key="edit_add", on_click=_add, args=(one,))


_IDS = (
    "A head L9.head6, its memory value from position 4 L9.head6.value4, query L9.head6.query, key L9.head6.key4, link "
    "L9.head6.link4; a neuron L9.mlp_value2071; what attention or the MLP adds L9.attn_out, L9.mlp_out; a whole block "
    "L9.block; the stream L9.resid_pre, L9.resid_post; the embedding embed, embed.pos3."
)


def _add(one: edit_list.Listed) -> None:
    edit_list.store([*edit_list.current(), one])
    st.session_state["edit_form"] = False


def _numbers_line(subject: Subject, found: Any) -> None:
    """Before → after: the target, and how far the whole prediction moved."""
    rows, word = found.table.set_index("quantity"), plain(subject.word)
    names = [("prob", f"P of {word}", percent), ("rank", f"Rank of {word}", lambda r: f"{int(r):,}")]
    if subject.distractor is not None:
        other = plain(visible(subject.model.vocabulary[subject.distractor]))
        names.append(("difference", f"{word} − {other}, logits", lambda d: f"{d:+.2f}"))
    else:
        names.append(("logit", f"Logit of {word}, above the mean", lambda d: f"{d:+.2f}"))
    with st.container(horizontal=True, gap="medium", key="whatif_numbers"):
        for name, label, write in names:
            before, after = rows.loc[name, "before"], rows.loc[name, "after"]
            st.metric(label, f"{write(before)} → {write(after)}", width="content", help=_METRICS)
        st.metric("Whole prediction moved", f"{number(found.kl_bits)} bits", width="content", help=explain("kl"))


def _outcome(subject: Subject, found: Any) -> None:
    """What else came of it: the words, the text that follows, both flows."""
    for note in found.notes:
        st.info(plain(note), icon=":material/info:")
    with beside("outcome"):
        left, right = st.columns(2, gap="medium")
    with left:
        _words(found.words)
    with right:
        _goes_on(subject)
    _both_flows(subject)


_METRICS = "Without the changes → with them. Measured: the model ran again."


def _words(words: pd.DataFrame) -> None:
    """As a plain table, which a phone shows whole."""
    st.markdown("**The ten words that change most**")
    points = [f"{100 * c:+.2f}".replace("-", "−") for c in words["change"]]
    shown = pd.DataFrame({
        "Before": [percent(p) for p in words["prob_before"]], "After": [percent(p) for p in words["prob_after"]],
        "Points": points,
    }, index=pd.Index([plain(as_word(t)) for t in words["token"]], name="Word"))  # fmt: skip
    st.table(shown, border="horizontal")


def _goes_on(subject: Subject) -> None:
    """The text with the changes, token by token, and what the model without them thinks of each."""
    st.markdown("**How the text goes on**")
    with st.container(horizontal=True):
        st.selectbox("Words to go on", width=130, **choice("more"))
        st.text_input("Force a word", placeholder=f"{len(subject.acts.token_ids)}= word", max_chars=60, width=170,
                      help="A position and the word that is to stand there.", **field("force"))  # fmt: skip
    count, now = int(state().whatif.more), state()
    if not count:
        return
    with shown_errors(), st.spinner("Going on, word by word…"):
        lists = [now.whatif.edits, ""]
        found = [st_continuation(*subject.key, edits, _source(subject), count, now.whatif.force) for edits in lists]
        for name, rows in zip(("With the changes", "Without"), found, strict=True):
            st.markdown(f"{name}: {plain(visible(''.join(rows['token'])))}")
        rows = found[0]
        st.dataframe(
            in_cells(pd.DataFrame({
                "pos": rows["pos"], "word": [visible(t) for t in rows["token"]], "prob": rows["prob"],
                "prob_clean": rows["prob_clean"],
            }), percents=["prob", "prob_clean"]),
            hide_index=True, height=220, column_config={
                "pos": "Position", "word": "Word",
                "prob": "P with the changes", "prob_clean": "P without",
            },
        )  # fmt: skip


def _both_flows(subject: Subject) -> None:
    """The flow graph without and with the changes as one drawing, made when it is opened."""
    from visit.drawing.pair import difference_data, difference_svg

    with unfolding("edited_flows", "The flow with and without the changes", ":material/account_tree:") as opened:
        if not opened:
            return
        now = state()
        with st.spinner("Reading the words of both flows…"):
            levels = st_opened(None, subject.about)
            nodes = [NodeId.parse(one.node) for one in edit_list.current() if one.on]
            if changed := {node.layer: "words" for node in nodes if node and node.layer in levels}:
                levels = {**dict.fromkeys(levels, "states"), **changed}  # the eye meets what was changed
            found = st_edited_flows(*subject.about, now.whatif.edits, _source(subject), opened_blocks(levels))
        show(difference_data(found, levels, selected=now.graph.node or None, **now.graph.look), "flow_edited")
        drawn = partial(difference_svg, found, levels, **now.graph.look)
        collect_figure("The flow with the changes and without them", drawn, lambda: found.tables["changes"])
        st.caption(
            "A: without the changes, B: with them; open are the blocks that were changed. A click on a node shows "
            "what it reads, and its numbers, in both."
        )


def _checked(found: Any, refused: dict[int, str]) -> None:
    """The identities of these very edits, checked when they are looked at; and files."""
    box = st.popover("Are these numbers right?", icon=":material/verified:", key="edit_ledger", on_change="rerun",
                     type="tertiary")  # fmt: skip
    if box.open:
        with box, st.spinner("Running the checks of these changes…"):
            changed, numbers = found.changed
            _ledger_lines(found.ledger)
            st.caption(f"The changes altered {changed:,} of the {numbers:,} numbers that they were written to.")
    listed = edit_list.current()
    left_out = {listed[n].text: why for n, why in refused.items()}
    collect_figure("The answer before these changes and after them", None, lambda: found.table, code="changed.table")
    downloads("whatif", lambda: ({**found.meta, "left_out": left_out}, {"prediction": found.table,
                                                                        "words": found.words}))  # fmt: skip


def _ledger_lines(table: pd.DataFrame) -> None:
    """Whether all identities hold, and the largest error of each."""
    holds, worst = bool(table["holds"].all()), float(table["max_rel_error"].max())
    verdict = "Yes: every identity holds" if holds else "No: an identity fails, so these numbers cannot be trusted"
    st.markdown(f"**{verdict}** (largest relative error {worst:.0e}).")
    errors = table.groupby(["identity", "name"], as_index=False, sort=False).agg(
        error=("max_rel_error", "max"), allowed=("tolerance", "max"), holds=("holds", "all")
    )
    for _, row in errors.iterrows():
        mark = ":material/check:" if row["holds"] else ":material/close:"
        st.caption(f"{mark} {plain(row['name'])}: {row['error']:.0e} (allowed {row['allowed']:.0e})")
