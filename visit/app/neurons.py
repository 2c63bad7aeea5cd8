"""The neuron page on one prompt, a layer's most active neurons, and the search of all neurons by a word."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Any

import pandas as pd
import streamlit as st

from visit.app.cache import kept, st_model
from visit.app.cached_heads import st_active
from visit.app.fields import choice, field, listed, segments
from visit.app.figure_list import about_set, altair_figure, collect_figure
from visit.app.follow import look_again
from visit.app.opened import not_recorded
from visit.app.prompt_sets import SHARED, choose_set, on_model, short_name, start_run, stop_run, watched
from visit.app.sessions import change, session, state, take
from visit.app.subject import Subject
from visit.app.widgets import beside, downloads, on_point, on_row, plain, sentences, unfolding, words_cell
from visit.errors import VisitError
from visit.figures import neurons as figures
from visit.runs.prompts import PromptSet
from visit.runs.worker import SLOW, Run
from visit.text.glossary import explain
from visit.text.markdown import escaped
from visit.text.numbers import duration, percent, signed
from visit.text.visible import visible

if TYPE_CHECKING:
    from visit.models.model import Model

MOST_ACTIVE = 30  # neurons shown of a layer


def chosen_layer(subject: Subject) -> int:
    """The layer of the address, else the last."""
    layer, last = state().layer, subject.model.n_layers - 1
    session().looked["layer"] = last if layer is None else min(last, layer)
    return int(session().looked["layer"])


def chosen_neuron(subject: Subject) -> tuple[int, int] | None:
    """(layer, neuron) of the address, if the model has it."""
    text = state().neurons.neuron
    if not text:
        return None
    layer, number = (int(n) for n in text[1:].split(".mlp_value"))
    return (layer, number) if layer < subject.model.n_layers and number < subject.model.d_mlp else None


# ---- one prompt ------------------------------------------------------------------------------------------------------


def active(subject: Subject) -> None:
    """The most active neurons of a layer at this position, in sentences and as a table."""
    from visit.narrate.norms import neuron_story

    layer, answer = chosen_layer(subject), st.container()
    st.header(f"Most active at position {subject.pos} ({plain(subject.token)})", anchor=False,
                 help=explain("mlp_value"))  # fmt: skip
    with st.container(horizontal=True, vertical_alignment="bottom"):
        st.selectbox("Layer", width=110, **listed("layer", range(subject.model.n_layers), layer))
        kind: Any = st.segmented_control(
            "Kind", required=True, wrap=True, help=explain("attn_neuron"), **segments("kind")
        )
        about = "The largest first, whatever the sign. Length: that of the row that the neuron writes, ‖row‖."
        st.selectbox("Order", width=260, help=about, **choice("nsort"))
    table = st_active(*subject.about, layer, kind, state().neurons.nsort, MOST_ACTIVE)
    with answer:
        sentences(neuron_story(table, subject.word, kind), "neuron_story", take_neuron)
    _active_table(table, kind, subject.word)
    collect_figure(f"The most active neurons of layer {layer}", None, lambda: table, code="neurons")
    st.caption(
        f"The {MOST_ACTIVE} most active of layer {layer}. Words: what the neuron writes with this coefficient's sign, "
        "and the direction it answers to. The last rows are all other neurons together and the bias: with them the "
        "contributions add up to what the whole layer part adds. Choose a row for the neuron's card."
    )

    def tables() -> tuple[dict[str, Any], dict[str, pd.DataFrame]]:
        return subject.meta, {"neurons": table}

    downloads("neurons", tables)


def _active_table(table: pd.DataFrame, kind: str, target: str) -> None:
    names = [_row_name(row) for row in table.to_dict("records")]
    shown = pd.DataFrame({
        "name": names, "coefficient": table["coefficient"], "row_norm": table["row_norm"], "norm": table["norm"],
        "share": table["share"], "contribution": table["contribution"], "rank": table["rank"],
        "writes": [words_cell(w) for w in table["tokens"]],
        "bottom": [words_cell(w, 3) for w in table["bottom_tokens"]],
    })  # fmt: skip
    if "influence" in table:
        shown.insert(6, "influence", table["influence"])
    for column, title in (("key_tokens", "reads"), ("gate_tokens", "gate")):
        if column in table and table[column].notna().any():
            shown[title] = [words_cell(w) for w in table[column]]
    number, text = st.column_config.NumberColumn, st.column_config.TextColumn
    st.dataframe(
        shown, hide_index=True, height=420, placeholder="–",
        **on_row(f"active_{kind}", table["node"].tolist(), take_neuron),
        column_config={
            "name": text("Neuron", pinned=True),
            "coefficient": number("Coefficient", format="%+.3f", help=explain("coefficient")),
            "row_norm": number("Row's length", format="%.3g", help="‖row‖: of what it writes at coefficient 1."),
            "norm": number("Coefficient × length", format="%.3g", help="|coefficient| × ‖row‖: how much it writes."),
            "share": number("Share", format="percent"),
            "contribution": number("Contribution", format="%+.4f", help=explain("contribution")),
            "influence": number("Influence", format="%+.4f", help=explain("influence")),
            "rank": number(f"Rank of {target}", help=explain("rank")), "writes": text("Writes"),
            "bottom": text("Writes least"), "reads": text("Reads", help=explain("mlp_key")),
            "gate": text("Its gate reads"),
        },
    )  # fmt: skip


def _row_name(row: dict[str, Any]) -> str:
    if pd.isna(row["neuron"]):
        return "all others" if str(row["node"]).endswith("rest") else "the bias"
    return f"N{row['neuron']}" + ("" if pd.isna(row["head"]) else f" (H{row['head']})")


def take_neuron(node: Any) -> None:
    """Open a neuron's card."""
    if isinstance(node, str) and ".mlp_value" in node:
        change(neuron=node)


# ---- search ----------------------------------------------------------------------------------------------------------


def word_search(subject: Subject, waits: bool) -> None:
    """Every neuron of the model whose words hold a word. `waits`: what it needs is asked for further up already."""
    if not_recorded(subject, "Search all neurons by word"):
        return
    from visit.lenses.weights import search_weights

    st.header("Search all neurons by word", anchor=False)
    st.text_input("A word (one token; its leading space is added if needed)", max_chars=100, **field("word"))
    if not state().neurons.word:
        return
    token = _token(subject, state().neurons.word)
    if token is None:
        return
    if waits:
        st.caption("The rows with this word are listed once every neuron is read, see above.")
        return
    index = every_neuron(subject.model, "The rows with this word are listed")
    if index is None:
        return
    found = search_weights(index, token)
    word = plain(visible(subject.model.vocabulary[token]))
    if found.empty:
        st.info(f"No neuron has {word} among its top words.", icon=":material/search:")
        return
    few = found.head(500)
    shown = few.assign(
        sign=["as it is" if sign > 0 else "turned round" for sign in few["sign"]],
        tokens=[words_cell(tokens) for tokens in few["tokens"]],
    )
    nodes = [
        None if matrix == "W_O" else f"L{layer}.mlp_value{neuron}"
        for layer, matrix, neuron in few[["layer", "matrix", "neuron"]].itertuples(index=False)
    ]
    number = st.column_config.NumberColumn
    st.dataframe(
        shown, hide_index=True, height=360, placeholder="–", **on_row("found", nodes, take_neuron), column_config={
            "layer": "Layer", "matrix": "Matrix", "neuron": "Row", "head": "Head",
            "sign": st.column_config.TextColumn("Read", help="Negative: its least probable words."),
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
    st.warning(escaped(str(last)), icon=":material/edit:")
    return None


# ---- a neuron's card on the page -------------------------------------------------------------------------------------
KWIC = 36  # characters shown on either side of a token
_TINT = {1: "rgba(11, 122, 117, 0.35)", -1: "rgba(213, 94, 0, 0.35)"}  # behind the token, on light and on dark


def card(subject: Subject, prompts: PromptSet | None, found: tuple[Any, Any] | None) -> None:
    """Everything about the neuron that the address names. `found`: the statistics of the set, once it was run.

    Its rows are read here and now where not every neuron is read yet.
    """
    chosen = chosen_neuron(subject)
    if chosen is not None and not_recorded(subject, f"Neuron L{chosen[0]} N{chosen[1]}"):
        return
    if chosen is None:
        st.caption("Choose a neuron in a table or figure of this page: its card stands here.")
        return
    from visit.analyses.neurons import neuron_card
    from visit.lenses.weights import found_index

    if session().card != chosen:  # chosen further down, the card is out of sight
        st.toast(f"The card of L{chosen[0]} N{chosen[1]} stands under the most active neurons.")
        session().card = chosen
    stats, sums = found or (None, None)
    index = found_index(subject.model)
    made = neuron_card(subject.model, index, *chosen, stats, sums, () if prompts is None else prompts.prompts)
    st.header(f"Neuron L{chosen[0]} N{chosen[1]}", anchor=False)
    if "freq" in made:
        always = ", that is, always" if made["is_regularization"] else ""
        st.markdown(
            f"Among its layer's most active on **{percent(made['freq'])}** of {made['prompts']:,} prompts{always}; "
            f"activation {signed(made['mean'])} on average, {signed(made['max'])} at most."
        )
    _own_words(made["tables"]["words"], index is not None)
    with beside("card"):
        left, right = st.columns(2, gap="large")
    if "histogram" in made["tables"]:
        with left:
            _over_set(made, about_set(subject.model, prompts, made["prompts"]) if prompts is not None else None)
    with right if "histogram" in made["tables"] else left:
        _similar(made["tables"]["similar"])
    dims = ", ".join(str(d) for d in made["outlier_dims"][:12])
    dims = f"dimensions {dims}" if dims else "none"
    last = " Histogram and examples are of the set above, at the last token." if "histogram" in made["tables"] else ""
    st.caption(f"Outlier weights (beyond three standard deviations of its own): {dims}.{last}")
    if prompts is not None:
        _every_token(subject, prompts, *chosen)


def _own_words(words: pd.DataFrame, all_read: bool) -> None:
    number = st.column_config.NumberColumn
    among = "Among the neurons of its layer." + ("" if all_read else " Known once every neuron is read as words.")
    shown = pd.DataFrame({
        "role": words["role"], "tokens": [words_cell(w, 10) for w in words["tokens"]],
        "negated": [words_cell(w, 10) for w in words["negated_tokens"]],
        **{name: words[name] for name in ("entropy", "entropy_percentile", "norm", "norm_percentile")},
    })  # fmt: skip
    st.dataframe(shown, hide_index=True, placeholder="–", column_config={
        "role": st.column_config.TextColumn("Its", width=60),
        "tokens": "Top words",
        "negated": "Top words with a negative coefficient",
        "entropy": number("Entropy, bits", format="%.2f", help=explain("entropy")),
        "entropy_percentile": number("… percentile", format="%.0f", help=among),
        "norm": number("Norm", format="%.3g", help=explain("norm")),
        "norm_percentile": number("… percentile", format="%.0f", help="Among the neurons of its layer."),
    })  # fmt: skip


def _over_set(made: dict[str, Any], about: dict[str, Any] | None) -> None:
    st.markdown("**The prompts that activate it most at their last token**")
    rows = made["tables"]["examples"]
    st.dataframe(
        pd.DataFrame({"prompt": [visible(t) for t in rows["prompt"]], "activation": rows["activation"]}),
        hide_index=True, column_config={
            "prompt": "Prompt",
            "activation": st.column_config.NumberColumn("Activation", format="%+.3f"),
        },
    )  # fmt: skip
    chart = figures.activation_histogram(made["tables"]["histogram"], made["mean"])
    altair_figure(chart, "Activations over the set", about, width="stretch")


def _similar(near: pd.DataFrame) -> None:
    st.markdown("**Neurons that write most nearly the same**")
    names = [f"L{n} N{m}" for n, m in zip(near["layer"], near["neuron"], strict=True)]
    nodes = [f"L{n}.mlp_value{m}" for n, m in zip(near["layer"], near["neuron"], strict=True)]
    st.dataframe(
        pd.DataFrame({"name": names, "cosine": near["cosine"], "tokens": [words_cell(w) for w in near["tokens"]]}),
        hide_index=True, **on_row("similar", nodes, take_neuron),
        column_config={
            "name": "Neuron", "cosine": st.column_config.NumberColumn("Cosine", format="%.3f"),
            "tokens": "Writes",
        },
    )  # fmt: skip


# ---- every token of the set ------------------------------------------------------------------------------------------


def _every_token(subject: Subject, prompts: PromptSet, layer: int, neuron: int) -> None:
    """What activates it anywhere in the set, not at the last tokens only."""
    from visit.analyses.neuron_tokens import TOKENS_RUN, token_tables, tokens_job
    from visit.runs.answers import run_key

    st.markdown("**The tokens that activate it most**")
    model = subject.model
    key = run_key(TOKENS_RUN, model, prompts, layer, neuron)
    make = on_model(model, lambda model: tokens_job(model, prompts.rows, layer, neuron))
    run = watched(("tokens", prompts.hash, layer, neuron), key, make, "Look at every token of the set")
    sums = None if run is None else run.result
    if sums is None or not sums.prompts:
        return
    made = token_tables(model, sums, prompts.prompts)
    with beside("tokens"):
        left, right = st.columns([5, 3], gap="large")
    with left:
        for sign, title in ((1, "Most active"), (-1, "Most negative")):
            rows = made["tokens"]
            _contexts(rows[sign * rows["activation"] > 0], sign, title, prompts)
    with right:
        _token_means(made["token_means"])
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
    places = list(zip(rows["number"].tolist(), rows["position"].tolist(), strict=True))

    def look_there(place: tuple[int, int]) -> None:
        take(prompt=prompts.prompts[place[0]], pos=place[1])

    st.dataframe(
        shown.style.set_properties(subset=["token"], **{"background-color": _TINT[sign]}), hide_index=True,
        height=min(36 * (len(shown) + 1) + 2, 362), **on_row(f"contexts {title}", places, look_there),
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


def _token_means(means: pd.DataFrame) -> None:
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
    if not_recorded(subject, "Over a set of prompts"):
        return None
    st.header("Over a set of prompts", anchor=False)
    return choose_set(subject.model)


def statistics(subject: Subject, chosen: PromptSet) -> tuple[Any, Any] | bool:
    """The set's statistics: (table, sums); with Figure 8 and the findings.

    False before a run; True where they wait for every neuron to be read as words.
    """
    from visit.analyses.neuron_sets import NEURON_RUN, neuron_job, statistics_table
    from visit.analyses.neurons import regularization_findings, regularization_table, regularization_verdict
    from visit.runs.answers import run_key

    model = subject.model
    share: Any = st.segmented_control("Most active: so much of a layer", required=True, **segments("nshare"),
                                      help="The paper counts the 100 most active of 4,096 neurons, 2.44 %; elsewhere "
                                      "the same share.")  # fmt: skip
    key = run_key(NEURON_RUN, model, chosen, share)
    run = watched(
        ("neurons", chosen.hash, share),
        key,
        on_model(model, lambda model: neuron_job(model, chosen.rows, float(share) / 100)),
    )
    if run is None:
        return False
    index = every_neuron(model, "What this set's neurons write, and Figure 8, are shown")
    sums = run.result
    if index is None or sums is None or not sums.prompts:
        return index is None
    with st.container(horizontal=True, vertical_alignment="bottom"):
        about = "How active a neuron is: |activation|, or |activation| × ‖row‖, the length of what it adds."
        measure: Any = st.segmented_control("Activity", required=True, wrap=True, help=about, **segments("activity"))
        st.slider("Always active: among the most active on more than", 50, 100, format="%d %%", width=360,
                  **field("always"))  # fmt: skip
    threshold = state().neurons.always / 100
    stats = statistics_table(model, sums, index, measure, threshold)
    summary = regularization_table(stats)
    agrees, verdict = regularization_verdict(stats)
    st.markdown(f"**{'agrees' if agrees else 'differs'}**: {plain(verdict)}")
    with unfolding("neuron-findings", "The paper's claims about them, one by one") as opened:
        if opened:
            for sentence in regularization_findings(summary, stats, sums.prompts):
                st.caption(plain(sentence))
    altair_figure(
        figures.norm_entropy(stats, None, state().neurons.neuron, threshold), width="stretch",
        **on_point("figure8", "neuron", lambda point: take_neuron(point["node"])),
        alt="Norm against entropy of every neuron", about=about_set(model, chosen, sums.prompts),
    )  # fmt: skip
    st.caption(
        f"Figure 8, {sums.prompts:,} prompts: every dot is a neuron, the length of what it writes against how spread "
        "its words are; the colour is how often it is among its layer's most active. Click one for its card."
    )
    _card_summary(summary)
    return stats, sums


def _card_summary(summary: pd.DataFrame) -> None:
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
        "layer": "Layer", "count": number("Always active", help="How many neurons of this layer."), "which": "Which",
        "top": text("Most frequent", help="The neuron that is most often among its layer's most active."),
        "freq": number("Its share", format="%.0f %%", help="Of the prompts in which it is among the most active."),
        "norm": number("Norm", format="%.0f", help=f"{_MEDIAN} by norm, 0 to 100."),
        "entropy": number("Entropy", format="%.0f", help=f"{_MEDIAN} by entropy, 0 to 100."),
        "words": number("Function", format="%.0f %%", help="Function words among the top words of one of those that "
                                                           "are always active, the highest share."),
        "all": number("… of all", format="%.0f %%", help="The mean share over all neurons of the layer."),
        "spoken": text("Write function words", help="Half of their top words or more."),
        "rogue": number("Rogue", help="How many of them have an outlier weight in a rogue dimension of the stream."),
    })  # fmt: skip
    st.caption("Layer by layer: the neurons that are always active, and how they compare with the others of their "
               "layer (norm and entropy: their median percentile).")  # fmt: skip


_MEDIAN = "The median percentile of those that are always active, among the neurons of their layer,"


def figure9(subject: Subject, prompts: PromptSet, stats: Any, sums: Any) -> None:
    """The weights of a layer's most frequent neurons, dimension by dimension."""
    from visit.analyses.neurons import weight_profile

    layer = chosen_layer(subject)
    profile = weight_profile(subject.model, stats, sums, layer)
    with st.container(height=96 * profile["series"].nunique() + 90, border=False):  # scrolls where it is narrow
        about = about_set(subject.model, prompts, sums.prompts)
        altair_figure(figures.weight_lines(profile), "Weights per dimension", about, width="content")
    st.caption(
        f"Figure 9, layer {layer}: what neurons write, dimension by dimension; dots are weights beyond three standard "
        "deviations of their own vector, upright grey lines, if any, the stream's rogue dimensions."
    )


# ---- every neuron as words, for what asks all of them ----------------------------------------------------------------
UNASKED = 8.0  # seconds of forecast up to which nobody is asked: visit-mini is read while one looks
PATIENCE = 2.0  # … and for which the page waits for it


def every_neuron(model: Model, why: str) -> Any:
    """The static index if it is at hand, else None; then the place says what it takes, and how far it is.

    `why`: what cannot be shown without it, the beginning of a sentence.
    """
    from visit.lenses.weights import ROWS_PER_ITEM, StaticRun, found_index, rows_in_all, weights_key

    found = found_index(model)
    if found is not None:
        return found
    key, rows = ("static index", weights_key(model)), rows_in_all(model)

    def offer(text: str, label: str) -> None:
        st.caption(text)
        if st.button(label, key="every neuron", icon=":material/play_arrow:"):
            start_run(key, on_model(model, StaticRun), SLOW)

    run = SLOW.find(key)
    if run is None:
        seconds = st_index_seconds(model.name)
        if seconds > UNASKED:
            offer(f"{why} once every neuron is read as words: {rows:,} rows of the weights, about {duration(seconds)}, "
                  "once for this model. The rest of the page does not wait for it.", "Read every neuron")  # fmt: skip
            return None
        run = SLOW.submit(key, on_model(model, StaticRun))
        with suppress(VisitError):  # told below
            run.wait(PATIENCE)
    if run.state == "done":
        return run.result
    if run.alive:
        look_again(1.0, _watch_rows, key, short_name(model), rows)
    elif run.error is not None:
        st.error(escaped(str(run.error)), icon=":material/error:")
        offer(f"{why} once every neuron is read as words.", "Try again")
    else:
        done = run.progress.done
        seconds = st_index_seconds(model.name) * (1 - done / max(1, run.progress.total))
        offer(f"Stopped after {done * ROWS_PER_ITEM:,} of {rows:,} rows, which are kept. {why} when all are read: "
              f"about {duration(seconds)} more.", "Resume")  # fmt: skip
    return None


@kept()
def st_index_seconds(name: str) -> float:
    """How long reading every neuron as words will take."""
    from visit.lenses.weights import forecast_seconds

    return forecast_seconds(st_model(name))


def _watch_rows(key: Any, name: str, rows: int) -> None:
    """How far it is, looked at again and again; when it ends the whole page follows."""
    run = SLOW.find(key)
    if run is None or not run.alive:
        st.rerun()
    assert run is not None
    run.look(session().visitor)
    st.progress(min(1.0, run.progress.done / max(run.progress.total, 1)), _rows_so_far(run, name, rows))
    st.button("Stop, and keep what is read", key="stop every neuron", help=SHARED, on_click=stop_run, args=(run,))


def _rows_so_far(run: Run, name: str, rows: int) -> str:
    """`Reading every neuron of SmolLM2 as words: 41,472 of 155,520 rows, about 70 s left`."""
    from visit.lenses.weights import ROWS_PER_ITEM  # rows of one item of the run

    now = run.progress
    start = f"Reading every neuron of {name} as words"
    if run.place:
        return f"{start}: waits for {run.place} other model{'s' if run.place > 1 else ''}"
    left = "" if now.seconds_left is None else f", about {duration(now.seconds_left)} left"
    return f"{start}: {min(rows, now.done * ROWS_PER_ITEM):,} of {rows:,} rows{left}"
