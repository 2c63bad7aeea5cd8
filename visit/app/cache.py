"""What a server keeps for all its users: models, passes, and the results of analyses. Bounded, frozen.

An analysis is a function with `kept`: who asks the same, for the same edition of a model, gets the same result. Those
of one pass, of two passes, of heads and of changes are in `cached_flow`, `cached_pairs`, `cached_heads` and
`cached_effects`; a page keeps what it alone asks beside its controls.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable
from contextlib import nullcontext
from functools import cache, wraps
from typing import TYPE_CHECKING, Any, ParamSpec, TypeAlias, TypeVar
from weakref import ref

import streamlit as st
from streamlit.runtime.scriptrunner import get_script_run_ctx

from visit.app.heap import trim_heap
from visit.app.recorded import is_recorded, recorded_answer, recorded_lens, recorded_model, recorded_pass
from visit.app.shared import model_shelf
from visit.cache import Store, Turns, weight
from visit.errors import VisitError
from visit.models.catalog import title
from visit.text.markdown import plain

if TYPE_CHECKING:
    from visit.activations.record import Activations
    from visit.lenses.linear import Found, Lens
    from visit.models.model import Model
    from visit.models.tokens import Message

Prompt: TypeAlias = "str | Message"  # as typed; to be wrapped by the model's chat template
PassKey = tuple[str, Prompt]  # model, prompt
About = tuple[str, Prompt, int, int, int | None]  # model, prompt, position, target, distractor
Seen = tuple[str, bool]  # key of the lens that states are read through (empty: the plain one); whether parts are, too
PLAIN: Seen = ("", False)
P = ParamSpec("P")
R = TypeVar("R")
CROWDED = "More models are in use here at once than fit into memory, so it is read again. It lasts less with fewer."
PASSES_BYTES = 224 << 20  # of captured passes, for all users of one server together: 22 short ones of SmolLM2
RESULTS_BYTES = 96 << 20  # of all other results: a graph of SmolLM2 has 0.5 MB, what thirty look at in a round fits
LEAST_WEIGHT = 1 << 16  # bytes that a result counts for: a story is many small texts
COMPUTE_AT_ONCE = 2  # computations
_DRAWN = ("st_map_rows", "st_ledger_lines")  # made of other results, of a recording as of a model


def st_model(name: str) -> Model:
    """One model for all users; a bounded number stays in memory."""
    return recorded_model(name) if is_recorded(name) else model_shelf().get(name)


def st_model_watched(name: str, place: Any) -> Model:
    """The same, with how far the reading is shown in `place`; it goes on if the visitor leaves meanwhile."""
    short = plain(title(name))
    loading = model_shelf().begin(name)
    why = f" {CROWDED}" if loading.crowded else ""
    while not loading.ended.wait(0.1):
        if loading.before:
            others = f"{loading.before} other model{'s are' if loading.before > 1 else ' is'} read first"
            place.progress(0.0, f"Loading {short}: {others}.{why}")
        elif loading.total:
            share = loading.done / loading.total
            place.progress(share, f"Loading {short}: {loading.done:,} of {loading.total:,} weights are read.{why}")
    place.empty()
    return loading.result()


@st.cache_resource(show_spinner=False)
def turns() -> Turns:
    """Who computes now: a class that asks at once would else need the memory of thirty computations."""
    return Turns(COMPUTE_AT_ONCE, trim_heap, _share_cores)


def _share_cores(asked: int) -> None:
    """A computation has one thread while others are asked for, else all: two that wait for each other cost a tenth."""
    torch = sys.modules.get("torch")  # what imports it takes all
    if torch is not None:
        most = _all_threads()
        torch.set_num_threads(1 if asked > 1 else most)


@cache
def _all_threads() -> int:
    """As many as torch takes before it is told otherwise."""
    import torch

    return torch.get_num_threads()


@st.cache_resource(show_spinner=False)
def _results() -> Store:
    return Store(RESULTS_BYTES, turns())


@st.cache_resource(show_spinner=False)
def _passes() -> Store:
    return Store(PASSES_BYTES, turns(), much=True)


def _waiting(before: int) -> Any:
    if get_script_run_ctx(suppress_warning=True) is None:  # a run of the worker makes its pass again
        return nullcontext()
    return st.spinner(f"Many ask at once: {before} before you.")


def kept(
    weighs: int = LEAST_WEIGHT, spinner: str = "", grows: bool = False, light: bool = False
) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """An analysis whose latest results are kept, for the models as they are now: weights that change make it anew.

    Its parameter `name` is the name of a model, `a` and `b` are tuples that begin with one. All parameters are part of
    the key but those that begin with `_`, and so is each model's edition (`Shelf.edition`). `weighs`: the bytes that a
    result counts for at least; what hides what it holds says so. `grows`: what is filled later is weighed with every
    ask, or a class of thirty would have room for few of them and make them anew with every click. `light`: it is made
    at once, without a turn: a class would else wait as long for each of them as for a graph. Only for what makes no
    pass, and asks for nothing that its page has not asked for just before: it would be computed without a turn, too.
    """

    def keep(analysis: Callable[P, R]) -> Callable[P, R]:
        parameters = inspect.signature(analysis).parameters
        defaults = {name: p.default for name, p in parameters.items() if p.default is not p.empty}
        names, what = list(parameters), f"{analysis.__module__}.{analysis.__qualname__}"

        @wraps(analysis)
        def asked(*args: P.args, **named: P.kwargs) -> R:
            given: dict[str, Any] = {**defaults, **dict(zip(names, args, strict=False)), **named}
            models = [given["name"]] if "name" in given else [given[side][0] for side in ("a", "b") if side in given]
            if models and is_recorded(models[0]):
                return _of_recording(analysis, given)
            editions = tuple(model_shelf().edition(name) for name in models)
            if len(set(models)) == 2:
                model_shelf().together(*models)
            key = what, editions, tuple(given[name] for name in names if name[0] != "_")

            def make() -> tuple[R]:  # in a tuple, for an analysis may find that there is nothing
                with st.spinner(spinner) if spinner else nullcontext():
                    return (analysis(**given),)  # type: ignore[call-arg]

            def size(made: tuple[R]) -> int:
                return max(weighs, weight(made))

            with turns().aside() if light else nullcontext():
                found: tuple[R] = _results().get(key, make, size, _waiting)
            if grows:
                _results().put(key, found, size(found))
            return found[0]

        return asked

    return keep


def _of_recording(analysis: Callable[..., Any], given: dict[str, Any]) -> Any:
    """What an analysis gives for a recording: as it was recorded, or drawn of that."""
    return analysis(**given) if analysis.__name__ in _DRAWN else recorded_answer(analysis.__name__, given)


@kept()
def st_ledger(name: str) -> Any:
    from visit.exact.ledger import model_ledger

    return model_ledger(st_model(name))


@kept()
def st_ledger_lines(name: str) -> str:
    """A line for every identity, as the sidebar of every page tells them."""
    errors = (
        st_ledger(name)
        .groupby(["identity", "name"], as_index=False)
        .agg(error=("max_rel_error", "max"), allowed=("tolerance", "max"), holds=("holds", "all"))
    )
    marks = {True: ":material/check:", False: ":material/close:"}
    return "\n\n".join(
        f"{marks[bool(row['holds'])]} {plain(str(row['name']))}: {row['error']:.0e} (allowed {row['allowed']:.0e})"
        for row in errors.to_dict("records")
    )


def st_capture(name: str, prompt: Prompt) -> Activations:
    """One pass of one prompt, shared by all users who ask for it."""
    if is_recorded(name):
        return recorded_pass(name)  # type: ignore[return-value]
    from visit.activations.forward import capture
    from visit.models.chat import chat_prompt
    from visit.models.tokens import Message

    model = st_model(name)

    def run() -> Activations:
        return capture(model, chat_prompt(model, prompt.text, prompt.system) if isinstance(prompt, Message) else prompt)

    return _passes().get((model_shelf().edition(name), prompt), run, told=_waiting)


def st_pass(name: str, prompt: Prompt) -> tuple[Model, Activations]:
    """A model and its pass, as most analyses begin."""
    return st_model(name), st_capture(name, prompt)


def while_kept(key: PassKey, model: Model, acts: Activations) -> tuple[Callable[[], Model], Callable[[], Activations]]:
    """What gives a model and its pass again, and holds neither: they are made anew when they have left the memory."""
    seen_model, seen_acts = ref(model), ref(acts)
    return lambda: seen_model() or st_model(key[0]), lambda: seen_acts() or st_capture(*key)


# ---- fitted lenses ---------------------------------------------------------------------------------------------------
def st_lens(name: str) -> Found:
    """The lens fitted to a model, shared by all users; the library keeps it in memory."""
    from visit.lenses.linear import find_lens

    return find_lens(st_model(name))


def lens_under(name: str, key: str) -> Lens | None:
    """The lens of a key, None for the plain one."""
    if is_recorded(name):
        return recorded_lens(name) if key else None
    found = st_lens(name) if key else None
    if found is not None and found.key != key:
        raise VisitError(
            "The lens of this model has been fitted anew just now. Look again: all is read through it then."
        )
    return None if found is None else found.lens
