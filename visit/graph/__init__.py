"""The flow graph of one position: `prune` says how much is shown, `blocks` makes one block's nodes and edges, `build`
the whole graph with its tables.
"""
