"""The flow graph of one position: `flowgraph` holds its records and their tables, `prune` says how much is shown,
`blocks` drafts one block's nodes and edges, `build` the whole graph and its numbers.
"""
