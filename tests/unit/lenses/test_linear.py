"""A fitted lens: its maps are the least squares of what the model wrote, it reads one model only, and it can fail."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import models
import numpy as np
import pytest
import torch

import visit
from visit import VisitError, capture, capture_many, fit_lens, lens_map, read_vectors
from visit.analyses.divergence import part
from visit.analyses.token_alignment import pair
from visit.lenses import trust
from visit.lenses.fit_linear import LensFit
from visit.lenses.least_squares import RIDGE
from visit.lenses.logit import final_norm, unembed
from visit.lenses.written_rows import STRETCH, drawn
from visit.runs.prompts import shipped_set

FACTS = [row.prompt for row in shipped_set("facts").rows[::10]]


@cache
def mini():
    return visit.load_model("visit-mini")


@cache
def mini_lens():
    return fit_lens(mini())


@cache
def small_lens(name="llama"):
    return fit_lens(models.small(name), tokens=400)


def straight(model, job):
    """A and b of every state by a plain forward pass over what was written, and by numpy: `{site: (A, b)}`."""
    rows = job.ids[: -job._held]
    records = list(capture_many(model, [list(map(int, row)) for row in rows], ("resid_pre", "resid_mid", "resid_post")))
    goal = torch.cat([acts.resid_post[-1, 1:] for acts in records]).double().numpy()
    found = {}
    for site, layer in job.sites:
        x = torch.cat([getattr(acts, site)[layer, 1:] for acts in records]).double().numpy()
        keep = np.ones(len(x), bool)
        for length in (np.linalg.norm(x, axis=1), np.linalg.norm(goal, axis=1)):
            keep &= length <= 10 * np.median(length)
        mean_x, mean_y = x[keep].mean(0), goal[keep].mean(0)
        centred = x[keep] - mean_x
        square = centred.T @ centred
        square += RIDGE * np.diag(square).mean() * np.eye(len(square))
        a = np.linalg.solve(square, centred.T @ (goal[keep] - mean_y))
        found[site, layer] = a, mean_y - mean_x @ a
    return found


@pytest.mark.parametrize("name", models.NAMES)
def test_the_maps_are_the_least_squares_of_what_the_model_wrote(name, monkeypatch):
    monkeypatch.setattr("visit.lenses.least_squares.compact", lambda maps: maps.to(torch.float32))
    model = models.small(name)
    job = LensFit(model, tokens=400)
    job.update(job.items)
    lens = job.snapshot()
    assert ("resid_mid", 0) in lens.sites or model.family.parallel
    assert {("resid_pre", 0), ("resid_post", 0)} <= set(lens.sites)
    for place, (a, b) in enumerate(straight(model, job).values()):
        got = torch.cat([lens.maps[place].double(), lens.bias[place].double()[None]]).numpy()
        true = np.vstack([a, b])
        assert np.abs(got - true).max() <= 2e-3 * np.abs(true).max(), (name, lens.sites[place])


WORDS = " ".join(row.prompt + "." for row in shipped_set("facts").rows)


@pytest.mark.slow
@pytest.mark.parametrize("text", [None, WORDS], ids=["written", "given"])
def test_a_fit_that_is_stopped_goes_on_to_the_same_words_and_maps(text):
    model = models.small("llama")
    whole = LensFit(model, 400, text)
    whole.update(whole.items)
    kinds = [item.kind for item in whole.items]
    solved = kinds.index("solve")
    for stop in {1, min(7, solved - 1), solved, solved + 1, len(kinds) - 1, len(kinds)}:
        first, second = LensFit(model, 400, text), LensFit(model, 400, text)
        first.update(first.items[:stop])
        second.load(first.state())
        second.update(second.items[stop:])
        assert (second.ids == whole.ids).all()
        torch.testing.assert_close(second.snapshot().maps, whole.snapshot().maps, atol=1e-2, rtol=1e-2)
        assert second.snapshot().report["kl"].to_numpy() == pytest.approx(whole.snapshot().report["kl"], abs=0.02)


@pytest.mark.parametrize("width", [1, 7, STRETCH, STRETCH + 1, 3 * STRETCH - 5])
def test_a_word_is_drawn_at_its_place_among_the_sums_of_all_words(width):
    """The oracle: the sums of every word, in float64, and the same number a row."""
    logits = 3 * torch.randn(500, width, generator=torch.Generator().manual_seed(width))
    sums = logits.double().softmax(-1).cumsum(-1)
    place = torch.rand(len(sums), 1, generator=torch.Generator().manual_seed(5), dtype=torch.float64) * sums[:, -1:]
    got = drawn(logits, torch.Generator().manual_seed(5))
    assert (got == torch.searchsorted(sums, place, right=True)[:, 0].clamp(max=width - 1)).float().mean() > 0.995
    before = torch.cat([torch.zeros(len(sums), 1), sums], dim=1)
    low, high = (before.gather(1, got[:, None] + end) for end in (0, 1))
    assert (low <= place + 1e-5).all() and (place - 1e-5 <= high).all(), "else a neighbour, by rounding"


def test_what_is_no_number_draws_no_word():
    logits = torch.zeros(3, 400)
    logits[1, 7] = float("nan")
    assert drawn(logits, torch.Generator().manual_seed(0)).tolist()[1] == -1
    assert (drawn(logits, torch.Generator().manual_seed(0))[[0, 2]] >= 0).all()


@pytest.mark.parametrize("name", models.NAMES)
def test_what_is_held_out_is_kept_while_it_is_written_as_a_forward_pass_reads_it(name):
    model = models.small(name)
    job = LensFit(model, tokens=400)
    solve = [item.kind for item in job.items].index("solve")
    job.update(job.items[:solve])
    kept = job._compared
    held = torch.from_numpy(job.ids[-job._held :])
    torch.testing.assert_close(kept, trust.held_states(model, held, job.reported), rtol=1e-4, atol=1e-4)
    assert kept.shape == (model.n_layers, job.reported, model.d_model)


def test_the_report_is_what_probabilities_in_float64_say():
    model, lens = models.small("llama"), small_lens()
    states = trust.held_states(model, lens.held_out, 100)
    final = unembed(model, final_norm(model, states[-1])).double()
    found = trust.report(model, lens, 100)
    for layer in range(model.n_layers - 1):
        for column, x in (("kl_plain", states[layer]), ("kl", lens.carry(states[layer], layer))):
            own = unembed(model, final_norm(model, x)).double()
            gap = (final.softmax(-1) * (final.log_softmax(-1) - own.log_softmax(-1))).sum(-1).mean() / np.log(2)
            assert found[column][layer] == pytest.approx(gap.item(), abs=1e-5)
            top = (own.argmax(-1) == final.argmax(-1)).double().mean().item()
            assert found[column.replace("kl", "top1")][layer] == pytest.approx(top)


def test_seeds_decide_what_is_written():
    texts = [fit_lens(models.small("gpt2"), 200, seed=seed).held_out for seed in (0, 0, 1)]
    assert (texts[0] == texts[1]).all() and (texts[0] != texts[2]).any()


def test_on_visit_mini_it_is_nearer_to_the_prediction_at_every_block_but_the_last():
    report = mini_lens().report
    assert (report["kl"] < report["kl_plain"])[:-1].all() and (report["top1"] >= report["top1_plain"]).all()
    assert report.iloc[-1][["kl_plain", "kl"]].abs().max() == 0 and report.iloc[-1]["top1"] == 1
    again = trust.report(mini(), mini_lens(), 2000)
    assert np.allclose(again, report, atol=1e-4)


def test_plain_reading_is_bit_for_bit_what_it_was_and_the_last_state_is_the_models_own():
    acts = capture(mini(), "The capital of Japan is the city of")
    x = acts.resid_post[3]
    assert read_vectors(mini(), x).equals(read_vectors(mini(), x, lens=None, layer=3))
    plain, fitted = lens_map(mini(), acts), lens_map(mini(), acts, lens=mini_lens())
    last = fitted["depth"] == mini().n_layers
    assert fitted[last][list(plain)].equals(plain[last]) and not fitted[list(plain)].equals(plain)
    row = read_vectors(mini(), acts.resid_post[3, -1], lens=mini_lens(), layer=3).iloc[0]
    cell = fitted[(fitted["layer"] == 3) & (fitted["pos"] == len(acts.tokens) - 1)].iloc[0]
    assert row["tokens"][:5] == cell["tokens"] and row["probs"][0] == pytest.approx(cell["top_prob"], rel=1e-4)
    embedding = read_vectors(mini(), acts.resid_pre[0, -1], lens=mini_lens(), layer=-1).iloc[0]
    assert embedding["tokens"][0] == fitted[fitted["depth"] == 0].iloc[-1]["top"]


def test_what_any_text_leads_to_expect_is_beside_what_is_read():
    acts = capture(mini(), "The capital of Japan is the city of")
    table = lens_map(mini(), acts, " Tokyo", lens=mini_lens())
    assert table.loc[table["depth"] > 0, ["usual", "target_usual"]].notna().all(axis=None)
    assert table.loc[table["depth"] == 0, "usual"].isna().all()
    assert (mini_lens().habit.float().sum(-1) - 1).abs().max() < 0.05
    late = table[(table["depth"] == 7) & (table["pos"] == len(acts.tokens) - 1)].iloc[0]
    assert late["prob"] > 10 * late["target_usual"]


def test_where_two_runs_part_is_read_through_the_lens():
    prompts = "The capital of Japan is the city of", "The capital of France is the city of"
    a, b = (capture(mini(), prompt) for prompt in prompts)
    pairing = pair(mini(), a, mini(), b)
    plain = part(mini(), a, mini(), b, pairing)
    fitted = part(mini(), a, mini(), b, pairing, lenses=(mini_lens(), mini_lens()))
    deep = plain["depth"] == mini().n_layers
    assert fitted[deep].equals(plain[deep]) and (fitted["cosine"] == plain["cosine"]).all()
    assert (fitted["js"] != plain["js"]).any()


# ---- the controls --------------------------------------------------------------------------------------------------
def test_wrong_answers_stay_low_and_what_is_read_is_of_this_prompt():
    table = mini_lens().controls(mini(), FACTS)
    late = table.iloc[-3]
    assert late["right_rank"] <= 2 and late["wrong_rank"] > 20
    assert late["own_share"] > late["other_share"] + 0.2
    assert table.iloc[-1]["right_rank"] == table.iloc[-1]["right_rank_plain"] == 1


def test_a_state_that_is_put_into_another_prompt_brings_its_answer_where_the_lens_names_it():
    table = trust.arrivals(mini(), mini_lens(), FACTS)
    assert table["arrives"].iloc[-1] == 1.0, "all that follows the last block is read from its state"
    assert table["arrives"].iloc[0] < 0.3
    seen = table[table["names"] > 0.8]
    assert (seen["arrives"] > 0.5).all(), "the lens names no answer long before it arrives"


def test_maps_of_other_blocks_or_of_other_rows_read_worse():
    lens = mini_lens()
    turned = trust.report(mini(), trust.shuffled_layers(lens), 300)
    straight = trust.report(mini(), lens, 300)
    assert (turned["kl"][3:-1] > straight["kl"][3:-1]).all()
    mixed = replace(fit_lens(mini(), shuffled=True), held_out=lens.held_out)
    assert (trust.report(mini(), mixed, 300)["kl"][:-1] > straight["kl"][:-1] + 0.2).all()


def test_the_controls_as_a_job_go_on_where_they_stopped():
    whole, first = (trust.ControlRun(mini(), mini_lens(), FACTS) for _ in range(2))
    whole.update(whole.items)
    first.update(first.items[:3])
    second = trust.ControlRun(mini(), mini_lens(), FACTS)
    second.load(first.state())
    second.update(second.items[3:])
    assert second.snapshot().equals(whole.snapshot()) and whole.snapshot().equals(mini_lens().controls(mini(), FACTS))
    tables = (trust.wrong_answers, trust.specific, trust.arrivals)
    assert all(make(mini(), mini_lens(), FACTS).equals(whole.snapshot()[list(make(mini(), mini_lens(), FACTS))])
               for make in tables)  # fmt: skip


def test_the_sentences_of_the_controls_say_what_failed():
    from visit.narrate.lens import trusted

    table = mini_lens().controls(mini(), FACTS)
    text = " ".join(trusted(table))
    at = table[table["right_rank"] < 2].iloc[0]
    assert f"after block {int(at['layer'])}" in text and f"rank {at['wrong_rank']:,.0f} (median)" in text
    assert "It names an answer where it causally arrives, not before" in trusted(table.assign(names=0.0))[2]
    assert "In no block" in trusted(table.assign(right_rank=9.0))[0]
    assert "stand high, too" in trusted(table.assign(wrong_rank=table["right_rank"]))[0]
    assert "fits other prompts nearly as well" in trusted(table.assign(other_share=table["own_share"]))[1]
    assert "before they arrive: after block 0" in trusted(table.assign(names=1.0, arrives=[0.1] + [1.0] * 7))[2]


def test_controls_need_two_answers():
    with pytest.raises(VisitError, match="different answers"):
        mini_lens().controls(mini(), FACTS[:1])


# ---- what it is fitted to ------------------------------------------------------------------------------------------
def test_too_few_tokens_and_a_short_text_say_how_many_are_needed():
    model = models.small("llama")
    with pytest.raises(VisitError, match=r"at least 72 tokens \(3 × d_model\); got 71"):
        fit_lens(model, tokens=71)
    with pytest.raises(VisitError, match=r"at least 79 tokens"):
        fit_lens(model, text="The capital of Japan is the city of Tokyo.")
    for text in ("", "  \n", []):
        with pytest.raises(VisitError, match="is empty"):
            fit_lens(model, text=text)


def test_a_text_of_ones_own_is_read_instead_and_named():
    lens = fit_lens(mini(), tokens=2000, text=WORDS)
    assert lens.meta["text"].startswith("a given text (") and "of a given text" in lens.name
    assert (lens.report["kl"] < lens.report["kl_plain"])[3:-1].all()
    assert fit_lens(mini(), tokens=2000, text=WORDS).maps.equal(lens.maps)


def test_a_model_whose_samples_end_at_once_asks_for_a_text():
    model = models.small("llama")
    words = models.tokenizer()
    words.add_special_tokens({"bos_token": "<s>", "eos_token": "</s>"})
    end = words.eos_token_id
    ending = replace(model, tokenizer=words)

    class Ends:
        def __getattr__(self, name):
            return getattr(model.hf, name)

        def __call__(self, *args, **options):
            out = model.hf(*args, **options)
            out.logits[:] = -50.0
            out.logits[..., end] = 50.0
            return out

    with pytest.raises(VisitError, match="ends at once"):
        fit_lens(replace(ending, hf=Ends()), tokens=400)


def test_progress_reaches_its_end_and_says_what_is_done():
    seen = []
    fit_lens(models.small("gpt2"), 200, progress=lambda share, doing: seen.append((share, doing)))
    shares = [share for share, _ in seen]
    assert shares == sorted(shares) and shares[-1] == pytest.approx(1)
    assert {"fitting the maps", "comparing on text not used"} <= {doing for _, doing in seen}


# ---- in the graph --------------------------------------------------------------------------------------------------
STATES = ("resid_pre", "resid_mid", "resid_post")


def test_the_states_of_a_graph_are_read_through_the_lens_and_nothing_else_changes():
    model, lens = mini(), mini_lens()
    acts = capture(model, "The capital of Japan is the city of")
    plain, fitted = visit.build_flow_graph(model, acts), visit.build_flow_graph(model, acts, lens=lens)
    assert "lens" not in plain.meta and fitted.meta["lens"]["name"] == "fitted on 8,000 tokens that the model wrote"
    assert fitted.edges.equals(plain.edges) and fitted.meta["ledger"]["holds"]
    state = plain.nodes["kind"].isin(STATES)
    assert fitted.nodes[~state].equals(plain.nodes[~state])
    for column in ("id", "norm", "coefficient", "contribution"):
        assert fitted.nodes[column].equals(plain.nodes[column]), column
    assert (fitted.nodes[state]["rank"] != plain.nodes[state]["rank"]).any()
    for row in fitted.nodes[state].itertuples():
        vector = getattr(acts, row.kind)[row.layer, -1:].to(model.wide)
        target = fitted.meta["target"]["id"]
        own = read_vectors(model, lens.carry(vector, row.layer, row.kind), target).iloc[0]
        assert row.rank == own["rank"] and row.prob == pytest.approx(own["prob"], rel=1e-3, abs=1e-7), row.id
    last = fitted.by_id[f"L{model.n_layers - 1}.resid_post"]
    assert last.tokens == plain.by_id[last.id].tokens


def test_an_extended_and_a_folded_graph_keep_the_lens():
    from visit.graph.build import build_folded_graph, extend

    model, lens = mini(), mini_lens()
    acts = capture(model, "The capital of Japan is the city of")
    graph = visit.build_flow_graph(model, acts, layers=[3], keep=visit.Keep(heads=1), lens=lens)
    more = extend(graph, ["L3.head5"])
    assert more.meta["lens"] == graph.meta["lens"] and len(more.nodes) > len(graph.nodes)
    assert all(more.by_id[name].tokens == node.tokens for name, node in graph.by_id.items() if node.kind in STATES)
    folded = build_folded_graph(model, acts, layers=[3], opened=[], lens=lens)
    unfolded = build_folded_graph(model, acts, layers=[3], opened=[3], known=folded.by_id.values(), lens=lens)
    assert all(unfolded.by_id[n].tokens == graph.by_id[n].tokens for n, x in graph.by_id.items() if x.kind in STATES)


def test_a_graph_takes_no_lens_of_another_model():
    model = models.small("gpt2")
    with pytest.raises(VisitError, match="other weights"):
        visit.build_flow_graph(model, capture(model, [1, 2]), lens=small_lens())


@pytest.mark.parametrize("name", ("llama", "neox", "gemma3"))
def test_the_parts_of_a_state_carried_one_by_one_and_the_bias_are_the_state_carried(name):
    """Linear in its argument; of a parallel block, and behind a post-norm, the parts as they stand in the stream."""
    from visit.exact.decompose import head_results, rows_and_bias

    model = models.small(name)
    lens, acts = small_lens(name), capture(model, [3, 1, 4, 1, 5])
    for layer in range(model.n_layers):
        x = acts.resid_post[layer].to(model.wide)
        parts = [getattr(acts, part)[layer].to(model.wide) for part in ("resid_pre", "attn_out", "mlp_out")]
        carried = [lens.carry_part(part, layer) for part in parts]
        last = layer == model.n_layers - 1
        bias = 0 if last else lens.bias[lens.sites.index(("resid_post", layer))]
        torch.testing.assert_close(sum(carried) + bias, lens.carry(x, layer), rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(lens.carry_part(2 * x, layer), 2 * lens.carry_part(x, layer))
        assert not last or lens.carry_part(x, layer).equal(x)
        heads, added = head_results(model, acts, layer, 4), rows_and_bias(model, acts, layer, "attn", 4)[1]
        whole = lens.carry_part(heads, layer).sum(0)
        whole = whole if added is None else whole + lens.carry_part(added[None], layer)[0]
        torch.testing.assert_close(whole, carried[1][4], rtol=1e-4, atol=1e-4)


def test_parts_of_attention_are_carried_only_when_asked_and_no_number_of_the_ledger_changes():
    from visit.exact.decompose import head_results
    from visit.graph.build import build_folded_graph, extend
    from visit.graph.flowgraph import of_attention

    model, lens = mini(), mini_lens()
    acts = capture(model, "The capital of Japan is the city of")
    plain = visit.build_flow_graph(model, acts, lens=lens)
    carried = visit.build_flow_graph(model, acts, lens=lens, carry_parts=True)
    assert carried.meta["lens"]["carries_parts"] and carried.meta["ledger"]["holds"]
    assert carried.edges.equals(plain.edges)
    for column in ("id", "norm", "coefficient", "contribution"):
        assert carried.nodes[column].equals(plain.nodes[column]), column
    attention = np.array([of_attention(node) for node in plain.by_id.values()])
    assert carried.nodes[~attention].equals(plain.nodes[~attention])
    kinds = {node.kind for node, one in zip(plain.by_id.values(), attention, strict=True) if one}
    assert kinds == {"head", "value", "attn_out", "rest"}
    for layer in (2, 5):
        words = lens.carry_part(head_results(model, acts, layer, len(acts.tokens) - 1), layer)
        own = read_vectors(model, words)["tokens"]
        shown = [carried.by_id[f"L{layer}.head{j}"].tokens for j in range(model.n_heads)]
        assert [list(tokens) for tokens in shown] == own.tolist()
    few = visit.build_flow_graph(model, acts, layers=[3], keep=visit.Keep(heads=1), lens=lens, carry_parts=True)
    more = extend(few, ["L3.head5"])
    assert more.by_id["L3.head5"].tokens == carried.by_id["L3.head5"].tokens
    folded = build_folded_graph(model, acts, layers=[3], lens=lens, carry_parts=True)
    head = next(node for node in folded.by_id.values() if node.kind == "head")
    assert head.tokens == carried.by_id[head.id].tokens
    with pytest.raises(VisitError, match="Only a fitted lens carries parts"):
        visit.build_flow_graph(model, acts, carry_parts=True)


def test_a_drawing_and_its_inspector_name_the_lens():
    from visit.drawing.inspector import inspect

    model, lens = mini(), mini_lens()
    acts = capture(model, "The capital of Japan is the city of")
    plain, fitted = (
        visit.build_flow_graph(model, acts),
        visit.build_flow_graph(model, acts, lens=lens, carry_parts=True),
    )
    assert "· plain lens" in visit.draw(plain)
    assert "states and attention through the lens fitted on 8,000 tokens that the model wrote" in visit.draw(fitted)
    assert "carried to the last block by the fitted lens" in inspect(fitted, "L2.resid_post")["how"]
    assert "linear part of the fitted lens" in inspect(fitted, "L2.head3")["how"]
    assert all("fitted" not in inspect(fitted, name)["how"] for name in ("L7.resid_post", "L2.mlp_out", "L2.ln1_out"))
    assert "fitted" not in inspect(plain, "L2.resid_post")["how"]
