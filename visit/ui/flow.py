"""The parts of the flow page: the reading in sentences, the lens map, the graph with its controls."""

from __future__ import annotations

from dataclasses import replace
from functools import cache, partial
from typing import Any

import streamlit as st

from visit import figures
from visit.errors import VisitError
from visit.glossary import explain
from visit.permalink import CHOICES, amount, level_text, levels
from visit.ui.cached import st_graph, st_lens_map, st_model, st_story
from visit.ui.shell import Subject
from visit.ui.state import change, field, shown_errors, state, write_url
from visit.words import visible

_FIELD = 172  # width of a control, px: they wrap into a second line where the page is narrow
COLUMNS = 14  # positions of the lens map on screen at once; a longer prompt is paged
_LEVELS = ("states", "words", "everything")

_STORY_JS = """
export default function ({ data, parentElement, setTriggerValue }) {
  const root = parentElement.querySelector('.story');
  root.replaceChildren(...data.sentences.map((pieces) => {
    const line = document.createElement('p');
    for (const [text, id] of pieces) {
      const part = document.createElement(id ? 'button' : 'span');
      part.textContent = text;
      if (id) { part.title = 'Show ' + id + ' in the graph'; part.onclick = () => setTriggerValue('pick', id); }
      line.append(part);
    }
    return line;
  }));
}
"""
_STORY_CSS = """
.story { font-family: var(--st-font); color: var(--st-text-color); font-size: 1.05rem; line-height: 1.6;
  border-left: 3px solid var(--st-primary-color); padding-left: 0.9rem; }
p { margin: 0 0 0.25rem; }
span { white-space: pre-wrap; }
button { all: unset; cursor: pointer; color: var(--st-primary-color); font-weight: 600;
  border-bottom: 1px dotted currentColor; }
button:hover { border-bottom-style: solid; }
button:focus-visible { outline: 2px solid var(--st-primary-color); outline-offset: 2px; }
"""


@cache
def _components() -> tuple[Any, Any]:
    make = st.components.v2.component
    story = make("visit_story", html="<div class='story'></div>", css=_STORY_CSS, js=_STORY_JS)
    return story, make("visit_flow", **_source())


def _source() -> dict[str, Any]:
    from visit.drawing import component_source

    return dict(component_source())


# ---- the reading -----------------------------------------------------------------------------------------------------


def reading(subject: Subject) -> None:
    """Computed sentences; each underlined part selects its node."""
    sentences = st_story(*subject.key, subject.pos, subject.target, subject.distractor)
    story, _ = _components()
    story(
        key="story",
        data={"sentences": [[list(piece) for piece in sentence] for sentence in sentences]},
        on_pick_change=lambda: _select(st.session_state["story"]["pick"]),
    )


def _select(node: str | None) -> None:
    """Select a node and open its block, so that it is drawn."""
    if not node:
        return
    shown = dict(st.session_state.get("visit_levels", {}))
    layer = _layer(node)
    if layer is not None and shown.get(layer, "states") == "states":
        change(node=node, detail=level_text({**shown, layer: "words"}))
    else:
        change(node=node)


def _layer(node: str) -> int | None:
    number = node[1:].split(".")[0]
    return int(number) if node.startswith("L") and number.isdigit() else None


# ---- the lens map ----------------------------------------------------------------------------------------------------


def lens_map(subject: Subject) -> None:
    """Layers × positions: the top word of every state, a click picks position and block."""
    count = len(subject.acts.token_ids)
    target = visible(subject.model.vocabulary[subject.target])
    st.subheader("The stream, read after every block", anchor=False, help=explain("lens map"))
    names = {"target": f"probability of {target}", "rank": f"rank of {target}", "top": "probability of the top word"}
    color: Any = st.segmented_control(
        "Colour", list(names), format_func=lambda c: _plain(names[c]), default="target", required=True, key="map_color",
        wrap=True,
    )  # fmt: skip
    first = 0
    if count > COLUMNS:
        last_start = count - COLUMNS
        if st.session_state.get("map_for") != (subject.key, subject.pos):
            st.session_state["map_for"] = (subject.key, subject.pos)
            st.session_state["map_first"] = min(last_start, max(0, subject.pos - COLUMNS + 1))
        first = st.slider(f"First of {COLUMNS} positions shown (of {count})", 0, last_start, key="map_first")
    table = st_lens_map(*subject.key, subject.target, tuple(range(first, min(count, first + COLUMNS))))
    chart = figures.lens_map(table, subject.pos, subject.model.d_vocab, color)
    with st.container(height=figures.map_height(subject.model.n_layers), border=False):  # scrolls where it is narrow
        st.altair_chart(
            chart, width="content", key="map", on_select=lambda: _take_cell(count), selection_mode="cell",
            alt="The top word of the residual stream after every block at every position",
        )  # fmt: skip
    st.caption(
        "Each cell is the residual stream at one position (column) after one block (row, upwards), passed through the "
        "final norm and the unembedding: the word it reads. The stronger the colour, the closer the stream is to "
        f"“{_plain(target)}” there. Read a column upwards to see an answer form; click a cell to open its block below."
    )


def _take_cell(count: int) -> None:
    chosen = st.session_state["map"]["selection"].get("cell") or []
    if not chosen:
        return
    pos, depth = int(chosen[0]["pos"]), int(chosen[0]["depth"])
    node = "L0.resid_pre" if depth == 0 else f"L{depth - 1}.resid_post"
    change(pos=-1 if pos == count - 1 else pos, detail=f"{max(0, depth - 1)}w", node=node)


def _plain(text: str) -> str:
    """Text in a label or caption, where Markdown's signs would be read as such."""
    return "".join(f"\\{c}" if c in "\\`*_{}[]<>#|~:$^=&" else c for c in text)


# ---- the graph -------------------------------------------------------------------------------------------------------


def graph(subject: Subject) -> None:
    """The flow graph of the chosen blocks, with the controls of what is drawn."""
    st.subheader("The flow", anchor=False, help=explain("residual stream") + " " + explain("contribution"))
    _graph(*subject.key, subject.pos, subject.target, subject.distractor)


@st.fragment
def _graph(name: str, prompt: str, pos: int, target: int, distractor: int | None) -> None:
    """Controls and drawing: a fragment, so that a selection or a control runs nothing above it. Takes keys only."""
    from visit.draft import is_pin

    with shown_errors():
        keep, layers = _controls(), _layers()
        model = st_model(name)
        drawn = list(range(model.n_layers)) if layers is None else list(layers)
        pins = tuple(p for p in keep.pin if is_pin(model, p, drawn, pos))
        if len(pins) < len(keep.pin):
            st.caption(
                f"{len(keep.pin) - len(pins)} kept or hidden nodes do not exist here (other blocks or positions)."
            )
        built = st_graph(name, prompt, pos, layers, target, distractor, replace(keep, pin=pins))
        node = state().node
        if node not in set(built.nodes["id"]) and is_pin(model, node, drawn, pos):  # chosen above, but pruned
            built = st_graph(name, prompt, pos, layers, target, distractor, replace(keep, pin=(*pins, node)))
        _draw(built)
    write_url()


def _controls() -> Any:
    """Basic controls in one line, the rest under "More". Returns the `Keep`."""
    from visit.keep import Keep

    with st.container(horizontal=True, vertical_alignment="bottom"):
        st.text_input("Blocks", placeholder="all", help=explain("layers"), width=_FIELD, **field("layers"))
        st.text_input("Heads per block", help=explain("keep"), width=_FIELD, **field("heads"))
        st.text_input("Values per head", help=f"{explain('value')} {explain('keep')}", width=_FIELD, **field("values"))
        st.text_input(
            "Neurons per block", help=f"{explain('mlp_value')} {explain('keep')}", width=_FIELD, **field("neurons")
        )
        st.selectbox("Keep largest by", CHOICES["by"], help=explain("keep by"), width=_FIELD, **field("by"))
        more = st.popover("More")
    with more:
        st.text_input("W_O neurons per block", help=f"{explain('attn_neuron')} {explain('keep')}", **field("rows"))
        st.selectbox("Fill of a node", CHOICES["color"], format_func=_of_target, **field("color"))
        st.selectbox("Width of an edge", CHOICES["width"], help=explain("contribution"), **field("width"))
        st.selectbox("Order of heads and neurons", CHOICES["sort"], **field("sort"))
        st.selectbox("Parts drawn", CHOICES["parts"], **field("parts"))
        pins = [p for p in state().pin.split(",") if p]
        if pins and st.button(f"Undo {len(pins)} kept or hidden nodes", width="stretch"):
            change(pin="")
            st.rerun()
    return Keep(
        heads=_amount("heads"), values=_amount("values"), attn_neurons=_amount("rows"), mlp_neurons=_amount("neurons"),
        by=state().by, pin=tuple(p for p in state().pin.split(",") if p),  # type: ignore[arg-type]
    )  # fmt: skip


def _of_target(name: str) -> str:
    return "entropy" if name == "entropy" else f"{name} of the target"


def _amount(name: str) -> Any:
    """A pruning field's amount; one that cannot be read is said beside the controls, and the default is taken."""
    try:
        return amount(getattr(state(), name))
    except VisitError as problem:
        default = {"heads": None, "values": 2}.get(name, 12)
        st.warning(f"{problem}. Shown instead: {'all' if default is None else default}.", icon=":material/edit:")
        return default


def _layers() -> tuple[int, ...] | None:
    from visit.graph import parse_layers

    text = state().layers.strip().lower()
    if text in ("", "all"):
        return None
    try:
        return tuple(parse_layers(text))
    except VisitError as problem:
        st.warning(f"{problem} All blocks are shown instead.", icon=":material/edit:")
        return None


def _draw(built: Any) -> None:
    from visit.drawing import default_detail, flow_data

    layers = built.meta["layers"]
    shown = levels(state().detail, layers, default_detail(built))
    st.session_state["visit_levels"] = shown
    selected = state().node or None
    now: Any = state()  # its words were checked when they were read
    data = flow_data(
        built, shown, width_by=now.width, color_by=now.color, sort_by=now.sort, parts=now.parts,
        selected=selected, actions=True,
    )  # fmt: skip
    _, component = _components()
    component(
        key="flow", data=data, default={"selected": selected},
        on_selected_change=lambda: change(node=st.session_state["flow"]["selected"] or ""),
        on_action_change=lambda: _act(st.session_state["flow"]["action"]),
    )  # fmt: skip

    _caption(built)
    _downloads(built, shown)


def _caption(built: Any) -> None:
    drawn, shares = len(built.nodes), built.meta["shares"]
    kept = {
        name: [share for node, share in shares.items() if node.endswith(ending)]
        for name, ending in (("heads", ".attn_out"), ("neurons", ".mlp_out"))
    }
    kept["memory values"] = [share for node, share in shares.items() if ".head" in node]
    parts = [f"{_range(found)} {name}" for name, found in kept.items() if found]
    by = {"norm": "length", "pattern": "attention"}.get(built.meta["keep"]["by"], "contribution")
    st.caption(
        "Every pill is a vector of this one pass and the word it reads (logit lens); what a band carries is added to "
        f"the node it runs into. Kept, by {by}: {', '.join(parts)}; the rest stands in dashed pills, so every sum adds "
        f"up (largest error {built.meta['ledger']['max_rel_error']:.0e}). {drawn:,} nodes; a block's title unfolds it."
    )


def _range(shares: list[float]) -> str:
    low, high = (f"{100 * s:.0f}" for s in (min(shares), max(shares)))
    if low == "100":
        return "all"
    return f"{low} % of the" if low == high else f"{low} to {high} % of the"


def _downloads(built: Any, shown: Any) -> None:
    """Files of what is on screen, made when asked for."""
    from visit import export, tables

    def everything(kind: str) -> bytes | str:
        both = {"nodes": built.nodes, "edges": built.edges}
        if kind == "json":
            return tables.to_json(built.meta, both, flat=True)
        if kind == "zip":
            return tables.to_zip(built.meta, both)
        if kind == "html":
            return export.flow_html(built, shown)
        return export.flow_svg(built, "light", shown) if kind == "svg" else export.flow_png(built, "light", shown)

    with st.popover("Download", icon=":material/download:"):
        for kind, what in _FILES.items():
            st.download_button(
                f"{kind.upper()}: {what}", partial(everything, kind), f"visit-flow.{kind}", on_click="ignore",
                key=f"download_{kind}", width="stretch",
            )  # fmt: skip


_FILES = {
    "html": "a page that works offline",
    "svg": "a drawing",
    "png": "a picture",
    "zip": "nodes and edges as CSV",
    "json": "nodes, edges, provenance",
}


def _act(action: Any) -> None:
    """What the drawing asks Python to do: unfold a block, hide or keep a node."""
    if not isinstance(action, dict):
        return
    shown = dict(st.session_state.get("visit_levels", {}))
    if action.get("do") == "detail" and action.get("layer") in shown:
        layer = action["layer"]
        wanted = action.get("level") or _LEVELS[(_LEVELS.index(shown[layer]) + 1) % 3]
        change(detail=level_text({**shown, layer: wanted}))
    elif action.get("do") in ("hide", "keep") and isinstance(action.get("id"), str):
        sign = "-" if action["do"] == "hide" else ""
        pins = [p for p in state().pin.split(",") if p and p.removeprefix("-") != action["id"]]
        change(pin=",".join([*pins, sign + action["id"]]), node="" if sign else state().node)
