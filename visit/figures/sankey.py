"""The flow graph for notebooks: a Plotly Sankey whose bands are contributions."""

from __future__ import annotations

from html import escape
from typing import Any

from visit.text.numbers import number
from visit.text.visible import as_word, visible

_TOWARDS, _AWAY = "rgba(11,122,117,0.5)", "rgba(201,87,26,0.5)"


def flow_graph(graph: Any, height: int = 700) -> Any:
    """A flow graph as a Plotly Sankey for notebooks.

    The bands are the edges that carry a contribution (`add` and `residual`); their width is |contribution| in logits,
    so that what flows into a node is what flows out of it as long as nothing works against the target. Blue-green
    pushes towards the target, vermilion away from it. Source: paper section 4; the app's own drawing says more.
    """
    import plotly.graph_objects as go

    edges = graph.edges[graph.edges["kind"].isin(["add", "residual"]) & graph.edges["contribution"].abs().gt(0)]
    used = graph.nodes[graph.nodes["id"].isin({*edges["source"], *edges["target"]})]
    place = {node: i for i, node in enumerate(used["id"])}
    hover = [
        f"{escape(row.id)}<br>{escape(', '.join(map(as_word, row.tokens[:5])))}<br>{row.contribution:+.2f} logits"
        for row in used.itertuples()
    ]
    target = escape(visible(graph.meta["target"]["token"]))
    bands = {
        "source": [place[s] for s in edges["source"]],
        "target": [place[t] for t in edges["target"]],
        "value": edges["contribution"].abs().tolist(),
        "color": [_TOWARDS if c > 0 else _AWAY for c in edges["contribution"]],
        "customdata": [f"{number(c, True)} logits towards {target}" for c in edges["contribution"]],
        "hovertemplate": "%{customdata}<extra></extra>",
    }
    nodes = {
        "label": [escape(as_word(label)) for label in used["label"]],
        "customdata": hover,
        "hovertemplate": "%{customdata}<extra></extra>",
        "color": "#8a929c",
        "pad": 8,
        "thickness": 12,
    }
    title = f"{escape(visible(graph.meta['prompt'][:100]))} → {target}"
    return go.Figure(go.Sankey(node=nodes, link=bands), {"title": {"text": title}, "height": height})
