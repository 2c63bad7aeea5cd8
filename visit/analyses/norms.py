"""What a norm does to the words: the lens before it, after it, and after each of its steps.

`Δ_w = LL(ln(x))[w] − LL(x)[w]` (paper 5.2). A norm recentres, rescales, multiplies with a gain and adds a bias; read
after each step, the differences add up to Δ. The lens' own final norm recentres and rescales too, so that with it the
first two steps change nothing (but for the norms' ε): the filter is the gain and the bias, not the normalising.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pandas as pd
import torch
from jaxtyping import Float, Int
from torch import Tensor

from visit.activations.record import Activations
from visit.errors import VisitError, check_choice
from visit.exact.decompose import needed, raw_output
from visit.exact.question import ask, check_layer, counted
from visit.lenses.logit import columns_of, lens_logits, read, read_logits, unembed
from visit.models.attention import soft_cap
from visit.models.model import Model, has_norm

# ---- the norms of a model, taken apart -------------------------------------------------------------------------------
NORMS = ("ln1", "ln2", "final")  # the paper's
POST_NORMS = ("post_attn", "post_mlp")  # between what a sub-layer gives and the stream (Gemma 2 and 3, OLMo 2)
_INSIDE = ("ln1", "post_attn", "ln2", "post_mlp")  # of a block, in the order of the data
STEPS = ("centring", "scaling", "gain", "bias")
NormSite = tuple[int | None, str]  # layer and norm; the final norm has no layer


def norm_module(model: Model, layer: int | None, norm: str) -> Any:
    """The norm's module; a `VisitError` for a name or a layer that the model does not have."""
    check_choice("norm", norm, NORMS + POST_NORMS)
    if norm == "final":
        if model.ln_final is None:
            raise VisitError(f"{model.name} has no final norm.")
        return model.ln_final
    check_layer(model, layer)
    if not has_norm(model, norm):
        raise VisitError(f"A block of {model.name} has no {norm} of its own. Ask for {_norms_there(model, norm)}.")
    return model.module(getattr(model.family, norm), layer)


def _norms_there(model: Model, norm: str) -> str:
    if norm == "ln2" and model.family.ln1:
        return "ln1, which attention and MLP share"
    return " or ".join([n for n in _INSIDE if has_norm(model, n)][:2] or ["the final norm"])


def node_of(layer: int | None, norm: str) -> str:
    """The norm's output in the flow graph: `L3.ln1_out`, `ln_final`."""
    names = {"final": "ln_final", "post_attn": f"L{layer}.attn_out", "post_mlp": f"L{layer}.mlp_out"}
    return names.get(norm, f"L{layer}.{norm}_out")


def parts_for(norms: Iterable[str]) -> tuple[str, ...]:
    """What a pass must capture for these norms, besides the stream: a post-norm reads what heads or neurons give."""
    terms = {"post_attn": "z", "post_mlp": "neurons"}
    return ("resid_pre", "resid_mid", "resid_post", *(terms[n] for n in norms if n in terms))


def state_before(model: Model, acts: Activations, layer: int | None, norm: str) -> Float[Tensor, "pos d_model"]:
    """What enters the norm, at every position of the record: the stream, or what a sub-layer gives.

    Where attention and MLP stand side by side there is no resid_mid, and ln2 reads what ln1 reads.
    """
    if norm in POST_NORMS and layer is not None:
        part = norm.removeprefix("post_")
        return raw_output(model, acts, layer, part, slice(None)).to(model.dtype)
    between = "resid_pre" if model.family.parallel else "resid_mid"
    name = {"ln1": "resid_pre", "ln2": between, "final": "resid_post"}[norm]
    return needed(acts, name)[-1 if layer is None or norm == "final" else layer]


def normed(model: Model, layer: int | None, norm: str, x: Float[Tensor, "n d_model"]) -> Float[Tensor, "n d_model"]:
    """`ln(x)` by the module's own forward, past any hook of another thread: what the model itself makes of x."""
    return norm_module(model, layer, norm).forward(x.to(model.dtype)).to(device=x.device, dtype=model.wide)


def norm_steps(
    model: Model, layer: int | None, norm: str, x: Float[Tensor, "n d_model"]
) -> dict[str, Float[Tensor, "n d_model"]]:
    """The vector as it comes (`before`) and after each step that this norm has, by the step's name.

    LayerNorm: centring, scaling, gain, bias (if it has one). RMSNorm: scaling, gain. The last one is the model's own
    output, so that all differences together are the norm's, whatever it rounds.
    """
    module = norm_module(model, layer, norm)
    is_layer = model.family.norm == "layer"
    wide = x.to(model.wide)
    steps = {"before": wide}
    if is_layer:
        steps["centring"] = wide = wide - wide.mean(-1, keepdim=True)
    steps["scaling"] = wide = wide * torch.rsqrt(wide.pow(2).mean(-1, keepdim=True) + model.epsilon(module))
    bias = getattr(module, "bias", None)
    if is_layer and bias is not None:
        steps["gain"] = wide * model.gain(module)
    steps["gain" if bias is None else "bias"] = normed(model, layer, norm, x)
    return steps


def with_final(norm: str, final_norm: bool | None) -> bool:
    """Whether the lens has its final norm: as asked; else yes, but not after the final norm itself (no norm twice)."""
    return norm != "final" if final_norm is None else final_norm


def norm_sites(
    model: Model, layers: Iterable[int] | None = None, norms: Iterable[str] = NORMS + POST_NORMS
) -> list[NormSite]:
    """Every norm of the model, or those chosen, in the order of the data. `VisitError` for one that does not exist."""
    wanted = list(norms)
    chosen = list(range(model.n_layers)) if layers is None else list(layers)
    for norm in wanted:
        for layer in chosen:
            if norm not in NORMS + POST_NORMS or has_norm(model, norm):
                norm_module(model, layer, norm)  # refuses a wrong name or layer
    inside = [n for n in _INSIDE if n in wanted and has_norm(model, n)]
    found: list[NormSite] = [(layer, n) for layer in chosen for n in inside]
    if "final" in wanted and (has_norm(model, "final") or wanted == ["final"]):
        norm_module(model, None, "final")  # refuses where it is all that was asked for and not there
        found.append((None, "final"))
    return found


def logits_of(model: Model, x: Float[Tensor, "n d_model"], final: bool) -> Float[Tensor, "n d_vocab"]:
    """Logits of a few vectors before any soft-cap, by the lens with (`final`) or without its final norm."""
    if not final:
        return unembed(model, x.to(model.wide))
    return torch.cat([logits for _, logits in lens_logits(model, x)])


def probs_of(model: Model, x: Float[Tensor, "n d_model"], final: bool, dtype: torch.dtype | None = None) -> Tensor:
    """Probabilities of a few vectors `[n, d_vocab]`, past the soft-cap where the family has one."""
    logits = logits_of(model, x, final)
    return soft_cap(logits.to(dtype or logits.dtype), model.logit_cap).softmax(-1)


def ranks_of(values: Float[Tensor, " d_vocab"]) -> Int[Tensor, " d_vocab"]:
    """1 + how many are larger, for every word: 1 = largest, equal ones share a rank."""
    return 1 + torch.searchsorted((-values).sort().values, -values)


def token_shift(
    model: Model, acts: Activations, layer: int | None, norm: str = "ln1", pos: int = -1,
    target: int | str | None = None, k: int | None = 10, final_norm: bool | None = None,
) -> pd.DataFrame:  # fmt: skip
    """What one norm does to the words at one position: a row per word, the most probable before it first.

    Rows: the k top words before and after, the k that lose and that gain most, the target; k=None: every word.
    Columns: `id`, `token`, `before_prob`, `before_rank`, `after_prob`, `after_rank` (1 = most probable of d_vocab),
    `delta` (after − before, probability), its steps `centring`, `scaling`, `gain`, `bias`, which add up to it (missing
    where the norm has no such step), `falls`, `rises` (place among all words: 1 = loses, gains most), `is_target`.
    `norm`: "ln1", "ln2", "final" (`layer` is then not looked at), "post_attn", "post_mlp" (between a sub-layer and the
    stream, where a family has them); in a block with one shared norm that one is ln1, and ln2 a `VisitError`.
    `target` None: the prediction at `pos`. `final_norm`: whether the lens applies the final norm; None: yes, but for
    "final" no, so that its `after` is the model's prediction and no norm is applied twice.
    Needs resid_pre, resid_mid or resid_post (a post-norm z or neurons), and logits where no target is given. Raises
    `VisitError` for a wrong norm, layer, position, word or k. Source: paper section 5.2, App. E; the steps are ours.
    """
    norm_module(model, layer, norm)
    t = acts.index(pos)
    wanted = ask(model, acts, t, target).target
    with torch.no_grad():
        steps = norm_steps(model, layer, norm, state_before(model, acts, layer, norm)[t : t + 1])
        logits = logits_of(model, torch.cat(list(steps.values())), with_final(norm, final_norm))
        probs = soft_cap(logits.cpu().double(), model.logit_cap).softmax(
            -1
        )  # the differences are to add up, whatever the model's precision
        ranks = ranks_of(logits[0]), ranks_of(logits[-1])
    changes = dict(zip(list(steps)[1:], probs.diff(dim=0), strict=True))
    table = word_table(model, probs[0], probs[-1], ranks, changes)
    table["is_target"] = table["id"] == wanted
    return table if k is None else extremes(table, counted(model, k))


def word_table(
    model: Model, before: Tensor, after: Tensor, ranks: tuple[Tensor, Tensor], changes: dict[str, Tensor] | None = None
) -> pd.DataFrame:
    """Every word of the vocabulary before and after, as `token_shift` documents; ordered by what stood before."""
    delta = after - before
    columns: dict[str, Any] = {
        "id": range(model.d_vocab), "token": model.vocabulary,
        "before_prob": before.cpu().double(), "before_rank": ranks[0].cpu(),
        "after_prob": after.cpu().double(), "after_rank": ranks[1].cpu(), "delta": delta.cpu().double(),
    }  # fmt: skip
    if changes is not None:
        missing = torch.full_like(delta, torch.nan)
        columns |= {name: changes.get(name, missing).cpu().double() for name in STEPS}
    columns |= {"falls": ranks_of(-delta).cpu(), "rises": ranks_of(delta).cpu()}
    table = pd.DataFrame({name: column.numpy() if isinstance(column, Tensor) else column
                          for name, column in columns.items()})  # fmt: skip
    return table.sort_values(["before_rank", "id"], ignore_index=True)


def extremes(table: pd.DataFrame, k: int) -> pd.DataFrame:
    """The rows of a word table that name something: top k before and after, the k that fall and rise most, target.

    Only words that do fall fall, however few they are.
    """
    named = set(table.index[table["is_target"]]) if "is_target" in table else set()
    falling, rising = table[table["delta"] < 0], table[table["delta"] > 0]
    for rows, column in ((table, "before_rank"), (table, "after_rank"), (falling, "falls"), (rising, "rises")):
        named |= set(rows.nsmallest(k, column).index)
    return table.loc[sorted(named)].reset_index(drop=True)


def target_shifts(
    model: Model, acts: Activations, pos: int = -1, target: int | str | None = None, final_norm: bool | None = None
) -> pd.DataFrame:
    """The target before and after every norm of the model at one position: a row per norm, in the order of the data.

    Columns: `layer` (missing for the final norm), `norm`, `node` (id of its output in the flow graph), `before_prob`,
    `before_rank`, `after_prob`, `after_rank`, `delta` (probability), `before_token`, `after_token` (the top words).
    A block with one shared norm has no ln2 row. Arguments and errors as `token_shift`. Source: paper App. E; ours.
    """
    t = acts.index(pos)
    wanted = ask(model, acts, t, target).target
    sites = norm_sites(model)
    with torch.no_grad():
        before = torch.cat([state_before(model, acts, layer, norm)[t : t + 1] for layer, norm in sites]).to(model.wide)
        parts = [normed(model, *site, x[None]) for site, x in zip(sites, before, strict=True)]
        both = [_target_columns(model, x, sites, wanted, final_norm) for x in (before, torch.cat(parts))]
    table = pd.DataFrame(sites, columns=["layer", "norm"]).astype({"layer": "Int64"})
    table["node"] = [node_of(*site) for site in sites]
    for side, columns in zip(("before", "after"), both, strict=True):
        table[f"{side}_prob"], table[f"{side}_rank"] = columns["prob"], columns["rank"]
        table[f"{side}_token"] = [words[0] for words in columns["tokens"]]
    table["delta"] = table["after_prob"] - table["before_prob"]
    order = ["layer", "norm", "node", "before_prob", "before_rank", "after_prob", "after_rank", "delta"]
    return table[[*order, "before_token", "after_token"]]


def _target_columns(
    model: Model, x: Tensor, sites: list[NormSite], target: int, final_norm: bool | None
) -> dict[str, list[Any]]:
    """What vectors read, each with the lens of its site."""
    final = torch.tensor([with_final(norm, final_norm) for _, norm in sites], device=x.device)
    parts = []
    for lens in (True, False):
        rows = x[final == lens]
        found = (
            read(model, rows, target, 1) if lens
            else read_logits(model, unembed(model, rows), target, 1, model.logit_cap)
        )  # fmt: skip
        parts.append(pd.DataFrame(columns_of(model, found)))
    places = torch.cat([(final == lens).nonzero()[:, 0] for lens in (True, False)]).cpu().numpy()
    return pd.concat(parts).set_index(places).sort_index().to_dict("list")
