"""What every page with a flow graph shares: the controls, the drawing as a component, selection, files."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import cache, partial
from typing import Any

import streamlit as st

from visit.app.address import CHOICES, amount, level_text
from visit.app.state import change, field, state, whole_words
from visit.errors import VisitError
from visit.text.glossary import explain

_FIELD = 172  # width of a control, px: they wrap into a second line where the page is narrow
_LEVELS = ("states", "words", "everything")
_STATES = ("resid_pre", "resid_mid", "resid_post", "attn_out", "mlp_out")  # what a folded block shows of itself


@cache
def flow_component() -> Any:
    """The live drawing (flow.js)."""
    from visit.drawing.draw import component_source

    source: dict[str, Any] = dict(component_source())
    return st.components.v2.component("visit_flow", **source)


_STACKED = """<style>
@media (max-width: 1100px) {
  [class*="st-key-beside_"] [data-testid="stHorizontalBlock"] { flex-direction: column; }
  [class*="st-key-beside_"] [data-testid="stColumn"] { width: 100%; flex: 1 1 auto; }
}
</style>"""


def beside(name: str) -> Any:
    """A container whose columns stand beside each other on a wide page and below each other on a narrow one."""
    st.html(_STACKED)
    return st.container(key=f"beside_{name}")


def show(data: dict[str, Any], key: str, name: Callable[[str], str] = str, side: str = "") -> None:
    """One live drawing. `name`: this drawing's node id → the page's, where several drawings share a selection.

    `side`: "_b" for a drawing of the second prompt.
    """
    if page := st.session_state.pop("visit_open", None):
        st.switch_page(page)

    def selected() -> None:
        chosen = st.session_state[key]["selected"]
        change(node=name(chosen) if chosen else "")

    flow_component()(
        key=key, data=data | {"whole": int(whole_words())}, default={"selected": data["selected"]},
        on_selected_change=selected,
        on_action_change=lambda: act(st.session_state[key]["action"], name, side),
    )  # fmt: skip


def select(node: str | None) -> None:
    """Select a node, show it again if it was hidden, and open its block, so that it is drawn."""
    if not node:
        return
    head = ".".join(node.split(".")[:2])
    pins = [p for p in state().pin.split(",") if p and p not in (f"-{node}", f"-{head}")]
    chosen = {"node": node, "pin": ",".join(pins)}
    shown = dict(st.session_state.get("visit_levels", {}))
    layer = layer_of(node)
    if layer is not None and shown.get(layer, "states") == "states":
        chosen["detail"] = level_text({**shown, layer: "words"})
    change(**chosen)


def layer_of(node: str) -> int | None:
    """The block a node stands in; None for a gap and what follows the last block."""
    number = node[1:].split(".")[0]
    return int(number) if node.startswith("L") and number.isdigit() else None


def controls() -> Any:
    """Basic controls in one line, the rest under "More". Returns the `Keep`."""
    from visit.graph.prune import Keep

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


def chosen_layers() -> tuple[int, ...] | None:
    """The blocks asked for; None = all, also where the field cannot be read, which is said."""
    from visit.graph.build import parse_layers

    text = state().layers.strip().lower()
    if text in ("", "all"):
        return None
    try:
        return tuple(parse_layers(text))
    except VisitError as problem:
        st.warning(f"{problem} All blocks are shown instead.", icon=":material/edit:")
        return None


def downloads(make: Callable[[str], bytes | str], name: str, kinds: Iterable[str] | None = None) -> None:
    """Files of what is on screen, made by `make(kind)` when asked for."""

    with st.popover("Download", icon=":material/download:"):
        for kind in kinds or _FILES:
            what = _FILES[kind]
            st.download_button(
                f"{kind.upper()}: {what}", partial(make, kind), f"visit-{name}.{kind}", on_click="ignore",
                key=f"download_{name}_{kind}", width="stretch",
            )  # fmt: skip


_FILES = {
    "html": "a page that works offline",
    "svg": "a drawing",
    "png": "a picture",
    "zip": "nodes and edges as CSV",
    "json": "nodes, edges, provenance",
}


def act(action: Any, name: Callable[[str], str] = str, side: str = "") -> None:
    """What the drawing asks Python to do: unfold a block, hide or keep a node, open a head's memory."""
    if not isinstance(action, dict):
        return
    shown = dict(st.session_state.get("visit_levels", {}))
    if action.get("do") == "detail" and action.get("layer") in shown:
        layer = action["layer"]
        wanted = action.get("level") or _LEVELS[(_LEVELS.index(shown[layer]) + 1) % 3]
        node = state().node
        inside = wanted == "states" and layer_of(node) == layer and node.split(".")[-1] not in _STATES
        change(
            detail=level_text({**shown, layer: wanted}), **({"node": ""} if inside else {})
        )  # it would open it again
    elif action.get("do") == "memory" and isinstance(action.get("id"), str):
        _open_memory(action["id"], side)
    elif action.get("do") in ("hide", "keep") and isinstance(action.get("id"), str):
        sign = "-" if action["do"] == "hide" else ""
        node = name(action["id"])
        pins = [p for p in state().pin.split(",") if p and p.removeprefix("-") != node]
        change(pin=",".join([*pins, sign + node]), node="" if sign else state().node)


def _open_memory(node: str, side: str) -> None:
    """Open the memory page on a node's head, with the source token of a key or memory value."""
    head, source = ".".join(node.split(".")[:2]), node.split(".")[-1].lstrip("abcdefghijklmnopqrstuvwxyz_")
    source = source if node.count(".") == 2 else ""
    other = {n: getattr(state(), f"{n}_b") for n in ("prompt", "pos", "target", "distractor")} if side else {}
    if side and state().model_b:
        other["model"] = state().model_b
    change(**other, head=head, source=source, node=node)
    st.session_state["visit_open"] = "pages/memory.py"
