"""What a page shows as code: the command line that gives its numbers, and the lines of Python that do.

A recipe is made from the state alone (which is what the address holds) and from what the page has chosen where the
state leaves it open: a layer, a head, the lens. It needs no model, so that a page of a recording has it, too.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from visit.app.edit_list import Listed, parse_list
from visit.app.recipe_lines import (
    OWN_SET,
    Lines,
    Looked,
    Recipe,
    arguments,
    call,
    capture_line,
    keep_call,
    keep_words,
    layer_list,
    layers_asked,
    lens_lines,
    load_step,
    model_words,
    not_default,
    prompt_words,
    reprs,
    shell_line,
)
from visit.app.state import Paths, State
from visit.models.catalog import MINI
from visit.runs.prompts import shipped_set

HEADINGS = {  # page → the heading of its notebook
    "flow": "How does the model come to its answer?",
    "compare": "What changes inside the model when the text changes?",
    "whatif": "What would the model say without this part?",
    "trace": "Which states bring the answer back after its subject was made unreadable?",
    "heads": "Over a set of prompts: what does every part add, and what does the answer do without it?",
    "memory": "What does this head look at, and what does it fetch from there?",
    "layernorm": "What does this norm do to the words?",
    "neurons": "Which neurons are active here, and which words do they write?",
    "study": "The paper's figures, on this model and these prompts",
}


def recipe(page: str, now: State, looked: Looked) -> Recipe | None:
    """The recipe of a page as it stands; None for a page that shows no numbers of a model."""
    makers: dict[str, Callable[[State, Looked], tuple[str, list[Lines], str]]] = {
        "flow": _flow_recipe, "compare": _compare_recipe, "whatif": _whatif_recipe, "memory": _memory_recipe,
        "trace": _trace_recipe, "heads": _heads_recipe, "layernorm": _layernorm_recipe,
        "neurons": _neurons_recipe, "study": _study_recipe,
    }  # fmt: skip
    if page not in makers:
        return None
    command, steps, missing = makers[page](now, looked)
    return Recipe(HEADINGS[page], command, tuple(steps), missing)


def _flow_recipe(now: State, looked: Looked) -> tuple[str, list[Lines], str]:
    option, layers = layers_asked(now)
    lens = {"lens": "lens"} if looked.fitted else {}
    carry = {"carry_parts": "True"} if looked.fitted and now.graph.carried else {}
    named = {**({"layers": layers} if layers else {}), **reprs(arguments(now)),
             **({"keep": keep} if (keep := keep_call(now)) else {}), **lens, **carry}  # fmt: skip
    command = shell_line(
        "graph", *model_words(now, looked), *prompt_words(now), ("layers", option), ("lens", "fitted" if lens else ""),
        ("components", "fitted" if carry else ""), *keep_words(now),
    )  # fmt: skip
    target = {"target": repr(now.target)} if now.target else {}
    steps = [
        load_step(now, looked),
        Lines("One forward pass, every vector of it kept.", (capture_line(now, now.prompt), *lens_lines(looked))),
        Lines("What the stream reads after every block.",
             (f"lens_map = {call('visit.lens_map', 'model', 'acts', **target, **lens)}",), ("lens_map",)),
        Lines("The flow graph: every sum adds up, what is not drawn stands in nodes called rest.",
             (f"graph = {call('visit.build_flow_graph', 'model', 'acts', **named)}",), ("graph",)),
    ]  # fmt: skip
    return command, steps, ""


def _compare_recipe(now: State, looked: Looked) -> tuple[str, list[Lines], str]:
    both, option = now.compare, layers_asked(now)
    prompt_b, model_b = both.prompt_b or now.prompt, both.model_b or now.model
    two = model_b != now.model
    lens = {"lens": "lens"} if looked.fitted else {}
    keep, layers = keep_call(now), ({"layers": option[1]} if option[1] else {})
    graphs = []
    for side, name, model in (("", "a", "model"), ("b", "b", "model_b" if two else "model")):
        named = {**layers, **reprs(arguments(now, side)), **({"keep": "keep"} if keep else {}), **lens}
        graphs.append(f"graph_{name} = {call('visit.build_flow_graph', model, f'acts_{name}', **named)}")
    paired, asked = [], []
    if both.align:
        other = "model_b" if two else "model"
        paired = [
            "from visit.analyses.token_alignment import pair, parse_fixes",
            f"pairing = pair(model, acts_a, {other}, acts_b, parse_fixes({both.align!r}))",
        ]
        asked = ["pairing"]
    words = [(name, (getattr(now, name), getattr(both, f"{name}_b"))) for name in ("target", "distractor")]
    sides: list[tuple[str, Any]] = [("prompt", now.prompt), ("prompt", prompt_b)]
    if two:
        sides += [("model", now.model), ("model", model_b)]
    elif now.model != MINI:
        sides.append(("model", now.model))
    if (now.pos, both.pos_b) != (-1, -1):
        sides += [("pos", now.pos), ("pos", both.pos_b)]
    missing = ""
    for name, (a, b) in words:
        if a and b:
            sides += [(name, a), (name, b)]
        elif a or b:
            missing = f"The command line takes a {name} for both prompts or for none; here one has its own."
    command = shell_line(
        "compare", *sides, ("chat", now.chat), ("system", now.system if now.chat else ""), ("layers", option[0]),
        ("align", both.align), ("lens", "fitted" if lens else ""), *keep_words(now),
    )  # fmt: skip
    loads = [*load_step(now, looked).lines, *([f"model_b = visit.load_model({model_b!r})"] if two else [])]
    steps = [
        Lines("The model." if not two else "The two models.", tuple(loads)),
        Lines("Two forward passes.", (
            capture_line(now, now.prompt, "acts_a"),
            capture_line(now, prompt_b, "acts_b", "model_b" if two else "model"),
            *lens_lines(looked),
        )),
        Lines("Their graphs, and what differs: B − A.", (
            *([f"keep = {keep}"] if keep else []), *graphs, *paired,
            f"found = {call('visit.compare', 'graph_a', 'graph_b', *asked)}",
        ), ("found",)),
    ]  # fmt: skip
    if "patch" in now.opened.split(","):
        steps.append(_patch_step(now))
    return ("" if missing else command), steps, missing


def _whatif_recipe(now: State, looked: Looked) -> tuple[str, list[Lines], str]:
    on = [one for one in parse_list(now.whatif.edits) if one.on]
    source = now.compare.prompt_b or "The capital of France is the city of"
    asked, needs = reprs(arguments(now)), any(one.how in ("from", "add") for one in on)
    made = [_edit(one) for one in on]
    steps = [load_step(now, looked), Lines("The pass as it is.", (capture_line(now, now.prompt),))]
    if on:
        lines = ([f"other = {capture_line(now, source).removeprefix('acts = ')}"] if needs else []) + [
            "edits = [", *(f"    {one}," for one in made), "]",
            f"changed = {call('visit.ablate', 'model', 'acts', 'edits', **asked)}",
        ]  # fmt: skip
        steps.append(
            Lines("The same pass with these changes, and what becomes of the answer.", tuple(lines), ("changed.table",))
        )
    one_by_one = now.whatif
    more = not_default({"how": "zero", "at": "last", "nodes": "heads"}, how=one_by_one.replaced, at=one_by_one.where,
                       nodes="neurons" if one_by_one.units == "neurons" else "heads")  # fmt: skip
    which = "The most influential neurons" if "nodes" in more else "Every head"
    effects = call("visit.effects", "model", "acts", **reprs(more), **asked)
    steps.append(
        Lines(
            f"{which} taken out, one by one: what the answer does without it.", (f"effects = {effects}",), ("effects",)
        )
    )
    if not on:
        return shell_line("effects", *model_words(now, looked), *prompt_words(now), *more.items()), steps, ""
    hows, places = {(one.how, one.factor) for one in on}, {one.at for one in on}
    last = {str(now.pos), "-1"} if now.pos == -1 else {str(now.pos)}
    if len(hows) > 1 or len(places) > 1 or not places <= {"all", *last}:
        return "", steps, "The command line changes all parts in one way and at one place; these changes differ."
    how, factor = next(iter(hows))
    if how == "mean":
        return "", steps, "The command line takes the mean over a set of prompts; here it is that of this prompt."
    command = shell_line(
        "ablate", *model_words(now, looked), *prompt_words(now), *(("node", one.node) for one in on),
        ("how", {"zero": "", "from": "resample"}.get(how, how)),
        ("factor", f"{factor:g}" if how in ("scale", "add") else ""),
        ("at", "" if places == {"all"} else "last"), ("with", source if needs else ""),
        ("continue", now.whatif.more if now.whatif.more != "0" else ""),
    )  # fmt: skip
    return command, steps, ""


def _edit(one: Listed) -> str:
    source = {"from": "other", "add": "(other, acts)"}.get(one.how)
    named = {**({"source": source} if source else {}), **({} if one.at == "all" else {"pos": one.at}),
             **({"factor": f"{one.factor:g}"} if one.how in ("scale", "add") else {})}  # fmt: skip
    return call("visit.Edit", repr(one.node), repr(one.how), **named)


def _trace_recipe(now: State, looked: Looked) -> tuple[str, list[Lines], str]:
    asked = now.trace
    usual = {"samples": 10, "noise": 3.0, "seed": 0, "window": None}
    own = not_default(usual, samples=asked.samples, noise=asked.noise, seed=asked.noise_seed, window=asked.window)
    target = {"target": now.target} if now.target else {}
    pos = {"pos": now.pos} if now.pos != -1 else {}
    options = [one for one in prompt_words(now) if one[0] != "distractor"]
    command = shell_line("trace", *model_words(now, looked), *options, ("subject", ",".join(map(str, looked.subject))),
                         *own.items())  # fmt: skip
    prompt = capture_line(now, now.prompt, "prompt").replace("visit.capture(model, ", "", 1)[:-1]
    table = call("visit.trace", "model", "prompt", repr(list(looked.subject)), **reprs({**target, **own, **pos}))
    return command, [
        load_step(now, looked),
        Lines("Noise on the subject's embeddings, one state at a time put back: how much of the answer returns.",
              (prompt, f"trace = {table}"), ("trace",)),
    ], ""  # fmt: skip


def _heads_recipe(now: State, looked: Looked) -> tuple[str, list[Lines], str]:
    asked = now.heads_page
    if asked.heads_set == "own":
        return "", [], OWN_SET
    rows = shipped_set(asked.heads_set, now.model).rows
    have = len(rows)
    few = 0 if asked.lines == "all" or int(asked.lines) >= have else int(asked.lines)
    own = not_default({"nodes": "heads", "how": "zero", "first_token": False}, nodes=asked.asks, how=asked.instead,
                      first_token=asked.first_token)  # fmt: skip
    command = shell_line("heads", *model_words(now, looked), ("prompts", asked.heads_set), ("limit", few or ""),
                         *((name.replace("_", "-"), value) for name, value in own.items()))  # fmt: skip
    lines = [
        "from visit.runs.prompts import named_prompts",
        f"prompts = named_prompts({asked.heads_set!r}, model.name)",
    ]
    if now.answered:
        lines += ["from visit.runs.answers import answered", "prompts = answered(model, prompts).kept"]
        few = 0 if asked.lines == "all" else int(asked.lines)
    lines += [f"prompts = prompts.spread({few})"] if few else []
    missing = "The command line asks all prompts of a set; here it is those that are answered correctly."
    steps = [
        load_step(now, looked),
        Lines("The prompts, with targets, distractors and partners.", tuple(lines)),
        Lines("Every part: what it adds, what its influence foresees, its effect when taken out, with 95 % bands.",
              (f"heads = {call('visit.head_question', 'model', 'prompts', **reprs(own))}",), ("heads",)),
    ]  # fmt: skip
    if (looked.paths or now.paths != Paths()) and any(row.abc for row in rows):
        options, more = _paths_step(now)
        steps += more
        if options is not None:
            command += "\n" + shell_line("paths", *model_words(now, looked), ("prompts", asked.heads_set),
                                         ("limit", few or ""), *options)  # fmt: skip
    return ("" if now.answered else command), steps, missing if now.answered else ""


_MOVERS = (
    'movers = heads[(heads["role"] == "mover") & (heads["layer"] > 0)]',
    'movers = movers.nlargest(12, "contribution").sort_values(["layer", "head"])["node"].tolist()',
)


def _paths_step(now: State) -> tuple[list[tuple[str, Any]] | None, list[Lines]]:
    """Paths over the prompts of the step before: options of the command (None: it cannot say them), and the step."""
    asked = now.paths
    own = [name.strip() for name in asked.receiving.split(",") if name.strip()]
    if (asked.ends == "own" and not own) or (asked.ends == "movers" and now.heads_page.asks != "heads"):
        return None, []
    first = now.heads_page.first_token
    named: dict[str, str] = {}
    if asked.ends != "logits":
        named = {"receivers": "movers" if asked.ends == "movers" else repr(own), "kind": repr(asked.into)}
        if asked.path_at:
            named |= {"sender_pos": repr(asked.path_at), "receiver_pos": repr(asked.path_at)}
    named |= {"first_token": "True"} if first else {}
    place = asked.path_at if asked.ends == "own" else ""
    options: list[tuple[str, Any]] = [("receivers", "logits")]
    if asked.ends == "own":
        options = [("receivers", ",".join(own)), ("kind", asked.into), ("sender-pos", place)]
    options += [("first-token", True)] if first else []
    table = f"paths = {call('visit.paths', 'model', 'prompts', **named)}"
    why = "What every head says to that place alone: its value from the partner, all other heads held."
    lines = (*_MOVERS, table) if asked.ends == "movers" else (table,)
    return None if asked.ends == "movers" else options, [Lines(why, lines, ("paths",))]


def _patch_step(now: State) -> Lines:
    """The map that the Compare page shows: B's values in A."""
    site, at = {"heads": ("heads", "last"), "heads_all": ("heads", "all")}.get(
        now.compare.patch, (now.compare.patch, None)
    )
    asked = reprs(not_default({"at": None, "target": "", "distractor": ""}, at=at, target=now.compare.target_b,
                              distractor=now.target))  # fmt: skip
    table = call("visit.patch", "model", "acts_a", "acts_b", repr(site), **asked)
    return Lines("B's values put into A, place by place: 0 is as A, 1 as B.", (f"patched = {table}",), ("patched",))


def _memory_recipe(now: State, looked: Looked) -> tuple[str, list[Lines], str]:
    command = shell_line(
        "memory", *model_words(now, looked), *prompt_words(now), ("layer", looked.layer), ("head", looked.head)
    )
    memory = call("visit.head_memory", "model", "acts", str(looked.layer), str(looked.head), **reprs(arguments(now)))
    return command, [
        load_step(now, looked), Lines("One forward pass.", (capture_line(now, now.prompt),)),
        Lines(f"What L{looked.layer} H{looked.head} recalls: a row a position; the rows add up to the head.",
             (f"memory = {memory}",), ("memory",)),
    ], ""  # fmt: skip


def _layernorm_recipe(now: State, looked: Looked) -> tuple[str, list[Lines], str]:
    plain = now.norms.lens == "without"
    options = [one for one in prompt_words(now) if one[0] != "distractor"]
    command = shell_line("layernorm", *model_words(now, looked), *options, ("layer", looked.layer),
                         ("norm", looked.norm if looked.norm != "ln1" else ""), ("no-final-norm", plain))  # fmt: skip
    asked = {name: value for name, value in arguments(now).items() if name != "distractor"}
    named = {**({"norm": repr(looked.norm)} if looked.norm != "ln1" else {}), **reprs(asked),
             **({"final_norm": "False"} if plain else {})}  # fmt: skip
    return command, [
        load_step(now, looked), Lines("One forward pass.", (capture_line(now, now.prompt),)),
        Lines("What the norm does to the words, step by step.",
             (f"shift = {call('visit.token_shift', 'model', 'acts', str(looked.layer), **named)}",), ("shift",)),
    ], ""  # fmt: skip


def _neurons_recipe(now: State, looked: Looked) -> tuple[str, list[Lines], str]:
    by = now.neurons.nsort
    missing = "" if now.neurons.kind == "mlp" else "The command line ranks MLP neurons; here rows of W_O are listed."
    command = shell_line("neurons", *model_words(now, looked), *prompt_words(now), ("layer", looked.layer), ("top", 30),
                         ("by", by if by != "norm" else ""))  # fmt: skip
    kind = {} if now.neurons.kind == "mlp" else {"kind": repr(now.neurons.kind)}
    named = {"top": "30", **({"by": repr(by)} if by != "norm" else {}), **reprs(arguments(now))}
    active = call("active_neurons", "model", "acts", str(looked.layer), **kind, **named)
    lines = "from visit.analyses.neurons import active_neurons", f"neurons = {active}"
    return ("" if missing else command), [
        load_step(now, looked), Lines("One forward pass.", (capture_line(now, now.prompt),)),
        Lines("The most active neurons of this layer, and what they read and write.", lines, ("neurons",)),
    ], missing  # fmt: skip


def _study_recipe(now: State, looked: Looked) -> tuple[str, list[Lines], str]:
    asked = now.studies
    if now.set == "own":
        return "", [], OWN_SET
    have = len(shipped_set(now.set, now.model).rows)
    few = 0 if asked.count == "all" or int(asked.count) >= have else int(asked.count)
    figures = tuple(filter(None, asked.figures.split(",")))
    names = {"values": "ranks", **{name: name for name in ("k", "sources", "correct", "second", "draws", "seed")}}
    usual = {"k": 50, "values": None, "sources": 3, "correct": "split", "second": "rbo", "draws": 1000, "seed": 0}
    own = not_default(usual, **{name: getattr(asked, field) for name, field in names.items()})
    own |= {"figures": figures} if figures else {}
    blocks = {"layers": layer_list(asked.blocks)} if asked.blocks else {}
    command = shell_line(
        "study", *model_words(now, looked), ("prompts", now.set), ("layers", asked.blocks),
        *({**own, "figures": asked.figures}).items(), ("out", "study"),
    )  # fmt: skip
    prompts = f"prompts = named_prompts({now.set!r}, model.name)" + (f".spread({few})" if few else "")
    steps = [
        load_step(now, looked),
        Lines("The prompts.", ("from visit.runs.prompts import named_prompts", prompts)),
        Lines("The figures: this is long work.",
             (f"study = {call('visit.study', 'model', 'prompts', **reprs(own | blocks))}",), ("study.verdicts",)),
    ]  # fmt: skip
    missing = f"The command line takes the first prompts of a set; here {few} are spread over it." if few else ""
    return ("" if few else command), steps, missing
