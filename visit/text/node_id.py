"""The names of the parts of a pass, one grammar for graphs, pins, edits, comparisons and links: `L9.head6.value4`."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache

_GRAMMAR = re.compile(
    r"""(?P<end>ln_final|logits)
    | (?P<embed>embed) (?: \.pos(?P<embedded>[0-9]{1,6}) )?
    | L(?P<layer>[0-9]{1,6}) (?: -(?P<last>[0-9]{1,6}) )? \.(?P<gap>rest)
    | L(?P<block>[0-9]{1,6})\.
      (?: (?P<state>resid_(?:pre|mid|post)|ln[12]_out|(?:attn|mlp)_(?:out|bias)|block)
        | (?P<sum>heads|mlp)\.rest
        | head(?P<head>[0-9]{1,6})
          (?: \.(?: (?P<of_head>query|rest) | (?P<sourced>key|value)(?P<source>[0-9]{1,6})(?P<only_b>b?)
                 | link(?P<link>[0-9]{1,6})(?:\.(?P<renormalised>renormalised))? ))?
        | kv_head(?P<kv_head>[0-9]{1,6}) (?: \.(?P<shared>key|value)(?P<shared_source>[0-9]{1,6}) )?
        | (?P<neurons>attn_neuron|mlp_value|mlp_key)(?P<neuron>[0-9]{1,6}) (?: \.(?P<input>gate|up) )?
      )""",
    re.VERBOSE,
)
TERMS = ("head", "query", "key", "value", "attn_neuron", "mlp_key", "mlp_value")  # what a sum may leave out
EDITED = (
    "embed",
    "block",
    "link",
    "kv_head",
    "kv_key",
    "kv_value",
)  # no nodes of a graph: named where a pass is edited


@dataclass(frozen=True, slots=True)
class NodeId:
    """What a node's name says. `str` writes the name, `parse` reads it.

    `kind`: the word without layer and number. `part`: of a gated neuron's `mlp_key` "gate" or "up"; of a block's `rest`
    the sum that it belongs to, "heads" or "mlp"; of a `link` that is "renormalised" this word. `last_layer`: where a
    gap ends. `only_b`: in the difference of two graphs, a memory value or key whose source token prompt B alone has.
    `kv_head`: whose key or value all heads of its group share (`L9.kv_head2.key4`, kinds `kv_key` and `kv_value`;
    `L9.kv_head2`, kind `kv_head`, is both of all positions).
    `L9.block` is all that block 9 adds to the stream, `embed` the embedding as it enters the stream, `embed.pos3` that
    of position 3, `L9.head6.link4` the weight with which head 6 attends to position 4.
    """

    kind: str
    layer: int | None = None
    head: int | None = None
    source_pos: int | None = None
    neuron: int | None = None
    part: str = ""
    last_layer: int | None = None
    only_b: bool = False
    kv_head: int | None = None

    @staticmethod
    @lru_cache(maxsize=65536)
    def parse(name: str) -> NodeId | None:
        """The parts of a name; None for what is no name of a node."""
        found = _GRAMMAR.fullmatch(name)
        if found is None:
            return None
        if found["end"]:
            return NodeId(found["end"])
        if found["embed"]:
            return NodeId("embed", source_pos=None if found["embedded"] is None else int(found["embedded"]))
        if found["gap"]:
            return NodeId("rest", int(found["layer"]), last_layer=int(found["last"] or found["layer"]))
        layer, head = int(found["block"]), None if found["head"] is None else int(found["head"])
        if found["sourced"]:
            return NodeId(found["sourced"], layer, head, int(found["source"]), only_b=bool(found["only_b"]))
        if found["link"]:
            return NodeId("link", layer, head, int(found["link"]), part=found["renormalised"] or "")
        if found["kv_head"]:
            source = int(found["shared_source"]) if found["shared"] else None
            kind = f"kv_{found['shared'] or 'head'}"
            return NodeId(kind, layer, source_pos=source, kv_head=int(found["kv_head"]))
        if found["neurons"]:
            return NodeId(found["neurons"], layer, neuron=int(found["neuron"]), part=found["input"] or "")
        kind = found["state"] or found["of_head"] or ("rest" if found["sum"] else "head")
        return NodeId(kind, layer, head, part=found["sum"] or "")

    def __str__(self) -> str:
        if self.layer is None:
            return self.kind if self.source_pos is None else f"{self.kind}.pos{self.source_pos}"
        at = f"L{self.layer}"
        if self.kv_head is not None:
            ending = "" if self.source_pos is None else f".{self.kind.removeprefix('kv_')}{self.source_pos}"
            return f"{at}.kv_head{self.kv_head}{ending}"
        if self.head is not None:
            if self.kind == "head":
                return f"{at}.head{self.head}"
            if self.source_pos is None:
                return f"{at}.head{self.head}.{self.kind}"
            ending = "b" if self.only_b else self.part and f".{self.part}"
            return f"{at}.head{self.head}.{self.kind}{self.source_pos}{ending}"
        if self.neuron is not None:
            return f"{at}.{self.kind}{self.neuron}{self.part and '.' + self.part}"
        if self.kind == "rest" and not self.part:
            return f"{at}.rest" if self.last_layer in (None, self.layer) else f"{at}-{self.last_layer}.rest"
        return f"{at}.{self.part}.rest" if self.part else f"{at}.{self.kind}"

    @property
    def term(self) -> NodeId:
        """The term of a sum by which a node is kept or hidden: a key by its value, a query and a rest by their head."""
        if self.kind in ("key", "mlp_key"):
            return NodeId(self.kind.replace("key", "value"), self.layer, self.head, self.source_pos, self.neuron)
        return (
            NodeId("head", self.layer, self.head) if self.kind in ("query", "rest") and self.head is not None else self
        )


def part_name(name: str) -> str:
    """A node as people write it: L9 H6, L14 N2071, L9 H6 value 4, L9 attention out; what is no node stays as it is."""
    node = NodeId.parse(name)
    if node is None or node.layer is None:
        return name
    whole = {"attn_out": "attention out", "mlp_out": "MLP out", "resid_pre": "stream in", "resid_post": "stream out"}
    if node.head is not None:
        ending = (
            "" if node.kind == "head" else f" {node.kind}{'' if node.source_pos is None else f' {node.source_pos}'}"
        )
        return f"L{node.layer} H{node.head}{ending}"
    if node.neuron is not None:
        return f"L{node.layer} {'N' if node.kind == 'mlp_value' else node.kind + ' '}{node.neuron}"
    return f"L{node.layer} {whole.get(node.kind, name.partition('.')[2].replace('.', ' '))}"
