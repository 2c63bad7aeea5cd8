"""The parts of the compare page: two prompts aligned, both answers, where the runs part, both flow graphs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import streamlit as st

from visit.app import graph_panel as graphs
from visit.app.cache import (
    About,
    Layers,
    PassKey,
    Seen,
    st_compare,
    st_graph,
    st_heads,
    st_ledger,
    st_model,
    st_opened,
    st_pairing,
    st_parting,
    st_single_parts,
)
from visit.app.fields import field, listed, segments
from visit.app.figure_list import collect_figure
from visit.app.grid import as_table, grid
from visit.app.lens_choice import followed, heading, seen, switch, told
from visit.app.marks import named_part
from visit.app.opened import NEEDS_MODEL, opened_recording, recorded_line, recorded_subject, save_menu
from visit.app.problems import shown_errors
from visit.app.prompt_bar import asked_words, chat_line, position, run, show_notes
from visit.app.recorded import is_recorded, run_named
from visit.app.sessions import change, defaults, session, set_opened, state, write_url
from visit.app.shipped import data_rows
from visit.app.sidebar import need_numbers, show_ledger
from visit.app.state import DRAWN, value_of
from visit.app.subject import Subject
from visit.app.widgets import (
    FOLDED_CONTROLS,
    READING_AID,
    beside,
    downloads,
    enter_runs,
    folded,
    on_row,
    pager,
    plain,
    section,
    sentences,
    shown_window,
    token_pairs,
    unfolding,
)
from visit.errors import VisitError
from visit.figures.parting import parting_grid
from visit.models.catalog import LISTED, MINI, is_hosted, title
from visit.text.glossary import explain
from visit.text.markdown import escaped
from visit.text.numbers import percent
from visit.text.visible import as_word, visible

PAIRS = 14  # of the map on screen at once
ALL = 64  # pairs that are all read for the sentences; of longer prompts those that the map shows
_SIDES = ("prompt", "pos", "target", "distractor")
_FRESH = ("pos", "pos_b", *DRAWN)  # of two other prompts


@dataclass(frozen=True, eq=False)
class Two:
    """Two passes, how their tokens are aligned, and the corrections of that (`"3:5,4:"`)."""

    a: Subject
    b: Subject
    pairing: Any
    align: str

    @property
    def keys(self) -> tuple[PassKey, PassKey, str]:
        return self.a.key, self.b.key, self.align

    @property
    def models(self) -> tuple[str, ...]:
        """The models of the two sides, one where it is the same."""
        return tuple(dict.fromkeys((self.a.model.name, self.b.model.name)))

    @property
    def recorded(self) -> Any:
        """The recording that both are from; None for two live passes."""
        return run_named(self.a.key[0])[0] if is_recorded(self.a.key[0]) else None

    @property
    def same(self) -> bool:
        """Whether both sides are one text at one position of one model: nothing can differ."""
        return self.a.model is self.b.model and self.a.key == self.b.key and self.a.pos == self.b.pos

    @property
    def seen(self) -> tuple[Seen, ...]:
        """How either side's states are read."""
        return seen(self.a.model.name, self.b.model.name)

    def window(self) -> range:
        """The pairs that the map shows: all, or those around the positions looked at."""
        return shown_window(*self.pager)

    @property
    def pager(self) -> tuple[str, Any, int, int, int]:
        """Arguments of a pager of the pairs."""
        count = len(self.pairing.pairs)
        here = next((n for n, p in enumerate(self.pairing.pairs) if p.a == self.a.pos), count - 1)
        return "apart", self.keys, count, here, PAIRS


# ---- the two prompts -------------------------------------------------------------------------------------------------


def two_prompts() -> Two | None:
    """Both prompts, pairs to try and what is rarely needed, folded; then the aligned tokens.

    None where two recordings are laid beside each other, or one waits for another (visit.app.two_recordings).
    """
    show_notes()
    if (recording := opened_recording()) is not None:
        if len(recording.runs) == 1 or state().compare.recording_b:
            return None
        return _recorded_two(recording)
    enter_runs()
    with named_part("prompts"):
        with st.container(key="prompt_line", horizontal=True, vertical_alignment="bottom", gap="small"):
            st.text_area("Prompt A", help=explain("prompt"), height="content", **field("prompt"))
            st.text_area("Prompt B", help="Begins as a copy of A: change a word of it and press Enter. Emptied it is a "
                         "copy again.", height="content",
                         **field("prompt_b", state().compare.prompt_b or state().prompt))  # fmt: skip
            _pairs_to_try()
            more = st.popover("More", icon=":material/tune:", key="prompt_more")
        passes = [run(side, f"Prompt {name}: ") for side, name in (("", "A"), ("_b", "B"))]
        two = _aligned(*_asked(more, passes))
        _what_pair_shows()
        alone = two.same or two.a.model is not two.b.model or bool(two.align)
        save_menu(two.a, None if alone else two.b, two.seen[0][0])
        token_pairs(
            two.pairing, (two.a.acts.tokens, two.b.acts.tokens), (_control_tokens(two.a), _control_tokens(two.b)),
            (two.a.pos, two.b.pos), bool(two.align), partial(_pick, two), partial(_fix, two), lambda: change(align=""),
        )  # fmt: skip
    return two


def _recorded_two(recording: Any) -> Two:
    """Both prompts of a recording, aligned as they were."""
    recorded_line(recording)
    two = recorded_subject("a"), recorded_subject("b")
    with named_part("prompts"):
        with st.container(key="prompt_line", horizontal=True, vertical_alignment="bottom", gap="small"):
            for run, name in zip(recording.runs, "AB", strict=True):
                st.text_input(f"Prompt {name}", visible(run.prompt), disabled=True, help=NEEDS_MODEL,
                              key=f"recorded_prompt {name} {state().recording}")  # fmt: skip
        pairing = st_pairing(two[0].key, two[1].key, "")
        token_pairs(
            pairing, (two[0].acts.tokens, two[1].acts.tokens), (_control_tokens(two[0]), _control_tokens(two[1])),
            (two[0].pos, two[1].pos), False, _told_recorded, _told_recorded, lambda: None,
        )  # fmt: skip
    return Two(*two, pairing, "")


def _told_recorded(*_asked: Any) -> None:
    session().notes = ["These two were recorded at these positions, aligned like this; another choice needs the model."]


def _asked(more: Any, passes: list[tuple[Any, Any]]) -> list[Subject]:
    """What either side is asked, with what is folded: both sides' words, the model of B, whether they are chats."""
    notes = st.container()
    subjects: list[Subject] = []
    with more:
        for side, name, (model, acts) in zip(("", "_b"), "AB", passes, strict=True):
            st.markdown(f"**{name}**{_size(model)}")
            copied = side and not state().compare.prompt_b and state().compare.pos_b == -1
            pos = subjects[0].pos if copied else position(acts, side)
            subjects.append(asked_words(model, acts, min(pos, len(acts.token_ids) - 1), side, notes))
        names = list(dict.fromkeys(["", *LISTED, state().compare.model_b]))
        st.selectbox(
            "Model of B", format_func=lambda n: title(n) if n else "the same as A",
            accept_new_options=not is_hosted(), help="Another model for side B: a distilled, a fine-tuned one. "
            "The alignment is then by token, or by character where the tokenizers differ.", **listed("model_b", names),
        )  # fmt: skip
        with st.container(horizontal=True):
            st.button("Swap A and B", icon=":material/swap_horiz:", on_click=_swap)
            st.button("Copy A to B", icon=":material/content_copy:", on_click=_copy)
        chat_line(*passes)
    return subjects


def _size(model: Any) -> str:
    """A model's name and size, where the two sides have two."""
    if state().compare.model_b in ("", state().model):
        return ""
    return f" {plain(title(model.name))}: {model.n_layers} blocks × {model.n_heads} heads"


def _aligned(a: Subject, b: Subject) -> Two:
    """Both sides with their alignment; numbers that fail their check are said."""
    show_ledger(a.model)
    need_numbers(b.model)
    if b.model.name != a.model.name and not st_ledger(b.model.name)["holds"].all():
        st.error(
            f"{plain(b.model.name)} fails the check of its numbers: B is not to be trusted.", icon=":material/warning:"
        )
    align = state().compare.align
    try:
        pairing = st_pairing(a.key, b.key, align)
    except VisitError as problem:
        st.info(f"{escaped(str(problem))} The alignment is shown uncorrected.", icon=":material/link:")
        align, pairing = "", st_pairing(a.key, b.key, "")
    return Two(a, b, pairing, align)


# ---- pairs to try ----------------------------------------------------------------------------------------------------
_LEFT = """<style>:is([class*="st-key-pair-"], [class*="st-key-begin-"]) :is(button, button *) {
  justify-content: flex-start; text-align: left; }</style>"""


def _pairs_to_try() -> None:
    """Pairs of prompts, each with what it shows; made when the list is opened."""
    with st.popover("Pairs to try", icon=":material/lightbulb:", key="pairs_list", on_change="rerun") as menu:
        if menu.open:
            _pair_buttons("pair")


def _pair_buttons(key: str) -> None:
    st.html(_LEFT)
    for label, row in data_rows("presets.csv", state().model == MINI).items():
        both = f"{plain(row['prompt'])} …  \n{plain(row['prompt_b'])} …"
        st.button(f"**{plain(label)}**  \n{both}  \n{plain(row['look'])}", key=f"{key} {label}",
                  on_click=_take_pair, args=(row,), type="tertiary", width="stretch")  # fmt: skip


def _take_pair(row: dict[str, str]) -> None:
    change(**defaults(*_FRESH), **{name: row[name] for name in row if name not in ("label", "look")})
    st.session_state["pairs_list"] = False


def _what_pair_shows() -> None:
    now = state().prompt, state().compare.prompt_b
    rows = data_rows("presets.csv", state().model == MINI).values()
    if look := next((r["look"] for r in rows if (r["prompt"], r["prompt_b"]) == now), None):
        st.caption(f":material/lightbulb: {plain(look)}")


def start_here(two: Two) -> None:
    """What a page says whose sides are the same: what to change, and pairs that show something."""
    from visit.narrate.memory import strongest_head

    table = st_heads(*two.a.about)
    head = table.set_index("node").loc[strongest_head(table)]
    assert two.a.acts.logits is not None
    share = float(two.a.acts.logits[two.a.pos].softmax(-1)[two.a.target])
    st.markdown(
        f"**A and B are the same text, so nothing differs yet.** Both give “{plain(two.a.word)}” {percent(share)}. "
        f"Change a word of Prompt B and press Enter: for one “{plain(visible(head['source_token']))}”, from which "
        f"L{head['layer']} H{head['head']}, the head that pushes hardest towards “{plain(two.a.word)}”, takes most. Or "
        "begin with a pair:"
    )
    _pair_buttons("begin")


def _control_tokens(subject: Subject) -> frozenset[int]:
    """The positions of control tokens."""
    from visit.models.tokens import special_ids

    if subject.recorded is not None:
        return subject.recorded.special
    special = special_ids(subject.model.tokenizer)
    return frozenset(i for i, token in enumerate(subject.acts.token_ids) if token in special)


def _swap() -> None:
    now = state()
    there = {name: value_of(now, f"{name}_b") for name in _SIDES}
    there["prompt"] = there["prompt"] or now.prompt  # empty: a copy
    back = {f"{name}_b": value_of(now, name) for name in _SIDES}
    models = {"model": now.compare.model_b, "model_b": now.model} if now.compare.model_b else {}
    change(**{**defaults(*_FRESH), **there, **back, **models})


def _copy() -> None:
    same = {f"{name}_b": value_of(state(), name) for name in _SIDES}
    change(**{**defaults(*_FRESH), **same, "prompt_b": "", "pos": state().pos})


def _pick(two: Two, side: str, pos: int) -> None:
    partner = (two.pairing.to_b if side == "a" else two.pairing.to_a).get(pos)
    a, b = (pos, partner) if side == "a" else (partner, pos)
    values: dict[str, Any] = {"node": ""}
    if a is not None:
        values["pos"] = two.a.in_address(a)
    if b is not None:
        values["pos_b"] = two.b.in_address(b)
    change(**values)


def _fix(two: Two, a: int | None, b: int | None) -> None:
    """Put the tokens together; a token that already stood in another correction leaves that one."""
    from visit.analyses.token_alignment import parse_fixes

    partner = (None if a is None else two.pairing.to_b.get(a)) if b is None else two.pairing.to_a.get(b)
    together = a is not None and b is not None and two.pairing.to_b.get(a) == b
    if together or ((a is None) != (b is None) and partner is None):
        return
    kept = [(i, j) for i, j in parse_fixes(two.align) if not ((a is not None and i == a) or (b is not None and j == b))]
    text = ",".join(f"{'' if i is None else i}:{'' if j is None else j}" for i, j in [*kept, (a, b)])
    change(align=text)


# ---- what was found --------------------------------------------------------------------------------------------------


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
    from visit.graph.prune import Keep
    from visit.narrate.comparison import contrast_parts

    if two.recorded is not None:
        return dict(two.recorded.pair.result("contrast"))
    if two.same or why_apart(two) is not None:
        return {}
    about, read = (two.a.about, two.b.about), two.seen
    opened = graphs.opened_blocks(st_opened(None, *about))
    found = st_compare(*about, None, Keep(), Keep(), two.align, opened, read[0], read[1])
    singles = st_single_parts(*about, two.align)
    count = len(two.pairing.pairs)
    pairs = range(count) if count <= ALL else two.window()
    apart = st_parting(*two.keys, pairs.start, pairs.stop, *(lens for lens, _ in read))
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


def why_apart(two: Two) -> str | None:
    """Why the two models have no difference graph; None if they have one."""
    from visit.analyses.graph_difference import shape, unlike

    return unlike(shape(two.a.model), shape(two.b.model), two.a.model.name, two.b.model.name)


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

    grid("apart_map", found, take_cell, lambda: table)
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


# ---- the flows -------------------------------------------------------------------------------------------------------
def both_graphs(two: Two) -> None:
    """Both flow graphs, or their difference, with the controls of what is drawn and the table of changes."""
    with unfolding("flows", "Both flow graphs, or their difference, and the parts that change most") as opened:
        if opened:
            _both(two.a.about, two.b.about, two.align, why_apart(two) is None, two.seen)


@st.fragment
def _both(a: About, b: About, align: str, alike: bool, read: tuple[Seen, ...]) -> None:
    """Controls and drawings: a fragment, so that a selection runs nothing above it. Takes keys only."""
    with shown_errors():
        keep, layers = graphs.controls((a[0], b[0]))
        followed((a[0], b[0]), read)
        if alike:
            _compared(a, b, align, layers, keep, read)
        else:
            _side_by_side(a, b, layers, keep, read)
    write_url()


def _compared(a: About, b: About, align: str, layers: Layers, keep: Any, read: tuple[Seen, ...]) -> None:
    from visit.analyses.graph_difference import common_id
    from visit.drawing.pair import both_data, difference_data

    with st.spinner("Reading the words of both flows…"):
        found, shown, whole = _found(a, b, align, layers, keep, read)
    if is_recorded(a[0]):
        graphs.check_influence(found.a)
    view: Any = st.segmented_control("View", required=True, label_visibility="collapsed", **segments("view"))
    session().levels = shown
    now: Any = state().graph
    node = now.node or None
    if view == "difference":
        graphs.show(difference_data(found, shown, selected=node, actions=True, **now.look), "flow_difference")
    else:
        data = both_data(found, shown, selected=node, actions=True, color_by=now.color, **now.look)
        models = found.meta["model"], found.meta["b"]["model"]
        with beside("graphs"):
            for column, side, one, meta in zip(
                st.columns(2, gap="small"), ("a", "b"), data, (found.meta, found.meta["b"]), strict=True
            ):
                name = "" if models[0] == models[1] else title(meta["model"]) + ": "
                chat = " (as a chat message)" if meta.get("chat") else ""
                with column:
                    st.markdown(f"**{side.upper()}** {plain(name + visible(meta['prompt'][:200]) + chat)}")
                    common: Any = partial(common_id, side=side, pairing=found.pairing)  # type: ignore[arg-type]
                    graphs.show(one, f"flow_{side}", common, "" if side == "a" else "_b")
    _explain(found, view)
    with named_part("changes"):
        _changes_table(found)

    def picture(kind: str) -> bytes:
        from visit.files.flow_page import difference_file

        return difference_file(whole(), kind, shown, **now.look)

    for side in ("a", "b"):
        collect_figure(f"The flow graph of {side.upper()}, its opened blocks", partial(_side_svg, whole, side, shown),
                       partial(_side_nodes, whole, side))  # fmt: skip
    collect_figure("What differs between the two runs, B − A", lambda: picture("svg").decode(),
                   lambda: whole().tables["changes"])  # fmt: skip
    downloads("compare", lambda: (whole().meta, whole().tables), picture)


def _side_svg(whole: Callable[[], Any], side: Any, shown: dict[int, Any]) -> str:
    from visit.drawing.draw import draw
    from visit.drawing.pair import side_graph

    now = state().graph
    return draw(side_graph(whole(), side), shown, crop=True, color_by=now.color, **now.look)


def _side_nodes(whole: Callable[[], Any], side: str) -> Any:
    return getattr(whole(), side).nodes


def _found(
    a: About, b: About, align: str, layers: Layers, keep: Any, read: tuple[Seen, ...]
) -> tuple[Any, dict[int, Any], Callable[[], Any]]:  # fmt: skip
    """The comparison with the kept, hidden and selected nodes of both sides, its levels, and how to get all of it."""
    default = st_opened(layers, a, b)
    shown = graphs.levels(state().graph.detail, list(default), default)
    drawn = tuple(default)

    def build(node: str, whole: bool = False) -> Any:
        keep_a, keep_b = (replace(keep, pin=_pins(side, keep.pin, node, a, b, align, drawn)) for side in ("a", "b"))
        opened = None if whole else graphs.opened_blocks(shown)
        return st_compare(a, b, layers, keep_a, keep_b, align, opened, read[0], read[1], state().graph.influence)

    node = state().graph.node
    layer: Any = graphs.block_of(node) if node else None
    found = build("" if shown.get(layer) == "states" else node)
    absent = shown.get(layer) == "states" and node not in found.pairs
    if absent and any(_pins(side, (), node, a, b, align, drawn) for side in ("a", "b")):
        shown = {**shown, layer: "words"}
        found = build(node)
    return found, shown, partial(build, node, True)


def _pins(
    side: Any, chosen: tuple[str, ...], node: str, a: About, b: About, align: str, drawn: tuple[int, ...]
) -> tuple[str, ...]:
    """The kept and hidden nodes and the selected one under their names on one side, as far as it has them.

    States, norms and sums are left out: they are always there.
    """
    from visit.analyses.graph_difference import own_id
    from visit.graph.prune import is_pin

    pairing, pos = st_pairing(a[:2], b[:2], align), (a if side == "a" else b)[2]
    found = []
    for pin in [*chosen, *([node] if node else [])]:
        own = own_id(pin.removeprefix("-"), side, pairing)
        parts = (".head", ".mlp_value", ".mlp_key", ".attn_neuron")
        adds = own and any(part in own for part in parts) and ".rest" not in own
        if own and adds and is_pin(st_model(a[0]), own, list(drawn), pos):
            found.append(("-" if pin.startswith("-") else "") + own)
    return tuple(dict.fromkeys(found))


def _explain(found: Any, view: str) -> None:
    counts = found.meta["counts"]
    parts = [
        f"{counts.get('alike', 0):,} nodes read alike on both sides, {counts.get('word', 0):,} have another top word, "
        f"{counts.get('only A', 0):,} are kept by the pruning in A alone and {counts.get('only B', 0):,} in B alone"
    ]
    how = (
        "Every node that one side keeps is drawn on both, at the same place, in the same colours and widths; a node is "
        "called absent only where the other prompt has no such token in sight. Point at one to light its twin."
        if view == "graphs"
        else "Every band is as wide as what it carries has changed (B − A), solid where B carries more, dashed where "
        "it carries less. Click a node for both sides' words and numbers."
    )
    folded = len(found.meta["layers"]) - len(found.a.meta.get("opened", found.meta["layers"]))
    less = " Folded blocks stand with their states and largest heads until they are unfolded." if folded else ""
    st.caption(f"{how} {'; '.join(parts)}.{less}")


def _side_by_side(a: About, b: About, layers: Layers, keep: Any, read: tuple[Seen, ...]) -> None:
    """Two graphs of models of different shape: nothing corresponds, so each is drawn for itself."""
    from visit.drawing.draw import flow_data

    now: Any = state().graph
    with beside("graphs"):
        for column, side, about, by in zip(st.columns(2, gap="small"), "ab", (a, b), read, strict=True):
            with column:
                shown_layers = layers
                count = st_model(about[0]).n_layers
                if layers is not None and max(layers) >= count:
                    st.caption(f"{plain(title(about[0]))} has {count} blocks; all of them are shown.")
                    shown_layers = None
                detail = st_opened(shown_layers, about)
                opened = graphs.opened_blocks(detail)
                graph = st_graph(*about, shown_layers, replace(keep, pin=()), opened, by, now.influence)
                st.markdown(f"**{side.upper()}** {plain(title(about[0]))}")
                graphs.show(flow_data(graph, detail, color_by=now.color, **now.look), f"flow_{side}")


_CHANGE_COLUMNS = ["component", "status", "word_a", "word_b", "rank_a", "rank_b", "contribution_a", "contribution_b",
                   "difference"]  # fmt: skip


def _changes_table(found: Any) -> None:
    """The parts that change most; a chosen row selects its node in the graphs."""
    table = found.tables["changes"].head(500)
    shown = table[_CHANGE_COLUMNS].assign(
        **{c: [visible(w) if isinstance(w, str) else "absent" for w in table[c]] for c in ("word_a", "word_b")},
        status=[_STATUS[s] for s in table["status"]],
    )  # fmt: skip
    number = partial(st.column_config.NumberColumn, format="%+.3f")
    st.markdown("**The largest changes**", help="Every part that adds to the stream, by how much its contribution "
                "differs between the two sides. " + explain("contribution"))  # fmt: skip
    st.dataframe(
        shown, hide_index=True, height=300, placeholder="–", **on_row("changes", table["id"].tolist(), graphs.select),
        column_config={
            "component": "Part", "status": st.column_config.TextColumn("The pruning keeps it", help=_PRUNING),
            "word_a": "Word in A", "word_b": "Word in B",
            "rank_a": st.column_config.NumberColumn("Rank of A's target", help=explain("rank")),
            "rank_b": st.column_config.NumberColumn("Rank of B's target", help=explain("rank")),
            "contribution_a": number("Contribution in A"), "contribution_b": number("Contribution in B"),
            "difference": number("B − A"),
        },
    )  # fmt: skip
    st.caption(
        "Choose a row to see its node in the graphs; click a column's name to sort. Contributions are in logits, each "
        "towards its own side's target."
    )


_PRUNING = (
    "How much of each sum is shown is chosen above. A part that only one side's pruning keeps exists on the other side "
    "as well, and its numbers stand here."
)
_STATUS = {"only A": "in A alone", "only B": "in B alone", "word": "in both, another word", "alike": "in both, alike"}
