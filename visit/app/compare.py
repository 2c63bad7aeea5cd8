"""The upper half of the compare page: two prompts and their alignment, both answers, where the runs part."""

from __future__ import annotations

import csv
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import streamlit as st

import visit
from visit.app import graph_panel as graphs
from visit.app.address import levels
from visit.app.cache import (
    About,
    Prompt,
    st_compare,
    st_graph,
    st_ledger,
    st_model,
    st_opened,
    st_pairing,
    st_parting,
    st_single_parts,
)
from visit.app.prompt_bar import Subject, chat_line, plain, position, run, show_notes, words
from visit.app.sentences import sentences
from visit.app.sidebar import need_numbers, show_ledger
from visit.app.state import change, field, shown_errors, state, write_url
from visit.app.token_box import enter_runs
from visit.app.token_pairs import token_pairs
from visit.errors import VisitError
from visit.figures import maps as figures
from visit.models.catalog import LISTED, MINI, is_hosted, title
from visit.text.glossary import explain
from visit.text.numbers import percent
from visit.text.visible import as_word, visible

COLUMNS = 14  # pairs of the map on screen at once
ALL = 64  # pairs that are all read for the sentences; of longer prompts those that the map shows
_SIDES = ("prompt", "pos", "target", "distractor")


@dataclass(frozen=True, eq=False)
class Two:
    """Two passes, how their tokens are aligned, and the corrections of that (`"3:5,4:"`)."""

    a: Subject
    b: Subject
    pairing: Any
    align: str

    @property
    def keys(self) -> tuple[str, Prompt, str, Prompt, str]:
        return *self.a.key, *self.b.key, self.align


# ---- the two prompts -------------------------------------------------------------------------------------------------


def two_prompts() -> Two:
    """Both prompts with their words, the presets, and the aligned tokens."""
    show_notes()
    enter_runs()
    _tools()
    columns, line = st.columns(2, gap="medium"), st.container()
    subjects = []
    for column, side, name in zip(columns, ("", "_b"), "AB", strict=True):
        with column:
            st.text_area(f"Prompt {name}", help=explain("prompt"), height="content", **field(f"prompt{side}"))
            model, acts = run(side, f"Prompt {name}: ")
            if state().model_b and state().model_b != state().model:
                st.caption(_about(model))
            subjects.append(words(model, acts, position(acts, side), side))
    a, b = subjects
    with line:
        chat_line(*((s.model, s.acts) for s in subjects))
    show_ledger(a.model)
    need_numbers(b.model)
    if b.model.name != a.model.name and not st_ledger(b.model.name)["holds"].all():
        st.error(f"The ledger of {b.model.name} fails: side B cannot be trusted.", icon=":material/warning:")
    align = state().align
    try:
        pairing = st_pairing(*a.key, *b.key, align)
    except VisitError as problem:
        st.info(f"{problem} The alignment is shown uncorrected.", icon=":material/link:")
        align, pairing = "", st_pairing(*a.key, *b.key, "")
    two = Two(a, b, pairing, align)
    token_pairs(
        pairing, (a.acts.tokens, b.acts.tokens), (_control(a), _control(b)), (a.pos, b.pos), bool(align),
        partial(_pick, two), partial(_fix, two),
        lambda: change(align=""),
    )  # fmt: skip
    st.caption(
        "Both prompts token by token; each column is a pair. Violet: another token on the other side; dashed: a token "
        "that only one prompt has. Click a token to look at the predictions after it."
    )
    return two


def _control(subject: Subject) -> frozenset[int]:
    """The positions of control tokens."""
    from visit.models.tokens import special_ids

    special = special_ids(subject.model.tokenizer)
    return frozenset(i for i, token in enumerate(subject.acts.token_ids) if token in special)


def _about(model: Any) -> str:
    """A side's model, where the two sides have different ones."""
    table = st_ledger(model.name)
    holds = "exact" if bool(table["holds"].all()) else "NOT exact"
    name = plain(title(model.name))
    return (
        f"{name}: {model.n_layers} blocks × {model.n_heads} heads, ledger {holds} ({table['max_rel_error'].max():.0e})"
    )


def _tools() -> None:
    with st.container(horizontal=True, vertical_alignment="bottom"):
        st.selectbox(
            "Presets", list(presets(state().model == MINI)), index=None, placeholder="Try a pair…", key="preset",
            on_change=_take_preset,
            width=300,
        )  # fmt: skip
        st.button("Swap A and B", icon=":material/swap_horiz:", on_click=_swap)
        st.button("Copy A to B", icon=":material/content_copy:", on_click=_copy)
        names = list(dict.fromkeys(["", *LISTED, state().model_b]))
        st.selectbox(
            "Model of B", names, format_func=lambda n: title(n) if n else "the same as A", width=260,
            accept_new_options=not is_hosted(), help="Another model for side B: a distilled, a fine-tuned one. "
            "The alignment is then by token, or by character where the tokenizers differ.", **field("model_b"),
        )  # fmt: skip
    look = st.session_state.get("visit_look", {}).get((state().prompt, state().prompt_b))
    if look:
        st.info(look, icon=":material/lightbulb:")


@st.cache_resource(show_spinner=False)
def presets(mini: bool) -> dict[str, dict[str, str]]:
    """label → a row of the list of pairs: visit-mini's own, or the one for real models."""
    file = Path(visit.__file__).parent / "data" / ("visit-mini/presets.csv" if mini else "presets.csv")
    with file.open(encoding="utf-8", newline="") as rows:
        return {row["label"]: {k: v or "" for k, v in row.items()} for row in csv.DictReader(rows)}


_FRESH = {"pos": -1, "pos_b": -1, "node": "", "detail": "", "pin": "", "align": ""}


def _take_preset() -> None:
    label = st.session_state["preset"]
    if label is not None:
        row = presets(state().model == MINI)[label]
        taken = {name: row[name] for name in row if name not in ("label", "look")}
        change(**{**_FRESH, **taken})
        st.session_state["visit_look"] = {(row["prompt"], row["prompt_b"]): row["look"]}
        st.session_state["preset"] = None


def _swap() -> None:
    now = state()
    there = {name: getattr(now, f"{name}_b") for name in _SIDES}
    back = {f"{name}_b": getattr(now, name) for name in _SIDES}
    models = {"model": now.model_b, "model_b": now.model} if now.model_b else {}
    change(**{**_FRESH, **there, **back, **models})


def _copy() -> None:
    change(**{**_FRESH, **{f"{name}_b": getattr(state(), name) for name in _SIDES}, "pos": state().pos})


def _end(subject: Subject, pos: int) -> int:
    """A position as the address holds it: the last one as −1."""
    return -1 if pos == len(subject.acts.token_ids) - 1 else pos


def _pick(two: Two, side: str, pos: int) -> None:
    partner = (two.pairing.to_b if side == "a" else two.pairing.to_a).get(pos)
    a, b = (pos, partner) if side == "a" else (partner, pos)
    values: dict[str, Any] = {"node": ""}
    if a is not None:
        values["pos"] = _end(two.a, a)
    if b is not None:
        values["pos_b"] = _end(two.b, b)
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


def answers(two: Two) -> None:
    """Both sides' answers on both sides, and the sentences."""
    from visit.analyses.graph_difference import answers as standings
    from visit.exact.question import Question
    from visit.graph.prune import Keep
    from visit.narrate.comparison import contrast

    asked = [Question(s.model, s.acts, s.pos, s.target, s.distractor) for s in (two.a, two.b)]
    table = standings(*asked)
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
    if (why := why_apart(two)) is not None:
        st.info(why, icon=":material/info:")
        return
    about = two.a.about, two.b.about
    with st.spinner("Comparing every state and every head of the two runs…"):
        opened = tuple(layer for layer, level in st_opened(None, *about).items() if level != "states")
        found = st_compare(*about, None, Keep(), Keep(), two.align, opened)
        singles = st_single_parts(*about, two.align)
        parting = _all_parting(two)
    sentences(contrast(found, parting, singles), "contrast", graphs.select)


def _all_parting(two: Two) -> Any:
    """The parting map of all pairs, or, of long prompts, of those that the map shows."""
    count = len(two.pairing.pairs)
    first, last = (0, count) if count <= ALL else _window(two)
    return st_parting(*two.keys, first, last)


_LOGIT = (
    "The word's logit minus the mean over all words: a logit itself means nothing, as a constant added to all of "
    "them changes no probability."
)


def why_apart(two: Two) -> str | None:
    """Why the two models have no difference graph; None if they have one."""
    from visit.analyses.graph_difference import shape, unlike

    return unlike(shape(two.a.model), shape(two.b.model), two.a.model.name, two.b.model.name)


# ---- where do they part? ---------------------------------------------------------------------------------------------


def _window(two: Two) -> tuple[int, int]:
    """The pairs that the map shows: all, or those around the positions looked at."""
    count = len(two.pairing.pairs)
    if count <= COLUMNS:
        return 0, count
    here = next((n for n, p in enumerate(two.pairing.pairs) if p.a == two.a.pos), count - 1)
    if st.session_state.get("apart_for") != (two.keys, here):
        st.session_state["apart_for"] = (two.keys, here)
        st.session_state["apart_first"] = min(count - COLUMNS, max(0, here - COLUMNS + 1))
    first = int(st.session_state["apart_first"])
    return first, first + COLUMNS


def parting(two: Two) -> None:
    """Layers × aligned positions: how far the two runs are apart; a click takes the graphs there."""
    from visit.analyses.divergence import MEASURES, first_parting

    st.subheader("Where do they part?", anchor=False, help=explain("parting map"))
    if two.a.model.n_layers != two.b.model.n_layers:
        st.caption("The two models have different numbers of layers, so their blocks cannot be laid beside each other.")
        return
    choice: Any = st.segmented_control(
        "Distance", list(MEASURES), format_func=lambda m: MEASURES[m], required=True, wrap=True, **field("apart")
    )
    first, last = _window(two)
    if len(two.pairing.pairs) > COLUMNS:
        st.slider(f"First of {COLUMNS} pairs shown (of {len(two.pairing.pairs)})", 0, len(two.pairing.pairs) - COLUMNS,
                  key="apart_first")  # fmt: skip
        first, last = int(st.session_state["apart_first"]), int(st.session_state["apart_first"]) + COLUMNS
    table = st_parting(*two.keys, first, last)
    if table.empty or table[choice].isna().all():
        st.caption(
            f"No pair of tokens here has this distance ({MEASURES[choice]}): choose another distance or alignment."
        )
        return
    cell = first_parting(table, measure=choice)
    chart = figures.parting_map(table, choice, two.a.pos, None if cell is None else (cell["pair"], cell["depth"]))
    with st.container(height=figures.map_height(two.a.model.n_layers), border=False):
        st.altair_chart(
            chart, width=figures.map_width(table["pair"].nunique()), key="apart_map", selection_mode="cell",
            on_select=lambda: _take_cell(two),
            alt="How far the two runs are apart after every block at every pair of tokens",
        )  # fmt: skip
    st.caption(_MAP_CAPTIONS[choice] + " Framed: where the runs first part. Read a column upwards; "
               "click a cell to open its block in both graphs.")  # fmt: skip


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


def _take_cell(two: Two) -> None:
    chosen = st.session_state["apart_map"]["selection"].get("cell") or []
    if chosen:
        a, b, depth = (int(chosen[0][name]) for name in ("pos_a", "pos_b", "depth"))
        node = "L0.resid_pre" if depth == 0 else f"L{depth - 1}.resid_post"
        change(pos=_end(two.a, a), pos_b=_end(two.b, b), detail=f"{max(0, depth - 1)}w", node=node)


# ---- the lower half of the compare page ------------------------------------------------------------------------------
def both_graphs(two: Two) -> None:
    """Both flow graphs, or their difference, with the controls of what is drawn and the table of changes."""
    st.subheader("The flows", anchor=False, help=explain("residual stream") + " " + explain("contribution"))
    _both(two.a.about, two.b.about, two.align, why_apart(two) is None)


@st.fragment
def _both(a: About, b: About, align: str, alike: bool) -> None:
    """Controls and drawings: a fragment, so that a selection runs nothing above it. Takes keys only."""
    with shown_errors():
        keep, layers = graphs.controls(), graphs.chosen_layers()
        if alike:
            _compared(a, b, align, layers, keep)
        else:
            _side_by_side(a, b, layers, keep)
    write_url()


def _compared(a: About, b: About, align: str, layers: tuple[int, ...] | None, keep: Any) -> None:
    from visit.drawing.pair import both_data, difference_data

    with st.spinner("Reading the words of both flows…"):
        found, shown, whole = _found(a, b, align, layers, keep)
    view: Any = st.segmented_control(
        "View", ["graphs", "difference"], required=True, label_visibility="collapsed",
        format_func=lambda v: {"graphs": "Two graphs", "difference": "The difference, B − A"}[v], **field("view"),
    )  # fmt: skip
    st.session_state["visit_levels"] = shown
    now: Any = state()
    look = {"width_by": now.width, "sort_by": now.sort, "parts": now.parts}
    node = state().node or None
    if view == "difference":
        graphs.show(difference_data(found, shown, selected=node, actions=True, **look), "flow_difference")
    else:
        data = both_data(found, shown, selected=node, actions=True, color_by=now.color, **look)
        with graphs.beside("graphs"):
            for column, side, one in zip(st.columns(2, gap="small"), ("a", "b"), data, strict=True):
                with column:
                    st.markdown(f"**{side.upper()}** {plain(_heading(found, side))}")
                    graphs.show(one, f"flow_{side}", partial(_common, found, side), "" if side == "a" else "_b")
    _explain(found, view)
    _changes(found)
    graphs.downloads(lambda kind: _file(whole(), shown, look, kind), "compare")


def _found(
    a: About, b: About, align: str, layers: tuple[int, ...] | None, keep: Any
) -> tuple[Any, dict[int, Any], Callable[[], Any]]:
    """The comparison with the kept, hidden and selected nodes of both sides, its levels, and how to get all of it."""
    shown = _levels(a, b, layers)

    def build(node: str, whole: bool = False) -> Any:
        pins = [_pins(side, keep.pin, node, a, b, align, tuple(shown)) for side in ("a", "b")]
        keeps = replace(keep, pin=pins[0]), replace(keep, pin=pins[1])
        opened = None if whole else tuple(layer for layer, level in shown.items() if level != "states")
        return st_compare(a, b, layers, keeps[0], keeps[1], align, opened)

    node = state().node
    layer = graphs.layer_of(node) if node else None
    found = build("" if shown.get(layer) == "states" else node)  # type: ignore[arg-type]
    absent = shown.get(layer) == "states" and node not in set(found.nodes["id"])  # type: ignore[arg-type]
    if absent and any(_pins(side, (), node, a, b, align, tuple(shown)) for side in ("a", "b")):
        shown = {**shown, layer: "words"}  # type: ignore[dict-item]
        found = build(node)
    return found, shown, partial(build, node, True)


def _levels(a: About, b: About, layers: tuple[int, ...] | None) -> dict[int, Any]:
    default = st_opened(layers, a, b)
    return levels(state().detail, list(default), default)


def _pins(
    side: Any, kept: tuple[str, ...], node: str, a: About, b: About, align: str, drawn: tuple[int, ...]
) -> tuple[str, ...]:
    """The kept and hidden nodes and the selected one under their names on one side, as far as it has them."""
    from visit.analyses.graph_difference import own_id
    from visit.graph.draft import is_pin

    pairing, about = st_pairing(a[0], a[1], b[0], b[1], align), a if side == "a" else b
    wanted = [*kept, *([node] if node else [])]
    own = [(p.startswith("-"), own_id(p.removeprefix("-"), side, pairing)) for p in wanted]
    model, pos = st_model(a[0]), about[2]
    pins = tuple(("-" if hide else "") + i for hide, i in own if i and is_pin(model, i, list(drawn), pos))
    return tuple(p for p in dict.fromkeys(pins) if _adds(p))


def _adds(pin: str) -> bool:
    """Whether a pin changes the graph: states, norms and sums are always there."""
    return any(part in pin for part in (".head", ".mlp_value", ".mlp_key", ".attn_neuron")) and ".rest" not in pin


def _common(found: Any, side: Any, node: str) -> str:
    from visit.analyses.graph_difference import common_id

    return common_id(node, side, found.pairing)


def _heading(found: Any, side: str) -> str:
    """A side's prompt, and its model where the two sides have different ones."""
    meta = found.meta if side == "a" else found.meta["b"]
    name = "" if found.meta["model"] == found.meta["b"]["model"] else title(meta["model"]) + ": "
    return name + visible(meta["prompt"][:200]) + (" (as a chat message)" if meta.get("chat") else "")


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
    folded = len(found.meta["layers"]) - len(found.a.meta["opened"])
    less = " Folded blocks stand with their states and largest heads until they are unfolded." if folded else ""
    st.caption(f"{how} {'; '.join(parts)}.{less}")


def _side_by_side(a: About, b: About, layers: tuple[int, ...] | None, keep: Any) -> None:
    """Two graphs of models of different shape: nothing corresponds, so each is drawn for itself."""
    from visit.drawing.draw import flow_data

    now: Any = state()
    with graphs.beside("graphs"):
        for column, side, about in zip(st.columns(2, gap="small"), "ab", (a, b), strict=True):
            with column:
                shown_layers = layers
                count = st_model(about[0]).n_layers
                if layers is not None and max(layers) >= count:
                    st.caption(f"{about[0]} has {count} blocks; all of them are shown.")
                    shown_layers = None
                detail = st_opened(shown_layers, about)
                opened = tuple(layer for layer, level in detail.items() if level != "states")
                graph = st_graph(*about[:3], shown_layers, *about[3:], replace(keep, pin=()), opened)
                look = {"width_by": now.width, "color_by": now.color, "sort_by": now.sort, "parts": now.parts}
                st.markdown(f"**{side.upper()}** {plain(title(about[0]))}")
                graphs.show(flow_data(graph, detail, **look), f"flow_{side}")


_CHANGE_COLUMNS = ["component", "status", "word_a", "word_b", "rank_a", "rank_b", "contribution_a", "contribution_b",
                   "difference"]  # fmt: skip


def _changes(found: Any) -> None:
    """The parts that change most; a chosen row selects its node in the graphs."""
    table = found.tables["changes"].head(500)
    shown = table[_CHANGE_COLUMNS].assign(
        word_a=[_word(w) for w in table["word_a"]], word_b=[_word(w) for w in table["word_b"]],
        status=[_STATUS[s] for s in table["status"]],
    )  # fmt: skip
    number = partial(st.column_config.NumberColumn, format="%+.3f")
    st.markdown("**The largest changes**", help="Every part that adds to the stream, by how much its contribution "
                "differs between the two sides. " + explain("contribution"))  # fmt: skip
    st.dataframe(
        shown, hide_index=True, height=300, key="changes", selection_mode="single-row", placeholder="–",
        on_select=partial(_take_change, table["id"].tolist()),
        column_config={
            "component": "Part", "status": st.column_config.TextColumn("The pruning keeps it", help=_KEPT),
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


_KEPT = ("How much of each sum is shown is chosen above. A part that only one side's pruning keeps exists on the other "
         "side as well, and its numbers stand here.")  # fmt: skip
_STATUS = {"only A": "in A alone", "only B": "in B alone", "word": "in both, another word", "alike": "in both, alike"}


def _word(word: Any) -> str:
    return visible(word) if isinstance(word, str) else "absent"


def _take_change(ids: list[str]) -> None:
    rows = st.session_state["changes"]["selection"]["rows"]
    if rows and rows[0] < len(ids):
        graphs.select(ids[rows[0]])


def _file(found: Any, shown: Any, look: dict[str, Any], kind: str) -> bytes | str:
    from visit.files import flow_page as export
    from visit.files import tables

    if kind == "json":
        return tables.to_json(found.meta, found.tables)
    if kind == "zip":
        return tables.to_zip(found.meta, found.tables)
    return export.difference_file(found, kind, shown, **look)
