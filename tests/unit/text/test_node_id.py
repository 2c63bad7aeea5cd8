"""A node's name has one grammar: what it says can be read, and written again."""

from __future__ import annotations

import models
import pandas as pd
import pytest

from visit import Keep, build_flow_graph, capture
from visit.graph.flowgraph import Node
from visit.text.node_id import NodeId


@pytest.mark.parametrize("name", models.KINDS)
def test_every_name_in_a_graph_is_read_and_written_again(name):
    model = models.small(name)
    acts = capture(model, [5, 17, 3, 99])
    graph = build_flow_graph(model, acts, layers=[0, 2] if model.n_layers > 2 else None, keep=Keep(heads=2))
    for row in graph.nodes.itertuples():
        found = NodeId.parse(row.id)
        assert found is not None and str(found) == row.id and found.kind == row.kind
        columns = {"head": row.head, "neuron": row.neuron, "layer": row.layer}
        if found.kind in ("key", "value"):
            columns["source_pos"] = row.source_pos
        said = {part: number for part, number in columns.items() if not pd.isna(number) and found.kind != "attn_neuron"}
        assert {part: getattr(found, part) for part in said} == said, row.id


@pytest.mark.parametrize(
    ("name", "term"),
    [("L9.head6.key4", "L9.head6.value4"), ("L9.head6.query", "L9.head6"), ("L9.head6.rest", "L9.head6"),
     ("L9.mlp_key2071.gate", "L9.mlp_value2071"), ("L9.head6.value4", "L9.head6.value4"),
     ("L9.attn_out", "L9.attn_out")],
)  # fmt: skip
def test_a_node_is_kept_or_hidden_with_its_term(name, term):
    assert str(NodeId.parse(name).term) == term


@pytest.mark.parametrize("name", ["L4-6.rest", "L4.rest", "L9.heads.rest", "L9.mlp.rest", "ln_final", "logits",
                                  "L9.head6.value4b", "L9.mlp_key2.up", "embed", "embed.pos3", "L9.block",
                                  "L9.head6.link4", "L9.head6.link4.renormalised", "L9.kv_head2.key4",
                                  "L9.kv_head2.value4", "L9.kv_head2"])  # fmt: skip
def test_rare_names_too(name):
    assert str(NodeId.parse(name)) == name


NONSENSE = """L L9 L9. l9.head6 L9.head L9.head6. L9.head6.value L-1.head6 L٣.head6 L9.resid L9999999.head6 <b> logits.x
    embed.3 embed.pos L9.embed L9.head6.link L9.link4 L9.kv_head L9.kv_head2. L9.kv_head2.link4
    L9.head6.key4.renormalised"""


@pytest.mark.parametrize("name", ["", "L9.head6.value4 ", *NONSENSE.split()])
def test_what_is_no_name_is_none(name):
    assert NodeId.parse(name) is None


def test_a_part_that_adds_nothing_has_no_size():
    zero = {"id": "L0.mlp_value3", "kind": "mlp_value", "norm": 7.0, "coefficient": 0.0}
    fields = {name: zero.get(name) for name in Node._fields if name in zero or name not in Node._field_defaults}
    assert Node(**fields).size == 0.0 and Node(**{**fields, "coefficient": -2.0}).size == 14.0
