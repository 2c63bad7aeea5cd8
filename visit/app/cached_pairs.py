"""Two passes as the compare page shows them, kept: how they pair, where they differ, what a patch does."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from visit.app.cache import PLAIN, About, PassKey, Seen, kept, lens_under, st_pass
from visit.app.cached_flow import Layers, nodes_read, st_graph, st_whole_graph

if TYPE_CHECKING:
    from visit.graph.prune import Keep


@kept()
def st_pairing(a: PassKey, b: PassKey, align: str) -> Any:
    from visit.analyses.token_alignment import pair, parse_fixes

    return pair(*st_pass(*a), *st_pass(*b), parse_fixes(align))


@kept()
def st_compare(
    a: About, b: About, layers: Layers, keep: Keep, keep_b: Keep, align: str, opened: tuple[int, ...] | None,
    seen: Seen = PLAIN, seen_b: Seen = PLAIN, influence: bool = False,
) -> Any:  # fmt: skip
    """The difference of two passes in the blocks `opened` (None: all, for files); each side's graph as on its page."""
    from visit.analyses.graph_difference import compare

    graphs = [
        replace(
            st_whole_graph(*side, layers, pruned, read, influence) if opened is None
            else st_graph(*side, layers, pruned, opened, read, influence),
            source=st_pass(*side[:2]), lens=lens_under(side[0], read[0]),
        )
        for side, pruned, read in ((a, keep, seen), (b, keep_b, seen_b))
    ]  # fmt: skip
    found = compare(graphs[0], graphs[1], st_pairing(a[:2], b[:2], align))
    for side, graph, read in ((a, found.a, seen), (b, found.b, seen_b)):
        if opened is not None:  # a twin that came in from the other side is not read again either
            nodes_read(*side[:4], read).add(graph)
    return replace(found, a=replace(found.a, source=None, lens=None), b=replace(found.b, source=None, lens=None))


@kept()
def st_told_sides(a: About, b: About, align: str, lens: str = "", lens_b: str = "") -> Any:
    """What the sentences need of two passes beside `st_single_parts` and `st_parting`: no graph."""
    from visit.analyses.graph_difference import told_sides

    found = told_sides(_question_about(a), _question_about(b), st_pairing(a[:2], b[:2], align),
                       (lens_under(a[0], lens), lens_under(b[0], lens_b)))  # fmt: skip
    return replace(found, a=replace(found.a, lens=None), b=replace(found.b, lens=None))


def _question_about(side: About) -> Any:
    from visit.exact.question import Question

    return Question(*st_pass(*side[:2]), side[2], side[3], side[4])


@kept()
def st_single_parts(a: About, b: About, align: str) -> Any:
    """What heads and neurons of all blocks do on both sides, for the sentences."""
    from visit.analyses.graph_difference import single_parts

    return single_parts(_question_about(a), _question_about(b), st_pairing(a[:2], b[:2], align))


@kept()
def st_parting(
    a: PassKey, b: PassKey, align: str, first: int, last: int, lens: str = "", lens_b: str = ""
) -> Any:  # fmt: skip
    from visit.analyses.divergence import part

    lenses = lens_under(a[0], lens), lens_under(b[0], lens_b)
    return part(*st_pass(*a), *st_pass(*b), st_pairing(a, b, align), slice(first, last), lenses=lenses)


@kept()
def st_patch(
    a: PassKey, b: PassKey, target: int, distractor: int, site: str, at: str, verify: int | None
) -> Any:  # fmt: skip
    """The map of patches of B into A. `verify`: by attribution, with so many measured; None: all measured."""
    from visit.causal.patching import patch

    method, count = ("exact", 0) if verify is None else ("attribution", verify)
    (model, one), (_, other) = st_pass(*a), st_pass(*b)
    return patch(model, one, other, site, at, method, count, target, distractor)  # type: ignore[arg-type]


@kept()
def st_patch_seconds(
    a: PassKey, b: PassKey, target: int, distractor: int, site: str, at: str, verify: int | None = None
) -> float:  # fmt: skip
    """How long that will take here."""
    from visit.causal.cost import patching_seconds
    from visit.causal.patching import PatchingJob
    from visit.causal.two_runs import two_runs

    (model, one), (_, other) = st_pass(*a), st_pass(*b)
    job = PatchingJob.of(two_runs(model, one, other, target, distractor), site, at)  # type: ignore[arg-type]
    return patching_seconds(job, verify)
