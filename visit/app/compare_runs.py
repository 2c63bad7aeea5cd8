"""What the two runs of the compare page do differently: in sentences, in numbers, and where in the model they part."""

from __future__ import annotations

from typing import Any

import streamlit as st

from visit.app import graph_panel as graphs
from visit.app.cached_pairs import st_parting, st_single_parts, st_told_sides
from visit.app.fields import listed
from visit.app.grid import as_table, grid
from visit.app.lens_choice import heading, switch, told
from visit.app.sessions import change, set_opened
from visit.app.two_sides import Two, why_apart
from visit.app.widgets import FOLDED_CONTROLS, READING_AID, folded, pager, plain, section, sentences, unfolding
from visit.errors import VisitError
from visit.figures.parting import parting_grid
from visit.models.catalog import title
from visit.text.glossary import explain
from visit.text.numbers import percent
from visit.text.visible import as_word, visible

READ_AT_ONCE = 64  # pairs that are all read for the sentences; of longer prompts those that the map shows


def both_answers(two: Two) -> None:
    """The sentences; both sides' answers in numbers are opened by choice."""
    if (why := why_apart(two)) is not None:
        st.info(plain(why), icon=":material/info:")
        return
    with st.spinner("Comparing every state and every head of the two runs…"):
        found = told_apart(two)
    sentences([sentence for sentence in found.values() if sentence], "contrast", select_node)
    if found.get("scales"):
        _same_scale(two)


def _same_scale(two: Two) -> None:
    """Where one side alone has a distractor: its two words for the other side, too, as they are or swapped."""
    if two.recorded is not None:
        return
    here, there, name, side = (two.a, two.b, "B", "_b") if two.a.distractor is not None else (two.b, two.a, "A", "")
    assert here.distractor is not None
    words = [here.model.vocabulary[token] for token in (here.target, here.distractor)]
    for word in words:
        try:
            there.model.token_id(word)
        except VisitError:
            return
    with st.container(horizontal=True):
        for label, (target, distractor), key in (("the same two words", words, "same"),
                                                 ("them swapped", words[::-1], "swapped")):  # fmt: skip
            shown = f"“{plain(visible(target))}” over “{plain(visible(distractor))}”"
            st.button(f"Ask {name} about {label}", key=f"scale_{key}", help=f"{shown}: then both sides have one scale.",
                      on_click=change, kwargs={f"target{side}": target, f"distractor{side}": distractor})  # fmt: skip


def told_apart(two: Two) -> dict[str, Any]:
    """What the two runs do differently, in sentences by what they tell; of two that are the same, or unlike, none."""
    from visit.narrate.comparison import contrast_parts

    if two.recorded is not None:
        return dict(two.recorded.pair.result("contrast"))
    if two.same or why_apart(two) is not None:
        return {}
    about, lenses = (two.a.about, two.b.about), [lens for lens, _ in two.seen]
    found = st_told_sides(*about, two.align, *lenses)
    singles = st_single_parts(*about, two.align)
    count = len(two.pairing.pairs)
    pairs = range(count) if count <= READ_AT_ONCE else two.window()
    apart = st_parting(*two.keys, pairs.start, pairs.stop, *lenses)
    return contrast_parts(found, apart, singles)


def select_node(node: str | None) -> None:
    """Select a node and open the drawings, where it stands."""
    graphs.select(node)
    set_opened("flows", True)


def answers_in_numbers(two: Two) -> None:
    """Every answer's probability, rank and logit on both sides."""
    with unfolding("answers", "Both answers in numbers: probability, rank and logit on either side") as opened:
        if opened:
            _answers_table(two)


def _answers_table(two: Two) -> None:
    from visit.analyses.graph_difference import target_ranks

    if two.recorded is not None:
        table = two.recorded.pair.result("compare").answers
    else:
        table = target_ranks(two.a.question, two.b.question)
    shown = table.assign(word=[as_word(w) for w in table["word"]])
    for side in ("a", "b"):
        shown[f"prob_{side}"] = ["no such token" if p != p or p is None else percent(p) for p in table[f"prob_{side}"]]
    st.dataframe(
        shown[["word", "whose", "prob_a", "rank_a", "logit_over_mean_a", "prob_b", "rank_b",
               "logit_over_mean_b"]], hide_index=True,
        column_config={
            "word": "Word", "whose": "It is the",
            "prob_a": st.column_config.TextColumn("P in A", help=explain("probability")),
            "prob_b": st.column_config.TextColumn("P in B", help=explain("probability")),
            "rank_a": st.column_config.NumberColumn("Rank in A", help=explain("rank")),
            "rank_b": st.column_config.NumberColumn("Rank in B", help=explain("rank")),
            "logit_over_mean_a": st.column_config.NumberColumn("Logit over the mean in A", format="%.2f", help=_LOGIT),
            "logit_over_mean_b": st.column_config.NumberColumn("Logit over the mean in B", format="%.2f", help=_LOGIT),
        },
    )  # fmt: skip


_LOGIT = (
    "The word's logit minus the mean over all words: a logit itself means nothing, as a constant added to all of "
    "them changes no probability."
)


# ---- where do they part? ---------------------------------------------------------------------------------------------
def parting(two: Two) -> None:
    """Layers × aligned positions: how far the two runs are apart; a click takes the graphs there."""
    from visit.analyses.parting import MEASURES, first_parting

    line = section("apart", "Where do they part?", explain("parting map"))
    if two.a.model.n_layers != two.b.model.n_layers:
        st.caption("The two models have different numbers of layers, so their blocks cannot be laid beside each other.")
        return
    with line:
        with folded(*FOLDED_CONTROLS) as controls:
            switch(two.models)
            measure: Any = st.selectbox("Distance", format_func=lambda m: MEASURES[m],
                                        **listed("apart", list(MEASURES)))  # fmt: skip
        reading = folded(*READING_AID)
    for name in two.models:
        told(name, aside=controls)
    shown, read = pager(*two.pager, "pairs"), two.seen
    table = st_parting(*two.keys, shown.start, shown.stop, *(lens for lens, _ in read))
    if table.empty or table[measure].isna().all():
        st.caption(
            f"No pair of tokens here has this distance ({MEASURES[measure]}): choose another distance or alignment."
        )
        return
    cell = first_parting(table, measure=measure)
    first = None if cell is None else (cell["pair"], cell["depth"])
    found = parting_grid(table, measure, MEASURES[measure], two.a.pos, first, (two.keys, shown))

    def take_cell(cell: list[int]) -> None:
        depth, pos_a, pos_b = cell
        change(
            pos=two.a.in_address(pos_a), pos_b=two.b.in_address(pos_b), detail=f"{max(0, depth - 1)}w",
            node="L0.resid_pre" if depth == 0 else f"L{depth - 1}.resid_post",
        )  # fmt: skip
        set_opened("flows", True)

    grid("apart_map", found, take_cell, lambda: table, code="found")
    named = (
        []
        if two.recorded is not None
        else [f"{plain(title(m))}’s {heading(m, lens)}" for m, (lens, _) in zip(two.models, read, strict=False) if lens]
    )
    by = "" if measure.startswith("cosine") else (
        f" Read through {' and '.join(f'the lens {name}' for name in named)}." if named else " Read by the plain lens."
    )  # fmt: skip
    reading.caption(_MAP_CAPTIONS[measure] + by + " Framed: where the runs first part.")
    st.caption(f"{MEASURES[measure][0].upper()}{MEASURES[measure][1:]}, pair by pair. Read a column upwards; click a "
               "cell to open its block in both graphs.")  # fmt: skip
    as_table("apart_map", found)


_MAP_CAPTIONS = {
    "js": "Each cell compares what the two streams read at one pair of tokens (column) after one block (row): the "
    "Jensen–Shannon divergence of their two distributions over words, 0 bits where they read alike, 1 bit where they "
    "have no word in common.",
    "apart": "Each cell: the share of the fifty most probable words that the two streams do not have in common "
    "(1 − I₅₀; two random states share almost none).",
    "cosine": "Each cell: 1 − the cosine of the two streams. A few giant dimensions that all states share keep it near "
    "0 almost everywhere; the last measure removes them.",
    "cosine_centred": "Each cell: 1 − the cosine of the two streams, without the mean of all states (but the first) "
    "after this block "
    "and without its rogue dimensions (root mean square three standard deviations over the others'): 0 the same "
    "direction, 1 unrelated, 2 opposite.",
}
