"""The Glossary page: every term with its definition, a formula or a small picture where it helps, under an anchor."""

from __future__ import annotations

from html import escape

from visit.app.widgets import component
from visit.figures.terms import picture
from visit.text.glossary import GROUPS, anchor_of, explain, name_of

# What is added, in the words of the definitions; the formulas of the code they explain are in its docstrings.
FORMULAS = {
    "resid_mid": "resid_mid = resid_pre + attn_out",
    "resid_post": "resid_post = resid_mid + mlp_out",
    "ln1_out": "ln1_out = norm(resid_pre)",
    "ln2_out": "ln2_out = norm(resid_mid)",
    "norm": "‖x‖ = √(x₁² + x₂² + …)",
    "head": "head = Σ pattern(s) · memory value(s), over all positions s up to this one",
    "value": "memory value(s) = v(s) · W_O",
    "pattern": "pattern(s) = softmax over s of q · k(s) / √d_head",
    "attn_out": "attn_out = Σ heads + bias",
    "neuron": "neuron = coefficient · row of W_out",
    "mlp_out": "mlp_out = Σ neurons + bias",
    "unembedding": "logits = ln_final · W_U",
    "probability": "p(word) = exp(logit) / Σ exp(logits)",
    "rank": "rank = 1 + number of words with a higher logit",
    "entropy": "H = −Σ p · log₂ p",
    "lens": "lens(x) = softmax(norm(x) · W_U)",
    "fitted lens": "lens(x) = softmax(norm(x · A + b) · W_U)",
    "intersection": "I_k = (words in both lists of k) / k",
    "js": "½ KL(p, m) + ½ KL(q, m), where m = ½ (p + q)",
    "kl": "Σ p · log₂(p / q), where p is the clean prediction, q the changed one",
    "contribution": "norm(x) · (W_U of the target − mean over all words), the norm's scale held fixed",
    "influence": "x · gradient of the target's logit",
    "effect": "logit of the target as it is − without the part, both over the mean of all words",
    "faithfulness": "(kept only − all replaced) / (as it is − all replaced)",
    "rest": "rest = the whole sum − what is drawn",
}


def page() -> None:
    """The whole page below its title."""
    component("glossary", glossary_html())(key="glossary")


def glossary_html() -> str:
    """All groups as HTML: links to them, then a card a term. Made of our own texts only."""
    links = "".join(f"<a href='#{_slug(group)}'>{escape(group)}</a>" for group in GROUPS)
    cards = "".join(
        f"<h2 id='{_slug(group)}'>{escape(group)}</h2><div class='cards'>{''.join(map(_card, terms))}</div>"
        for group, terms in GROUPS.items()
    )
    return f"<div class='glossary'><nav aria-label='Groups of terms'>{links}</nav>{cards}</div>"


def _slug(group: str) -> str:
    return f"group-{group.lower().replace(' ', '-')}"


def _card(term: str) -> str:
    formula = f"<code>{escape(FORMULAS[term])}</code>" if term in FORMULAS else ""
    return (
        f"<article id='{anchor_of(term)}' tabindex='-1'><div><h3><a href='#{anchor_of(term)}'>{escape(name_of(term))}"
        f"</a></h3><p>{escape(explain(term))}</p>{formula}</div>{picture(term) or ''}</article>"
    )
