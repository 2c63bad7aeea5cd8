"""Charts (Altair), one module per kind of page, and their export to SVG. The flow graph is no chart: see `drawing`.

`flow_graph` is a Plotly Sankey for notebooks.
"""

from visit.figures.sankey import flow_graph

__all__ = ["flow_graph"]
