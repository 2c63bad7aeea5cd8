"""How much of a run is recorded, and about how long that takes."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from visit.activations.record import Activations
    from visit.models.model import Model

MEMORY_HEADS = 64  # whose memory is recorded, by the size of their contribution
LIVES = 512  # heads of a model: with more, what a token is remembered as in all of them is left out
WORDS_OF_A_VECTOR = 5  # of memory tables: pages show four
NEURONS = 30  # of a layer, as the page lists
REST = 1.2  # times what `recording_seconds` times: the graph, the stream, the map of heads, packing


def recording_seconds(model: Model, acts: Activations, pos: int, target: int) -> float:
    """About how many seconds `save_recording` of a pass takes here, without effects: one step of each kind is timed.

    Source: ours.
    """
    from visit.analyses.attention_memory import head_memory, head_summary, value_life
    from visit.analyses.neurons import active_neurons
    from visit.analyses.norms import norm_sites, token_shift

    layer, heads, sites = model.n_layers // 2, model.n_layers * model.n_heads, norm_sites(model)
    site, norm = sites[len(sites) // 2]
    started = time.perf_counter()
    head_memory(model, acts, layer, 0, pos, target, k=WORDS_OF_A_VECTOR)
    head_summary(model, acts, layer, 0, pos, target)
    memory = time.perf_counter()
    value_life(model, acts, 0, target, pos=pos)
    life = time.perf_counter()
    token_shift(model, acts, site, norm, pos, target)
    shift = time.perf_counter()
    active_neurons(model, acts, layer, pos, top=NEURONS, target=target)
    neurons = time.perf_counter()
    seconds = (memory - started) * min(MEMORY_HEADS, heads) + (life - memory) * (pos + 1 if heads <= LIVES else 0)
    return REST * (seconds + (shift - life) * len(sites) + (neurons - shift) * model.n_layers)
