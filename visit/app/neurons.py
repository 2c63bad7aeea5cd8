"""The neuron page on one prompt, a layer's most active neurons, and the search of all neurons by a word."""

from __future__ import annotations

from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any

import pandas as pd
import streamlit as st

from visit.app import graph_panel as graphs
from visit.app.address import CHOICES
from visit.app.cache import st_active
from visit.app.follow import look_again
from visit.app.prompt_bar import Subject, plain
from visit.app.prompt_sets import SHARED, begin, choose_set, watched
from visit.app.state import change, field, state, whole_words
from visit.errors import VisitError
from visit.figures import neurons as figures_neurons
from visit.runs.prompts import PromptSet
from visit.runs.worker import SLOW, Run
from visit.text.glossary import explain
from visit.text.numbers import duration, percent, signed
from visit.text.visible import visible, word_list

if TYPE_CHECKING:
    from visit.models.model import Model

SHOWN = 30  # of the most active neurons
_KINDS = {"mlp": "MLP neurons", "attention": "rows of W_O"}
_ORDERS = {"norm": "by |coefficient| × ‖row‖", "contribution": "by |contribution|", "coefficient": "by |coefficient|"}


def layer_of(subject: Subject) -> int:
    """The layer of the address, else the last."""
    last = subject.model.n_layers - 1
    return min(last, int(state().layer)) if state().layer else last


def neuron_of(subject: Subject) -> tuple[int, int] | None:
    """(layer, neuron) of the address, if the model has it."""
    text = state().neuron
    if not text:
        return None
    layer, number = (int(n) for n in text[1:].split(".mlp_value"))
    return (layer, number) if layer < subject.model.n_layers and number < subject.model.d_mlp else None


def spoken(tokens: Any, count: int = 5) -> str | None:
    """A list of tokens for a table's cell."""
    return ", ".join(word_list(tokens, count, whole_words())) if isinstance(tokens, (list, tuple)) else None


# ---- one prompt ------------------------------------------------------------------------------------------------------


def active(subject: Subject) -> None:
    """The most active neurons of a layer at this position."""
    layer = layer_of(subject)
    token = plain(visible(subject.acts.tokens[subject.pos]))
    st.subheader(f"Most active at position {subject.pos} ({token})", anchor=False, help=explain("mlp_value"))
    with st.container(horizontal=True, vertical_alignment="bottom"):
        key = "w_neuron_layer"
        if st.session_state.get(key) != layer:
            st.session_state[key] = layer
        st.selectbox("Layer", range(subject.model.n_layers), key=key, width=110,
                     on_change=lambda: change(layer=str(st.session_state[key])))  # fmt: skip
        kind: Any = st.segmented_control("Kind", list(_KINDS), format_func=lambda k: _KINDS[k], required=True,
                                         help=explain("attn_neuron"), **field("kind"))  # fmt: skip
        st.selectbox("Order", list(_ORDERS), format_func=lambda o: _ORDERS[o], width=260, **field("nsort"))
    table = st_active(*subject.about, layer, kind, state().nsort, SHOWN)
    _active_table(table, kind, visible(subject.model.vocabulary[subject.target]))
    st.caption(
        f"The {SHOWN} most active of layer {layer}. Words: what the neuron writes with this coefficient's sign, and "
        "the "
        "direction it answers to. The last rows are all other neurons together and the bias: with them the "
        "contributions "
        "add up to what the whole layer part adds. Choose a row for the neuron's card."
    )
    graphs.downloads(partial(_file, subject, table), "neurons", ("zip", "json"))


def _active_table(table: pd.DataFrame, kind: str, target: str) -> None:
    names = [_name(row) for row in table.to_dict("records")]
    shown = pd.DataFrame({
        "name": names, "coefficient": table["coefficient"], "row_norm": table["row_norm"], "norm": table["norm"],
        "share": table["share"], "contribution": table["contribution"], "rank": table["rank"],
        "writes": [spoken(w) for w in table["tokens"]], "bottom": [spoken(w, 3) for w in table["bottom_tokens"]],
    })  # fmt: skip
    for column, title in (("key_tokens", "reads"), ("gate_tokens", "gate")):
        if column in table and table[column].notna().any():
            shown[title] = [spoken(w) for w in table[column]]
    number, text = st.column_config.NumberColumn, st.column_config.TextColumn
    st.dataframe(
        shown, hide_index=True, height=420, placeholder="–", key=f"active_{kind}", selection_mode="single-row",
        on_select=partial(take_row, f"active_{kind}", table["node"].tolist()),
        column_config={
            "name": text("Neuron", pinned=True),
            "coefficient": number("Coefficient", format="%+.3f", help=explain("coefficient")),
            "row_norm": number("‖row‖", format="%.3g"), "norm": number("|coefficient| × ‖row‖", format="%.3g"),
            "share": number("Share", format="percent"),
            "contribution": number("Contribution", format="%+.4f", help=explain("contribution")),
            "rank": number(f"Rank of {target}", help=explain("rank")), "writes": text("Writes"),
            "bottom": text("Writes least"), "reads": text("Reads", help=explain("mlp_key")),
            "gate": text("Its gate reads"),
        },
    )  # fmt: skip


def _name(row: dict[str, Any]) -> str:
    if pd.isna(row["neuron"]):
        return "all others" if str(row["node"]).endswith("rest") else "the bias"
    return f"N{row['neuron']}" + ("" if pd.isna(row["head"]) else f" (H{row['head']})")


def take_row(key: str, nodes: list[Any]) -> None:
    """Open the card of a chosen row's neuron."""
    rows = st.session_state[key]["selection"]["rows"]
    if rows and rows[0] < len(nodes):
        take_neuron(nodes[rows[0]])


def take_neuron(node: Any) -> None:
    """Open a neuron's card."""
    if isinstance(node, str) and ".mlp_value" in node:
        change(neuron=node)


def _file(subject: Subject, table: pd.DataFrame, kind: str) -> bytes | str:
    from visit.exact.question import ask
    from visit.files import tables

    meta = ask(subject.model, subject.acts, subject.pos, subject.target, subject.distractor).meta
    made = {"neurons": table}
    return tables.to_json(meta, made) if kind == "json" else tables.to_zip(meta, made)


# ---- search ----------------------------------------------------------------------------------------------------------


def search(subject: Subject, waits: bool) -> None:
    """Every neuron of the model whose words hold a word. `waits`: what it needs is asked for further up already."""
    from visit.lenses.weights import search as look_up

    st.subheader("Search all neurons by word", anchor=False)
    st.text_input("A word (one token; its leading space is added if needed)", max_chars=100, **field("word"))
    if not state().word:
        return
    token = _token(subject, state().word)
    if token is None:
        return
    if waits:
        st.caption("The rows with this word are listed once every neuron is read, see above.")
        return
    index = every_neuron(subject.model, "The rows with this word are listed")
    if index is None:
        return
    found = look_up(index, token)
    word = plain(visible(subject.model.vocabulary[token]))
    if found.empty:
        st.info(f"No neuron has {word} among its top words.", icon=":material/search:")
        return
    few = found.head(500)
    shown = few.assign(
        sign=["as it is" if sign > 0 else "turned round" for sign in few["sign"]],
        tokens=[spoken(tokens) for tokens in few["tokens"]],
    )
    number = st.column_config.NumberColumn
    st.dataframe(
        shown, hide_index=True, height=360, placeholder="–", key="found", selection_mode="single-row",
        on_select=partial(_take_found, few), column_config={
            "layer": "Layer", "matrix": "Matrix", "neuron": "Row", "head": "Head",
            "sign": st.column_config.TextColumn("Read", help="With a negative coefficient a row is turned round."),
            "place": number("Place", help="Of the word among the row's top words."), "tokens": "Top words",
            "entropy": number("Entropy, bits", format="%.2f", help=explain("entropy")),
            "norm": number("Norm", format="%.3g", help=explain("norm")),
        },
    )  # fmt: skip
    st.caption(
        f"{len(found):,} rows of all layers have {word} among their top words of either sign. Choose a row of W_in or "
        "W_out for the neuron's card."
    )


def _token(subject: Subject, text: str) -> int | None:
    for one in (text if text.startswith(" ") else f" {text}", text):
        try:
            return subject.model.token_id(one, "word")
        except VisitError as problem:
            last = problem
    st.warning(str(last), icon=":material/edit:")
    return None


def _take_found(found: pd.DataFrame) -> None:
    rows = st.session_state["found"]["selection"]["rows"]
    if rows and rows[0] < len(found):
        row = found.iloc[rows[0]]
        if row["matrix"] != "W_O":
            take_neuron(f"L{row['layer']}.mlp_value{row['neuron']}")


# ---- a neuron's card on the page -------------------------------------------------------------------------------------
KWIC = 36  # characters shown on either side of a token
_TINT = {1: "rgba(11, 122, 117, 0.35)", -1: "rgba(213, 94, 0, 0.35)"}  # behind the token, on light and on dark


def card(subject: Subject, prompts: PromptSet | None, found: tuple[Any, Any] | None) -> None:
    """Everything about the neuron that the address names. `found`: the statistics of the set, once it was run.

    Its rows are read here and now where not every neuron is read yet.
    """
    from visit.analyses.neurons import neuron_card
    from visit.lenses.weights import found_index

    chosen = neuron_of(subject)
    if chosen is None:
        st.caption("Choose a neuron in a table or figure of this page: its card stands here.")
        return
    if st.session_state.get("neuron_card") != chosen:  # chosen further down, the card is out of sight
        st.toast(f"The card of L{chosen[0]} N{chosen[1]} stands under the most active neurons.")
        st.session_state["neuron_card"] = chosen
    stats, sums = found or (None, None)
    index = found_index(subject.model)
    made = neuron_card(subject.model, index, *chosen, stats, sums, () if prompts is None else prompts.prompts)
    st.subheader(f"Neuron L{chosen[0]} N{chosen[1]}", anchor=False)
    if "freq" in made:
        always = ", a regularization neuron" if made["is_regularization"] else ""
        st.markdown(
            f"Among its layer's most active on **{percent(made['freq'])}** of {made['prompts']:,} prompts{always}; "
            f"activation {signed(made['mean'])} on average, {signed(made['max'])} at most."
        )
    _weights(made["tables"]["words"], index is not None)
    with graphs.beside("card"):
        left, right = st.columns(2, gap="large")
    if "histogram" in made["tables"]:
        with left:
            _over_set(made)
    with right if "histogram" in made["tables"] else left:
        _similar(made["tables"]["similar"])
    dims = ", ".join(str(d) for d in made["outlier_dims"][:12])
    dims = f"dimensions {dims}" if dims else "none"
    last = " Histogram and examples are of the set above, at the last token." if "histogram" in made["tables"] else ""
    st.caption(f"Outlier weights (beyond three standard deviations of its own): {dims}.{last}")
    if prompts is not None:
        _tokens(subject, prompts, *chosen)


def _weights(words: pd.DataFrame, all_read: bool) -> None:
    number = st.column_config.NumberColumn
    among = "Among the neurons of its layer." + ("" if all_read else " Known once every neuron is read as words.")
    shown = pd.DataFrame({
        "role": words["role"], "tokens": [spoken(w, 10) for w in words["tokens"]],
        "negated": [spoken(w, 10) for w in words["negated_tokens"]],
        **{name: words[name] for name in ("entropy", "entropy_percentile", "norm", "norm_percentile")},
    })  # fmt: skip
    st.dataframe(shown, hide_index=True, placeholder="–", column_config={
        "role": st.column_config.TextColumn("Its", width=60),
        "tokens": "Top words",
        "negated": "Top words, turned round",
        "entropy": number("Entropy, bits", format="%.2f", help=explain("entropy")),
        "entropy_percentile": number("… percentile", format="%.0f", help=among),
        "norm": number("Norm", format="%.3g", help=explain("norm")),
        "norm_percentile": number("… percentile", format="%.0f", help="Among the neurons of its layer."),
    })  # fmt: skip


def _over_set(made: dict[str, Any]) -> None:
    st.markdown("**The prompts that activate it most at their last token**")
    rows = made["tables"]["examples"]
    st.dataframe(
        pd.DataFrame({"prompt": [visible(t) for t in rows["prompt"]], "activation": rows["activation"]}),
        hide_index=True, column_config={
            "prompt": "Prompt",
            "activation": st.column_config.NumberColumn("Activation", format="%+.3f"),
        },
    )  # fmt: skip
    chart = figures_neurons.activation_histogram(made["tables"]["histogram"], made["mean"])
    st.altair_chart(chart, width="stretch", alt="Activations over the set")


def _similar(near: pd.DataFrame) -> None:
    st.markdown("**Neurons that write most nearly the same**")
    names = [f"L{n} N{m}" for n, m in zip(near["layer"], near["neuron"], strict=True)]
    nodes = [f"L{n}.mlp_value{m}" for n, m in zip(near["layer"], near["neuron"], strict=True)]
    st.dataframe(
        pd.DataFrame({"name": names, "cosine": near["cosine"], "tokens": [spoken(w) for w in near["tokens"]]}),
        hide_index=True, key="similar", selection_mode="single-row", on_select=partial(take_row, "similar", nodes),
        column_config={
            "name": "Neuron", "cosine": st.column_config.NumberColumn("Cosine", format="%.3f"),
            "tokens": "Writes",
        },
    )  # fmt: skip


# ---- every token of the set ------------------------------------------------------------------------------------------


def _tokens(subject: Subject, prompts: PromptSet, layer: int, neuron: int) -> None:
    """What activates it anywhere in the set, not at the last tokens only."""
    from visit.analyses.neuron_tokens import TOKENS_RUN, token_tables, tokens_job
    from visit.runs.prompts import run_key

    st.markdown("**The tokens that activate it most**")
    model = subject.model
    key = run_key(TOKENS_RUN, model, prompts, layer, neuron)
    run = watched(("tokens", prompts.hash, layer, neuron), key,
                  lambda: tokens_job(model, prompts.rows, layer, neuron), "Look at every token of the set")  # fmt: skip
    sums = None if run is None else run.result
    if sums is None or not sums.prompts:
        return
    made = token_tables(model, sums, prompts.prompts)
    with graphs.beside("tokens"):
        left, right = st.columns([5, 3], gap="large")
    with left:
        for sign, title in ((1, "Most active"), (-1, "Most negative")):
            rows = made["tokens"]
            _contexts(rows[sign * rows["activation"] > 0], sign, title, prompts)
    with right:
        _means(made["token_means"])
    st.caption(
        f"Every one of the {sums.positions:,} tokens of {sums.prompts:,} prompts. A row is a token with what stands "
        "before and after it; the model sees only what is before, so that prompts which begin in the same way count as "
        "one row. Choose a row to look at its prompt. Right: the mean activation over all places where a token stands."
    )


def _contexts(rows: pd.DataFrame, sign: int, title: str, prompts: PromptSet) -> None:
    if rows.empty:
        return
    shown = pd.DataFrame({
        "activation": rows["activation"].tolist(), "before": [_cut(text, -KWIC) for text in rows["before"]],
        "token": [visible(t) for t in rows["token"]], "after": [_cut(text, KWIC) for text in rows["after"]],
        "prompts": rows["prompts"].tolist(),
    })  # fmt: skip
    text, number = st.column_config.TextColumn, st.column_config.NumberColumn
    key = f"contexts {title}"
    places = list(zip(rows["number"], rows["position"], strict=True))
    st.dataframe(
        shown.style.set_properties(subset=["token"], **{"background-color": _TINT[sign]}), hide_index=True,
        height=min(36 * (len(shown) + 1) + 2, 362), key=key, selection_mode="single-row",
        on_select=partial(_take_context, key, places, prompts),
        column_config={
            "activation": number(title, format="%+.3f", help="The activation."),
            "before": text("Before", alignment="right"), "token": text("Token"), "after": text("After"),
            "prompts": number("Prompts", help="How many begin in the same way, up to this token."),
        },
    )  # fmt: skip


def _cut(text: str, room: int) -> str:
    """The first `room` characters of a text, or its last −`room`; `…` stands for what is cut."""
    if not text:
        return ""
    if len(text) <= abs(room):
        return visible(text)
    return visible(text[:room]) + "…" if room > 0 else "…" + visible(text[room:])


def _take_context(key: str, places: list[tuple[int, int]], prompts: PromptSet) -> None:
    """Look at the prompt of a row, at its token."""
    rows = st.session_state[key]["selection"]["rows"]
    if rows and rows[0] < len(places):
        number, position = places[rows[0]]
        change(prompt=prompts.prompts[number], pos=int(position), target="", distractor="", node="", detail="", pin="",
               align="", head="", source="")  # fmt: skip


def _means(means: pd.DataFrame) -> None:
    number = st.column_config.NumberColumn
    shown = means.drop(columns=["token_id", "min"]).assign(token=[visible(t) for t in means["token"]])
    st.dataframe(shown, hide_index=True, height=362, column_config={
        "token": "Token, highest mean first", "mean": number("Mean", format="%+.3f"),
        "count": number("Places", help="How many positions of the set hold this token."),
        "max": number("Largest", format="%+.3f"),
    })  # fmt: skip


# ---- the neuron page over a set of prompts ---------------------------------------------------------------------------
def prompts(subject: Subject) -> PromptSet | None:
    """The set that the rest of the page is about; None while there is nothing usable to run."""
    st.subheader("Over a set of prompts", anchor=False)
    return choose_set(subject.model)


def statistics(subject: Subject, chosen: PromptSet) -> tuple[Any, Any] | bool:
    """The set's statistics: (table, sums); with Figure 8 and the findings.

    False before a run; True where they wait for every neuron to be read as words.
    """
    from visit.analyses.neuron_sets import NEURON_RUN, neuron_job, statistics_table
    from visit.analyses.neurons import regularization_findings, regularization_table
    from visit.runs.prompts import run_key

    model = subject.model
    share: Any = st.segmented_control("Most active: so much of a layer", CHOICES["nshare"], required=True,
                                      format_func=lambda s: f"{s} %", help=_SHARE, **field("nshare"))  # fmt: skip
    key = run_key(NEURON_RUN, model, chosen, share)
    run = watched(("neurons", chosen.hash, share), key, lambda: neuron_job(model, chosen.rows, float(share) / 100))
    if run is None:
        return False
    index = every_neuron(model, "What this set's neurons write, and Figure 8, are shown")
    sums = run.result
    if index is None or sums is None or not sums.prompts:
        return index is None
    with st.container(horizontal=True, vertical_alignment="bottom"):
        measure: Any = st.segmented_control("Activity", ["activation", "weighted"], required=True, **field("activity"),
                                            format_func=lambda m: _MEASURES[m])  # fmt: skip
        threshold = st.slider("Always on: among the most active on more than", 0.5, 1.0, 0.85, 0.01, width=360)
    stats = statistics_table(model, sums, index, measure, threshold)
    summary = regularization_table(stats)
    for sentence in regularization_findings(summary, stats, sums.prompts):
        st.markdown(plain(sentence))
    chart = figures_neurons.norm_entropy(stats, None, state().neuron, threshold)
    st.altair_chart(chart, width="stretch", key="figure8", selection_mode="neuron", on_select=_take_dot,
                    alt="Norm against entropy of every neuron")  # fmt: skip
    st.caption(
        f"Figure 8, {sums.prompts:,} prompts: every dot is a neuron, the length of what it writes against how spread "
        "its words are; the colour is how often it is among its layer's most active. Click one for its card."
    )
    _summary(summary)
    return stats, sums


_SHARE = "The paper counts the 100 most active of 4,096 neurons, 2.44 %; elsewhere the same share."
_MEASURES = {"activation": "|activation| (the paper)", "weighted": "|activation| × ‖row‖ (the authors' code)"}


def _summary(summary: pd.DataFrame) -> None:
    named = [", ".join(f"N{n}" for n in row) for row in summary["neurons"]]
    spoken = [", ".join(f"N{n}" for n in row) for row in summary["function_neurons"]]
    shown = pd.DataFrame({
        "layer": summary["layer"], "count": summary["regularization"], "which": named,
        "top": [f"N{n}" for n in summary["most_frequent"]], "freq": 100 * summary["max_freq"],
        "norm": summary["norm_percentile"], "entropy": summary["entropy_percentile"],
        "words": 100 * summary["function_share"], "all": 100 * summary["layer_function_share"], "spoken": spoken,
        "rogue": summary["rogue"],
    })  # fmt: skip
    number, text = st.column_config.NumberColumn, st.column_config.TextColumn
    st.dataframe(shown, hide_index=True, placeholder="–", column_config={
        "layer": "Layer", "count": number("Always on", help="How many neurons of this layer."), "which": "Which",
        "top": text("Most frequent", help="The neuron that is most often among its layer's most active."),
        "freq": number("Its share", format="%.0f %%", help="Of the prompts in which it is among the most active."),
        "norm": number("Norm", format="%.0f", help=f"{_MEDIAN} by norm, 0 to 100."),
        "entropy": number("Entropy", format="%.0f", help=f"{_MEDIAN} by entropy, 0 to 100."),
        "words": number("Function", format="%.0f %%", help="Function words among the top words of one of those that "
                                                           "are always on, the highest share."),
        "all": number("… of all", format="%.0f %%", help="The mean share over all neurons of the layer."),
        "spoken": text("Read so", help="Always on, and at least half of its top words are function words."),
        "rogue": number("Rogue", help="How many of them have an outlier weight in a rogue dimension of the stream."),
    })  # fmt: skip
    st.caption("Layer by layer: the neurons that are always on, and how they compare with the others of their layer "
               "(norm and entropy: their median percentile).")  # fmt: skip


_MEDIAN = "The median percentile of those that are always on, among the neurons of their layer,"


def _take_dot() -> None:
    found = st.session_state["figure8"]["selection"].get("neuron") or []
    if found:
        take_neuron(found[0]["node"])


def figure9(subject: Subject, stats: Any, sums: Any) -> None:
    """The weights of a layer's most frequent neurons, dimension by dimension."""
    from visit.analyses.neurons import weight_profile

    layer = layer_of(subject)
    profile = weight_profile(subject.model, stats, sums, layer)
    with st.container(height=96 * profile["series"].nunique() + 90, border=False):  # scrolls where it is narrow
        st.altair_chart(figures_neurons.weight_lines(profile), width="content", alt="Weights per dimension")
    st.caption(
        f"Figure 9, layer {layer}: what neurons write, dimension by dimension; dots are weights beyond three standard "
        "deviations of their own vector, upright grey lines, if any, the stream's rogue dimensions."
    )


# ---- every neuron as words, for what asks all of them ----------------------------------------------------------------
AT_ONCE = 8.0  # seconds of forecast up to which nobody is asked: visit-mini is read while one looks
PATIENCE = 2.0  # … and for which the page waits for it


@st.cache_resource(max_entries=8, show_spinner=False)
def _st_forecast(name: str, revision: str, _model: Model) -> float:
    from visit.lenses.weights import forecast_seconds

    return forecast_seconds(_model)


def every_neuron(model: Model, why: str) -> Any:
    """The static index if it is at hand, else None; then the place says what it takes, and how far it is.

    `why`: what cannot be shown without it, the beginning of a sentence.
    """
    from visit.lenses.weights import found_index, rows_in_all

    found = found_index(model)
    if found is not None:
        return found
    key, rows = _key(model), rows_in_all(model)
    run = SLOW.find(key)
    if run is None:
        seconds = _st_forecast(model.name, model.revision, model)
        if seconds > AT_ONCE:
            _offer(model, f"{why} once every neuron is read as words: {rows:,} rows of the weights, about "
                   f"{duration(seconds)}, once for this model. The rest of the page does not wait for it.",
                   "Read every neuron")  # fmt: skip
            return None
        run = SLOW.submit(key, _job(model))
        with suppress(VisitError):  # told below
            run.wait(PATIENCE)
    if run.state == "done":
        return run.result
    if run.alive:
        look_again(1.0, _watch, key, _short(model), rows)
    elif run.error is not None:
        st.error(str(run.error), icon=":material/error:")
        _offer(model, f"{why} once every neuron is read as words.", "Try again")
    else:
        now = run.progress
        left = _st_forecast(model.name, model.revision, model) * (1 - now.done / max(1, now.total))
        _offer(model, f"Stopped after {_read(run):,} of {rows:,} rows, which are kept. {why} when all are read: "
               f"about {duration(left)} more.", "Resume")  # fmt: skip
    return None


def _key(model: Model) -> tuple[str, str]:
    from visit.lenses.weights import weights_key

    return "static index", weights_key(model)


def _job(model: Model) -> Any:
    from visit.lenses.weights import StaticRun

    return lambda: StaticRun(model)


def _short(model: Model) -> str:
    return model.name.rstrip("/").split("/")[-1]


def _offer(model: Model, text: str, label: str) -> None:
    st.caption(text)
    if st.button(label, key="every neuron", icon=":material/play_arrow:"):
        begin(_key(model), _job(model), SLOW)


def _watch(key: Any, name: str, rows: int) -> None:
    """How far it is, looked at again and again; when it ends the whole page follows."""
    run = SLOW.find(key)
    if run is None or not run.alive:
        st.rerun()
    assert run is not None
    st.progress(min(1.0, run.progress.done / max(run.progress.total, 1)), said(run, name, rows))
    st.button("Stop, and keep what is read", key="stop every neuron", help=SHARED, on_click=run.cancel)


def _read(run: Run) -> int:
    """Rows: an item of the run is several of them."""
    from visit.lenses.weights import STEP

    return run.progress.done * STEP


def said(run: Run, name: str, rows: int) -> str:
    """`Reading every neuron of SmolLM2 as words: 41,472 of 155,520 rows, about 70 s left`."""
    now = run.progress
    start = f"Reading every neuron of {plain(name)} as words"
    if run.place:
        return f"{start}: waits for {run.place} other model{'s' if run.place > 1 else ''}"
    left = "" if now.seconds_left is None else f", about {duration(now.seconds_left)} left"
    return f"{start}: {min(rows, _read(run)):,} of {rows:,} rows{left}"
