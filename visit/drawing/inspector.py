"""What the inspector says about one node: title, readings, numbers, and in one line how it was made.

Made in Python for all shown nodes and sent along with the drawing, so that a click needs no round trip.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache
from typing import Any

from visit.graph.flowgraph import STREAM, FlowGraph, Node, of_attention, rest_share
from visit.text.glossary import explain
from visit.text.numbers import number, percent
from visit.text.visible import QUIET_KINDS, as_word, visible, word_kind

_ADDS_NOTHING = "adds nothing to the stream"
_SILENT = {"ln1_out", "ln2_out", "query", "key", "mlp_key", "ln_final", "logits"}

_TITLES = {
    "resid_pre": "Residual stream before block {layer}",
    "resid_mid": "Residual stream after attention, block {layer}",
    "resid_post": "Residual stream after block {layer}",
    "ln1_out": "Norm before attention, block {layer}",
    "ln2_out": "Norm before the MLP, block {layer}",
    "query": "Query of head L{layer} H{head} at position {pos}",
    "key": "Key of head L{layer} H{head} from position {source_pos} ({source})",
    "value": "Memory value of head L{layer} H{head} from position {source_pos} ({source})",
    "head": "Head L{layer} H{head} at position {pos}",
    "attn_neuron": "Row {neuron} of W_O, block {layer}",
    "attn_bias": "Attention bias, block {layer}",
    "attn_out": "Attention output, block {layer}",
    "mlp_key": "What neuron L{layer} N{neuron} reads",
    "mlp_value": "What neuron L{layer} N{neuron} writes",
    "mlp_bias": "MLP bias, block {layer}",
    "mlp_out": "MLP output, block {layer}",
    "ln_final": "Final norm",
    "logits": "Prediction at position {pos}",
}
LENS = ", read with the final norm and the unembedding"
_NO_LENS = ("ln_final", "logits")  # the model's own reading
_HOWS = {
    "resid_pre": "the stream as it enters the block",
    "resid_mid": "resid_pre + attn_out",
    "resid_post": "the stream as the block leaves it: all that was added so far",
    "ln1_out": "ln1(stream): what queries, keys and values are computed from",
    "ln2_out": "ln2(stream): what the neurons are computed from",
    "query": "q{h} @ W_K[{head}]ᵀ: the direction that this head looks for in a key's input",
    "key": "k{i} @ W_Q[{head}]ᵀ: the direction in a query's input that finds this position",
    "value": "v{i} @ W_O[{head}]: enters the head times the pattern",
    "head": "z{h} @ W_O[{head}]: what head {head} writes into the stream",
    "attn_neuron": "sign(z) · W_O[{neuron}]: one row of W_O (rows inside a head have no preferred basis)",
    "attn_bias": "b_O: the same for every prompt",
    "attn_out": "all heads + b_O: what attention adds to the stream",
    "mlp_key": "W_in[:, {neuron}]: the input direction that this neuron answers to, in every prompt",
    "mlp_key.gate": "W_gate[:, {neuron}]: the input direction that opens this neuron",
    "mlp_value": "sign(a) · W_out[{neuron}]: the direction that this neuron writes",
    "mlp_bias": "b_out: the same for every prompt",
    "mlp_out": "all neurons + b_out: what the MLP adds to the stream",
    "ln_final": "ln_final(stream): the vector that the unembedding is applied to",
    "logits": "softmax(ln_final(stream) @ W_U): the model's own output",
}
_SUBSCRIPTS = str.maketrans("0123456789", "₀₁₂₃₄₅₆₇₈₉")


def inspect(graph: FlowGraph, node_id: str) -> dict[str, Any]:
    """All that the inspector shows of one node.

    Returns a dict of `id`, `title`, `how` (one line), `words` and `bottom` (pairs of visible token and probability),
    `facts` (triples of name, value as text, reason if the value is missing) and `source` (visible token or None).
    Units: probability 0 to 1, entropy in bits, contribution in logits. Raises KeyError for an unknown id.
    """
    entry = entries(graph, [node_id])[0]
    return {
        "id": node_id,
        "title": entry["title"],
        "how": entry["how"] + (LENS if entry["lens"] else ""),
        "words": list(zip(entry["w"], entry["p"], strict=False)),
        "bottom": list(zip(entry["b"], graph.by_id[node_id].bottom_probs or [], strict=False)),
        "facts": [(name, *fact, "")[:3] for name, fact in zip(fact_names(graph), entry["f"], strict=True)],
        "source": entry.get("source"),
    }


def entries(flow: FlowGraph, ids: Iterable[str]) -> list[dict[str, Any]]:
    """The inspector's entries for many nodes, with short keys: they are sent with every drawing.

    `how` goes on with `LENS` where `lens` is 1; `w`, `p`: top tokens and probabilities; `b`: the least probable
    tokens; `k`: what kinds of words `w` and `b` are (`_kind`); `f`: values (with a reason where one is missing) in the
    order of `fact_names`.
    """
    return [_entry(flow, flow.by_id[i]) for i in ids]


def _entry(flow: FlowGraph, node: Node) -> dict[str, Any]:
    names = _name_parts(flow, node)
    entry: dict[str, Any] = {
        "id": node.id,
        "title": node_title(flow, node, names),
        "how": how(flow, node, names) + _carried_by(flow, node),
        "lens": int(node.kind not in _NO_LENS),
        "w": list(map(as_word, node.tokens[:10])),
        "k": "".join(map(_kind, node.tokens[:10] + node.bottom_tokens[:5])),
        "p": list(map(_brief, node.probs[:10])),
        "b": list(map(as_word, node.bottom_tokens[:5])),
        "f": facts(flow, node),
    }
    if node.placeholder:
        name = f"Absent: a {node.kind} of head L{node.layer} H{node.head}"
        entry |= {"title": name, "how": _ABSENT, "lens": 0, "f": [["–", "absent"]] * len(entry["f"])}
    if node.status is not None:
        entry |= _both_sides(flow, node)
    if node.source_token is not None:
        entry["source"] = visible(node.source_token)
    return entry


@lru_cache(maxsize=65536)
def _kind(token: str) -> str:
    """What a token is, as a letter: a whole `w`ord, `q`uiet (white space or bytes, in grey), a `p`iece, a `s`ign."""
    kind = word_kind(token)
    return "q" if kind in QUIET_KINDS else kind[0]


def _both_sides(flow: FlowGraph, node: Node) -> dict[str, Any]:
    """The second column of a node of a difference: `w2`, `p2`, `f2` of side B; `d`: B − A in logits; `kept`."""
    missing = [["–", "absent"]] * len(fact_names(flow))
    b = node.counterpart
    both: dict[str, Any] = {
        "kept": _BY_PRUNING[node.status or ""],
        "w2": [as_word(t) for t in b.tokens[:10]] if b else [],
        "k2": "".join(map(_kind, b.tokens[:10])) if b else "",
        "p2": [_brief(p) for p in b.probs[:10]] if b else [],
        "f2": facts(flow, b) if b else missing,
        "d": _brief(difference(node)),
    }
    if node.only_b:  # A's column is empty
        both |= {"w": [], "p": [], "b": [], "k": "", "f": missing}
    return both


def difference(node: Node) -> float | None:
    """B − A of the contributions of a node with a twin; what is absent adds nothing."""
    a = 0.0 if node.only_b else node.contribution
    b = 0.0 if node.counterpart is None else node.counterpart.contribution
    return None if a is None or b is None else b - a


_ABSENT = "absent: this prompt has no token that stands for the other's, so there is nothing to read"
_BY_PRUNING = {
    "only A": "Kept by the pruning in A alone.",
    "only B": "Kept by the pruning in B alone.",
    "word": "In both, with another top word.",
    "alike": "In both, with the same top word.",
}


def _brief(p: float | None) -> float | None:
    return None if p is None else float(f"{p:.4g}")


def node_title(flow: FlowGraph, node: Node, names: dict[str, Any]) -> str:
    """The node's name in the field's words: `Head L9 H6 at position 12`."""
    if node.kind == "rest":
        return _rest_title(flow, node)
    text = _TITLES.get(node.kind, node.id).format(**names)
    if node.id.endswith((".gate", ".up")):
        text += f" ({node.id.rsplit('.', 1)[-1]})"
    return text


def _rest_title(flow: FlowGraph, node: Node) -> str:
    stem = node.id.removesuffix(".rest")
    if stem.endswith(".heads"):
        what = f"heads of block {node.layer} that are not shown"
    elif stem.endswith(".mlp"):
        what = f"neurons of block {node.layer} that are not shown"
    elif ".head" in stem:
        what = f"memory values of head L{node.layer} H{node.head} that are not shown"
    else:
        what = ("blocks " if "-" in stem else "block ") + stem.lstrip("L").replace("-", " to ") + " that are not shown"
    share = rest_share(flow, node)
    return f"The {what}" + (f": {percent(share)} of the sum" if share is not None else "")


def how(flow: FlowGraph, node: Node, names: dict[str, Any]) -> str:
    """In one line, how the vector that is read was made."""
    if node.kind == "rest":
        return "total − shown"
    kind = "mlp_key.gate" if node.id.endswith(".gate") else node.kind
    if kind == "resid_post" and f"L{node.layer}.resid_mid" in flow.by_id:
        return "resid_mid + mlp_out"
    if kind == "resid_post" and f"L{node.layer}.mlp_out" in flow.by_id:
        return "resid_pre + attn_out + mlp_out"
    return _HOWS.get(kind, "").format(**names)


def _carried_by(flow: FlowGraph, node: Node) -> str:
    """What a fitted lens does to a vector before it is read."""
    lens, last = flow.meta.get("lens"), node.id == f"L{flow.meta.get('n_layers', 0) - 1}.resid_post"
    if lens is None or last:
        return ""
    if node.kind in STREAM:
        return "; carried to the last block by the fitted lens"
    return "; carried by the linear part of the fitted lens" if lens.get("carries_parts") and of_attention(node) else ""


def _name_parts(flow: FlowGraph, node: Node) -> dict[str, Any]:
    number = lambda n: str(n).translate(_SUBSCRIPTS) if n is not None else ""  # noqa: E731
    return {
        "layer": node.layer,
        "head": node.head,
        "neuron": node.neuron,
        "pos": flow.meta.get("position"),
        "source_pos": node.source_pos,
        "source": visible(node.source_token) if node.source_token is not None else "?",
        "h": number(node.head),
        "i": number(node.source_pos),
    }


def fact_names(flow: FlowGraph) -> list[str]:
    """What the numbers of `facts` are, with their units."""
    target = flow.meta.get("target")
    name = visible(target["token"]) if isinstance(target, dict) and target.get("token") is not None else "the target"
    other = (flow.meta.get("b") or {}).get("target")
    if other and target and other["token"] != target["token"]:  # of a difference: each side's own word
        name = f"each side's target ({name} / {visible(other['token'])})"
    return [
        f"rank of {name}",
        f"probability of {name}",
        "entropy in bits",
        "norm",
        "coefficient",
        "contribution in logits",
        *(["influence in logits, to first order"] if "influence" in flow.meta else []),
    ]


def fact_terms(flow: FlowGraph) -> list[str]:
    """What each of `fact_names` means: the glossary's words, shown on hover."""
    terms = ("rank", "probability", "entropy", "norm", "coefficient", "contribution", "influence")
    return [explain(t) for t in terms[: len(fact_names(flow))]]


def facts(flow: FlowGraph, node: Node) -> list[list[str]]:
    """The node's numbers as texts, `[value]`, or `["–", reason]` where one is missing."""
    silent = _ADDS_NOTHING if node.kind in _SILENT else "not given"
    carried = "a state is what was added, not a part" if node.kind in STREAM else silent
    rows = [
        (None if node.rank is None else f"{node.rank:,} of {flow.d_vocab:,}", "no target"),
        (percent(node.prob, fine=True) or None, "no target"),
        (None if node.entropy is None else f"{node.entropy:.2f}", "not given"),
        (None if node.norm is None else f"{node.norm:.4g}", "not given"),
        (None if node.coefficient is None else f"{node.coefficient:.4g}", "none: read as it is"),
        (None if node.contribution is None else number(node.contribution, sign=True), silent),
        (None if node.influence is None else number(node.influence, sign=True), carried),
    ][: len(fact_names(flow))]
    return [["–", reason] if value is None else [value] for value, reason in rows]
