"""The model takes the place of the recording that stood in for it (visit.app.stand_in), silently where they agree.

1. When the page is drawn and the browser asks again, and not before, a thread imports torch, loads the model and makes
   what the page shows: an import holds up whoever draws.
2. It compares every node of the graph that it reads with the recorded one, by the tolerance of *Check this recording*.
   Where all agree, what was recorded of taken out heads is kept for the model, if the heads that are told check out.
3. The page is drawn anew, once. Where a node differs, it says which, and by how much.
"""

from __future__ import annotations

import threading
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import streamlit as st

from visit.app.cache import PLAIN, About, st_ledger_lines, st_pass, turns
from visit.app.cached_flow import st_graph, st_lens_map, st_opened, st_story
from visit.app.follow import look_again
from visit.app.measuring import st_measuring
from visit.app.recorded import recording_named
from visit.app.sessions import draw_anew, session
from visit.app.stand_in import answered_by, question_of, standing_in, taken_over
from visit.app.widgets import plain
from visit.errors import VisitError, told_panics
from visit.models.catalog import title
from visit.text.node_id import part_name
from visit.text.numbers import percent

if TYPE_CHECKING:
    import pandas as pd

    from visit.files.recording import RecordedRun

LOOK_AGAIN = 0.7  # seconds


@dataclass(eq=False)
class Takeover:
    """A model that takes a recording's place, once for all who look at it; `found`: the nodes that differ."""

    name: str
    begun: threading.Lock = field(default_factory=threading.Lock)
    ended: threading.Event = field(default_factory=threading.Event)
    found: Any = None

    def begin(self) -> None:
        """Start it, unless somebody has. What goes wrong the page says, which asks the model then."""

        def run() -> None:
            try:
                with suppress(VisitError), told_panics("The model's library"), turns().aside():
                    self.found = take_over(self.name)
            finally:
                self.ended.set()

        if self.begun.acquire(blocking=False):
            threading.Thread(target=run, daemon=True, name="takeover").start()


@st.cache_resource(show_spinner=False)
def takeovers() -> dict[str, Takeover]:
    """What a recording's model found when it took over, by the recording's name."""
    return {}


def await_model() -> None:
    """Below the recorded ledger: that the model is loading, and the look whether it is there. Call after the page."""
    if name := session().standing:
        with session().ledger:
            look_again(LOOK_AGAIN, _watch_takeover, name)


def _watch_takeover(name: str) -> None:
    one, model = takeovers().setdefault(name, Takeover(name)), question_of(name).model
    if one.ended.is_set():
        taken_over().add(name)
        session().shown_models["model"] = model
        draw_anew()
    if session().drawn is not None:
        one.begin()
    named = plain(title(model))
    st.caption(f":material/hourglass_top: Shown from a shipped recording of this run; {named} is loading.")


def take_over(name: str) -> pd.DataFrame:
    """Make what the page shows with the model. Returns the nodes that differ, as `check_recording` tells them."""
    import pandas as pd

    model, recording = question_of(name).model, recording_named(name)
    asked = [((model, run.prompt, run.pos, run.target, run.distractor), run) for run in recording.runs]
    table = pd.concat([run.compared(_made_ready(about, run)) for about, run in asked], ignore_index=True)
    if table["holds"].all():
        for about, run in asked:
            _keep_measured(about, run)
    return table[~table["holds"]]


def _made_ready(about: About, run: RecordedRun) -> Any:
    """The graph as the page opens it; with it what else stands on the page is in the cache."""
    from visit.graph.prune import Keep

    st_ledger_lines(about[0])
    st_story(*about, "")
    st_lens_map(*about[:2], about[3], tuple(range(len(run.tokens))), "")
    shown = st_opened(None, about)
    opened = tuple(layer for layer, level in shown.items() if level != "states")
    return st_graph(*about, None, Keep(**run.graph.meta["keep"]), opened, PLAIN, False, opened)


def _keep_measured(about: About, run: RecordedRun) -> None:
    """What was recorded of heads that are taken out, for the model: where those that the sentences name check out."""
    from visit.causal.effects import effects
    from visit.causal.named_heads import named_heads
    from visit.narrate.causes import cause_story

    if "effects" not in set(run.results):
        return
    (model, acts), recorded = st_pass(*about[:2]), run.result("effects")
    named = named_heads(model, acts, recorded)
    nodes, before = named["node"].tolist(), recorded.set_index("node")["d_logit"]
    if not nodes:
        return
    again = effects(model, acts, nodes, run.pos, run.target, run.distractor).set_index("node")["d_logit"]
    if (again - before.loc[nodes]).abs().max() <= run.graph.meta["ledger"]["tolerance"] * before.abs().max():
        st_measuring(*about, "heads").settle((recorded, cause_story(named)))


# ---- what is told of it ----------------------------------------------------------------------------------------------
def tell_difference() -> None:
    """That the recording which stood on this page is not what the model computes here; nothing where it is.

    Call before the page.
    """
    stood = session().stood
    one = takeovers().get(stood)
    if one is None or one.found is None or one.found.empty or standing_in() or answered_by() != stood:
        return
    st.warning(difference_told(one.found), icon=":material/compare_arrows:")


def difference_told(table: pd.DataFrame) -> str:
    """The node that differs most, and by how much, as one sentence and what stands on the page now."""
    worst = table.loc[table["difference"].idxmax()]
    more = f", and {len(table) - 1} more nodes differ" if len(table) > 1 else ""
    if worst["number"] == "word":
        what = f"read “{plain(str(worst['recorded']))}”, and reads “{plain(str(worst['replayed']))}” here"
    else:
        size = percent(float(worst["difference"]))
        what = f"differs in its {worst['number']} by {size} of the largest, with {worst['tolerance']:.0e} allowed"
    return (
        f"The recording that stood here at first is not what this machine computes: {part_name(str(worst['node']))} "
        f"{what}{more}. All that stands here now was computed here."
    )
