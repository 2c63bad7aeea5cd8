"""What every page with a flow graph shares: the controls, the drawing as a component, selection."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import cache
from typing import Any

import streamlit as st

from visit.app import widgets
from visit.app.cache import PLAIN
from visit.app.cached_flow import Layers
from visit.app.edit_list import take_out
from visit.app.fields import choice, field
from visit.app.lens_choice import in_list, seen
from visit.app.link_values import amount
from visit.app.recorded import is_recorded, stands_in
from visit.app.sessions import change, draw_anew, is_opened, session, set_opened, shown_position, state
from visit.app.state import CONTROLS, value_of
from visit.errors import NotRecorded, VisitError
from visit.text.glossary import explain
from visit.text.markdown import escaped

_DETAILS = ("states", "words", "everything")  # of a block; in a link each by its first letter
_SHOWN_FOLDED = ("resid_pre", "resid_mid", "resid_post", "attn_out", "mlp_out")  # what a folded block shows of itself


@cache
def flow_component() -> Any:
    """The live drawing (flow.js)."""
    from visit.drawing.draw import component_source

    source: dict[str, Any] = dict(component_source())
    return st.components.v2.component("visit_flow", **source)


def show(
    data: dict[str, Any], key: str, name: Callable[[str], str] = str, side: str = "", meant: Sequence[str] = ()
) -> None:
    """One live drawing. `name`: this drawing's node id → the page's, where several drawings share a selection.

    `side`: "_b" for a drawing of the second prompt. `meant`: nodes that the guide or a lesson points at.
    """
    now = session()
    if now.goto:  # asked for by a callback of this fragment
        goto, now.goto = now.goto, ""
        st.switch_page(goto)
    if now.picked:  # inside the fragment of a drawing; a lesson's question stands outside
        now.picked = False
        draw_anew()

    def selected() -> None:
        chosen = st.session_state[key]["selected"]
        change(node=name(chosen) if chosen else "")
        now.picked = bool(state().lesson)

    graph = state().graph
    look = {"zoom": graph.zoom, "find": graph.find, "traced": graph.traced, "table": is_opened("graph-table")}
    flow_component()(
        key=key, data=data | {"whole": int(state().whole), "meant": list(meant), "look": look},
        default={"selected": data["selected"]}, on_selected_change=selected,
        on_action_change=lambda: act(st.session_state[key]["action"], name, side),
        on_look_change=lambda: _keep_look(st.session_state[key]["look"]),
    )  # fmt: skip


def _keep_look(told: Any) -> None:
    """How a drawing is looked at, as the browser tells it; what the address could not hold is left as it is."""
    for field_name, value in told.items() if isinstance(told, dict) else ():
        if field_name == "table":
            set_opened("graph-table", bool(value))
        elif field_name in ("zoom", "find", "traced"):
            with suppress(ValueError):
                read = CONTROLS[field_name].read(str(value))
                change(**{field_name: CONTROLS[field_name].default if read is None else read})


def picture_file(graph: Any, kind: str, detail: Any, look: dict[str, Any]) -> bytes | str:
    """A flow graph as "html", "svg" or "png"."""
    from visit.files import flow_page

    if kind == "html":
        return flow_page.flow_html(graph, detail, **look)
    return (flow_page.flow_svg if kind == "svg" else flow_page.flow_png)(graph, "light", detail, **look)


def check_influence(built: Any) -> None:
    """Raise `NotRecorded` where a drawing asks for influence and the recorded graph has none."""
    if state().graph.influence and "influence" not in built.meta:
        raise NotRecorded("Influence was not recorded with this graph: choose another fill, width and order.")


def select(node: str | None) -> None:
    """Select a node, show it again if it was hidden, and open its block, so that it is drawn."""
    if not node:
        return
    head = ".".join(node.split(".")[:2])
    chosen = {"node": node, "pin": ",".join(p for p in state().graph.pins if p not in (f"-{node}", f"-{head}"))}
    layer, shown = block_of(node), session().levels
    if layer is not None and shown.get(layer, "states") == "states":
        chosen["detail"] = level_text({**shown, layer: "words"})
    change(**chosen)


def block_of(node: str) -> int | None:
    """The block a node stands in; None for a gap and what follows the last block."""
    number = node[1:].split(".")[0]
    return int(number) if node.startswith("L") and number.isdigit() else None


def with_meant(shown: dict[int, Any], meant: Sequence[str]) -> dict[int, Any]:
    """The levels of detail at which nodes that are pointed at are drawn; where nobody has chosen, no other is open."""
    blocks = {block_of(node) for node in meant}
    folded = dict.fromkeys(shown, "states") if meant and not state().graph.detail else shown
    return {n: "words" if n in blocks and folded[n] == "states" else level for n, level in folded.items()}


def levels(text: str, layers: Sequence[int], default: Mapping[int, str]) -> dict[int, Any]:
    """The level of detail of every layer: a word for all, `3w,5e` for some (the others folded), empty the default."""
    if not text:
        return dict(default)
    if text in _DETAILS:
        return dict.fromkeys(layers, text)
    named = {detail[0]: detail for detail in _DETAILS}
    opened = {int(part[:-1]): named[part[-1]] for part in text.split(",")}
    return {layer: opened.get(layer, "states") for layer in layers}


def level_text(found: Mapping[int, str]) -> str:
    """The shortest text that `levels` reads back as `found`."""
    kinds = set(found.values())
    if len(kinds) == 1:
        return kinds.pop()
    return ",".join(f"{layer}{level[0]}" for layer, level in sorted(found.items()) if level != "states")


def opened_blocks(shown: Mapping[int, str]) -> tuple[int, ...]:
    """The blocks that a drawing of these levels takes apart."""
    return tuple(layer for layer, level in shown.items() if level != "states")


def controls(models: tuple[str, ...], line: Any = None) -> tuple[Any, Layers]:
    """What is kept and how it is drawn, folded. Returns the `Keep`, and the blocks asked for.

    `models`: those of the graphs, whose lens is chosen here, too; `line`: the section's, where the button stands.
    """
    from visit.graph.prune import Keep

    if is_recorded(models[0]) and not stands_in(models[0]):
        with line or st.container(horizontal=True), widgets.folded(*widgets.FOLDED_CONTROLS, key="graph_controls"):
            st.caption("The graph as it was recorded: other blocks, another pruning or lens need the model.")
            _drawing_controls()
        return Keep(), None
    with line or st.container(horizontal=True), widgets.folded(*widgets.FOLDED_CONTROLS, key="graph_controls"):
        kept, drawn = st.columns(2, gap="medium")
    with kept:
        st.text_input("Blocks", placeholder="all", help=explain("layers"), **field("layers"))
        st.text_input("Heads per block", help=explain("keep"), **field("heads"))
        st.text_input("Values per head", help=f"{explain('value')} {explain('keep')}", **field("values"))
        st.text_input("Neurons per block", help=f"{explain('mlp_value')} {explain('keep')}", **field("neurons"))
        st.text_input("W_O neurons per block", help=f"{explain('attn_neuron')} {explain('keep')}", **field("rows"))
        st.selectbox("Keep largest by", help=explain("keep by"), **choice("by"))
    with drawn:
        in_list(models)
        st.checkbox("Heads and values through it, too", disabled=seen(*models)[0] == PLAIN,
                    help=explain("carried parts"), **field("carried"))  # fmt: skip
        _drawing_controls()
        pins = state().graph.pins
        if pins and st.button(f"Undo {len(pins)} kept or hidden nodes", width="stretch"):
            change(pin="")
            draw_anew()
    keep = Keep(
        heads=_amount_of("heads"), values=_amount_of("values"), attn_neurons=_amount_of("rows"),
        mlp_neurons=_amount_of("neurons"), by=state().graph.by, pin=pins,
    )  # fmt: skip
    return keep, _chosen_blocks()


def _drawing_controls() -> None:
    st.selectbox("Fill of a node", **choice("color"))
    st.selectbox("Width of an edge", help=f"{explain('contribution')} {explain('influence')}", **choice("width"))
    st.selectbox("Order of heads and neurons", **choice("sort"))
    st.selectbox("Parts drawn", **choice("parts"))


def _amount_of(name: str) -> Any:
    """A pruning field's amount; one that cannot be read is said beside the controls, and the default is taken."""
    try:
        return amount(value_of(state(), name))
    except VisitError as problem:
        default = CONTROLS[name].default
        st.warning(f"{escaped(str(problem))}. Shown instead: {default}.", icon=":material/edit:")
        return amount(default)


def _chosen_blocks() -> Layers:
    """The blocks asked for; None = all, also where the field cannot be read, which is said."""
    text = state().graph.layers.strip().lower()
    if text in ("", "all"):
        return None
    from visit.graph.build import parse_layers

    try:
        return tuple(parse_layers(text))
    except VisitError as problem:
        st.warning(f"{escaped(str(problem))} All blocks are shown instead.", icon=":material/edit:")
        return None


def act(action: Any, name: Callable[[str], str] = str, side: str = "") -> None:
    """What the drawing asks Python to do: unfold a block, hide or keep a node, open its memory, take it out."""
    if not isinstance(action, dict):
        return
    shown, wish = session().levels, action.get("do")
    if wish == "detail" and action.get("layer") in shown:
        layer = action["layer"]
        level = action.get("level") or _DETAILS[(_DETAILS.index(shown[layer]) + 1) % 3]
        node = state().graph.node
        inside = level == "states" and block_of(node) == layer and node.split(".")[-1] not in _SHOWN_FOLDED
        change(detail=level_text({**shown, layer: level}), node="" if inside else node)  # it would open it again
    elif wish == "memory" and isinstance(action.get("id"), str):
        _open_memory(action["id"], side)
    elif wish == "without" and isinstance(action.get("id"), str):
        at = str(shown_position(side))
        _look_at(side)
        take_out(action["id"], at)
        session().goto = "pages/whatif.py"
    elif wish in ("hide", "keep") and isinstance(action.get("id"), str):
        sign = "-" if wish == "hide" else ""
        node = name(action["id"])
        pins = [p for p in state().graph.pins if p.removeprefix("-") != node]
        change(pin=",".join([*pins, sign + node]), node="" if sign else state().graph.node)


def _open_memory(node: str, side: str) -> None:
    """Open the memory page on a node's head, with the source token of a key or memory value."""
    head, source = ".".join(node.split(".")[:2]), node.split(".")[-1].lstrip("abcdefghijklmnopqrstuvwxyz_")
    _look_at(side)
    change(head=head, source=int(source) if node.count(".") == 2 and source else None, node=node)
    session().goto = "pages/memory.py"


def _look_at(side: str) -> None:
    """Make what stands on one side of Compare what the other pages are about."""
    fields = ("prompt", "target", "distractor", *(["model"] if state().compare.model_b else [])) if side else ()
    fields = tuple(name for name in fields if name != "prompt" or state().compare.prompt_b)  # else B is a copy of A
    change(**{name: value_of(state(), f"{name}_b") for name in fields}, pos=shown_position(side))
