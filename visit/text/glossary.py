"""One definition per term: hover help wherever the term stands, notes in sentences, and the Glossary page.

A new term gets its definition in `GLOSSARY`, its place in `GROUPS`, and where sentences use it a form in `FORMS`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

GLOSSARY: dict[str, str] = {
    "token": "What the model reads: a word, a part of a word, or a byte. A leading space belongs to the token and is "
    "shown as ·.",
    "whole words": "A vocabulary holds pieces of words (…tion), signs, white space (␣ a space, ⏎ a line break) and "
    "bytes (\\xe6) beside words, and a vector may read any of them. Switched on, lists of top words show whole words "
    "only; no number changes, and states, maps and predictions still show what is first.",
    "position": "The place of a token in the prompt, from 0. Everything on a page is about one position: the "
    "model's guess of the token that follows it.",
    "prompt": "The text the model reads. It is passed on exactly as typed. Enter runs it, Shift+Enter begins a "
    "new line.",
    "chat message": "Models of today are trained on chats: what is typed stands between control tokens that say who "
    "speaks, and the model's answer begins after them. The tokenizer's chat template writes them; control tokens typed "
    "inside a message stay text.",
    "target": "The word whose fate is followed: its probability and rank colour the nodes, and contributions are "
    "measured towards it. It must be one token; inside a text a word's token begins with its space (type it in front). "
    "Empty: the model's own prediction.",
    "distractor": "A second word to compare with. Contributions then measure the difference of the two logits, target "
    "minus distractor.",
    "logit": "The model's raw score of a word before the softmax. Adding the same number to all logits changes "
    "nothing, so only differences mean something.",
    "probability": "The share of belief in a word, after the softmax: between 0 and 1, over all words together 1.",
    "rank": "1 + the number of words with a higher logit. 1 is the most probable word; the last rank is as many as "
    "the vocabulary has words.",
    "entropy": "How spread a distribution over words is, in bits: 0 when one word has everything, log₂ of the "
    "vocabulary's size when all words are equal.",
    "norm": "The length of a vector. The lens ignores it; in a sum, long vectors count for more.",
    "coefficient": "The number a node's vector is multiplied with before it is added: the pattern for a memory value, "
    "the activation for a neuron.",
    "contribution": "Direct logit attribution: how many logits this vector adds to the target, relative to the mean "
    "over all words (or to the distractor), with the final norm frozen at this position. Contributions add up.",
    "influence": "How the target's logit would change, to first order, with this part: through everything that later "
    "blocks make of it, and through the final norm. One backward pass gives it for all parts. It foresees what taking "
    "a part out does; only the effect measures it.",
    "effect": "What really happens when a part is taken out, or replaced: the rest of the model answers anew, and the "
    "target's logit is compared. Shown as a change: below 0 the answer falls, so the part speaks for the target; its "
    "colour is then that of a positive contribution.",
    "role": "What a head does for one kind of question, by measured criteria. A mover attends to the target and adds "
    "what it reads there; a negative mover attends to it and takes; a suppressor attends to the distractor and pushes "
    "it down; an inhibitor adds next to nothing itself, and without it, or along a path from it, the answer falls. The "
    "numbers and thresholds stand where a role is named (Wang et al. 2022, made into numbers).",
    "edit": "A change of one part of the pass: taken out, scaled, replaced by its mean or by what it is in the other "
    "prompt. The model then runs again with it, so that what follows is measured. Changes act together.",
    "activation patching": "One value of prompt B is put where prompt A has its own, and everything after it is "
    "computed anew. How far does the answer go from A’s (0) to B’s (1)? Near 1: this value alone carries B’s answer. "
    "Single effects need not add up to 1.",
    "path patching": "What a head says to one later place alone: it gets its value from a partner text, every other "
    "head is held, and what then arrives at that place is put into the run (Wang et al. 2022).",
    "attribution patching": "The estimate of all patches at once: how much B’s value differs from A’s, times what one "
    "backward pass says of it. It misses what is saturated, so the largest are then measured, and marked.",
    "band": "Where a mean would lie with many more such prompts: of a hundred such bands about 95 hold the true mean. "
    "It comes from how much the prompts differ (Student's t); a band that contains 0 says that the sign is not sure.",
    "partner": "A text of the same form with other words, given with a line of a set (its column abc). Putting its "
    "values in takes away what this text's own words bring, and leaves what any text of this form has.",
    "faithfulness": "A graph that shows few parts claims that they are what matters. Test: replace all others, and see "
    "how much of the answer the kept ones bring back; 0: as when all are replaced, 100 %: as it is.",
    "causal trace": "The subject of a prompt is made unreadable by noise on its embeddings; then one state at a time "
    "is put back from the run without noise. A state that brings the answer back is enough for it: the answer passes "
    "there. It does not say where the answer is stored, and depends on the noise.",
    "kl": "How far the whole prediction has moved, in bits: the Kullback–Leibler divergence of the changed prediction "
    "from the clean one. 0: nothing changed.",
    "intersection": "How alike two vectors read: of the k most probable words of each, the share that both have. "
    "0: no word in common, 1: the same words, in whatever order. The paper writes I_k and takes k = 50.",
    "rbo": "Rank-biased overlap: like I_k, with the order counted, too. The first words weigh most; 1 means equal "
    "lists.",
    "js": "How far two predictions lie apart, in bits: the Jensen–Shannon divergence. 0 when they are equal, 1 when "
    "they have no word in common, the same in both directions.",
    "lens": "The logit lens: a vector is passed through the final norm and the unembedding as if it were the last "
    "state, and read as words. It says what a vector is about, not how much it moves.",
    "fitted lens": "The plain lens reads a state of a middle block as if it were the last one. A fitted lens first "
    "carries it there, by one linear map per block, fitted in closed form to text that the model itself writes. It "
    "shows what the state leads to in this model; contributions never go through it.",
    "carried parts": "What a head or a memory value adds is read after the linear map of its block. Better around the "
    "blocks where an answer is made (on SmolLM2 at block 23 some head then has the answer among its first ten words in "
    "65 of 100 prompts, plainly in 40), not everywhere. Norms, contributions, neurons and MLPs stay as they are.",
    "block": "One layer of the model: attention first, then the MLP. Each reads the residual stream and adds to it. A "
    "small model has about ten blocks one after the other, a large one about a hundred.",
    "embedding": "The vector that a token starts with, before the first block: a row of a table that the model has "
    "learned (in some families with a vector for the position added).",
    "unembedding": "The matrix W_U that turns the last state into logits: one direction for every word of the "
    "vocabulary. A state that points along a word's direction gives that word a high logit.",
    "layer norm": "Brings a vector to a standard length before a part reads it (most kinds also weigh each entry with "
    "a learned gain). It changes how long a vector is; through the gain it "
    "may also change which words it reads.",
    "attention": "The part of a block that moves information between positions: its heads look at earlier tokens and "
    "fetch something from there.",
    "mlp": "The part of a block that works on one position alone: thousands of neurons, each of which looks for "
    "something in the stream and writes something into it.",
    "neuron": "One unit of an MLP. It compares the stream with its key; how well they fit is its coefficient, and "
    "that many times it writes its value into the stream. Written L14 N2071: layer 14, neuron 2071.",
    "residual stream": "The vector that runs through all blocks at one position. Attention and MLP read from it and "
    "add to it.",
    "resid_pre": "The residual stream where it enters a block.",
    "resid_mid": "The residual stream between attention and MLP of a block.",
    "resid_post": "The residual stream where it leaves a block.",
    "ln1_out": "The stream after the norm in front of attention: what queries, keys and values are made from.",
    "ln2_out": "The stream after the norm in front of the MLP: what its neurons read.",
    "head": "One attention head: it looks at all positions up to this one and writes a mix of their memory values "
    "into the stream. Written L9 H6: layer 9, head 6.",
    "query": "What a head looks for at this position, read in the space of the residual stream (q·W_Kᵀ).",
    "key": "What a position offers to be found by, read in the space of the residual stream (k·W_Qᵀ).",
    "value": "A memory value: what a head would write if it looked at one position only (v·W_O). The head's output is "
    "their sum, each times the pattern.",
    "pattern": "Attention probabilities: how a head divides its look over the positions. They add up to 1.",
    "attn_out": "What attention adds to the stream: the sum of all heads and the output bias.",
    "attn_neuron": "A row of W_O with its coefficient: a second, finer reading of a head. Rows have no meaning of "
    "their own inside a head (any rotation gives the same model).",
    "attn_bias": "The bias of attention's output projection: the same for every prompt.",
    "mlp_key": "What a neuron reads: its column of W_in. The stream is compared with it, and the neuron fires.",
    "mlp_value": "What a neuron writes: its row of W_out, times its activation (the coefficient).",
    "mlp_out": "What the MLP adds to the stream: the sum of all neurons and the output bias.",
    "mlp_bias": "The bias of the MLP's output: the same for every prompt.",
    "rest": "Everything that is not drawn, in one node, so that every sum stays exact. Its share is that of the "
    "measure by which nodes are kept.",
    "ln_final": "The stream after the final norm, which the unembedding turns into logits.",
    "logits": "The model's prediction: one score for every word.",
    "ledger": "The identities that every number here rests on, checked on the loaded model: heads are sums of memory "
    "values, MLPs of neurons, the lens of the last state is the prediction. A failure means: do not trust.",
    "keep": "How much is drawn. A number (12), a share to reach (80 %), a pair of positive and negative (6,6), or all. "
    "The rest is shown as one node.",
    "keep by": "What decides who is drawn: the length of what is added, how much it moves the target directly "
    "(contribution) or through all that later blocks make of it (influence), or attention (for memory values).",
    "layers": "The blocks drawn: all, or 3, 3-5, 0,3,7-9. Blocks left out are drawn as a gap that carries their sum.",
    "parting map": "How differently the two runs read, at every pair of tokens (columns) after every block (rows, "
    "upwards). "
    "A click on a cell takes both graphs there.",
    "lens map": "The top word of the residual stream at every position (columns) after every block (rows, upwards). "
    "A click on a cell chooses its position and opens its block below.",
}


# What a term is called where its key is a column's or a control's name; every other term is called by its key.
NAMES = {
    "band": "95 % band",
    "value": "memory value",
    "attn_neuron": "row of W_O (attn_neuron)",
    "attn_bias": "bias of attention (attn_bias)",
    "mlp": "MLP",
    "mlp_key": "key of a neuron (mlp_key)",
    "mlp_value": "value of a neuron (mlp_value)",
    "mlp_bias": "bias of the MLP (mlp_bias)",
    "ln_final": "final norm (ln_final)",
    "intersection": "I₅₀, words in common (I_k)",
    "rbo": "rank-biased overlap (RBO)",
    "js": "Jensen–Shannon divergence",
    "kl": "Kullback–Leibler divergence",
}

GROUPS: dict[str, tuple[str, ...]] = {
    "The text": ("token", "prompt", "position", "target", "distractor", "chat message", "whole words"),
    "The stream": (
        "residual stream", "block", "embedding", "resid_pre", "resid_mid", "resid_post", "layer norm", "ln1_out",
        "ln2_out", "ln_final", "norm",
    ),
    "Attention": (
        "attention", "head", "pattern", "value", "query", "key", "attn_out", "attn_neuron", "attn_bias",
    ),
    "The MLP": ("mlp", "neuron", "coefficient", "mlp_key", "mlp_value", "mlp_out", "mlp_bias"),
    "Reading": (
        "unembedding", "logit", "logits", "probability", "rank", "entropy", "lens", "fitted lens", "carried parts",
        "intersection", "rbo", "js",
    ),
    "Causes": (
        "contribution", "influence", "effect", "band", "role", "partner", "edit", "activation patching",
        "attribution patching", "path patching", "causal trace", "kl",
    ),
    "Checks": ("ledger", "faithfulness", "rest"),
    "On the screen": ("lens map", "parting map", "keep", "keep by", "layers"),
}  # fmt: skip

# A word as sentences write it → the term that explains it.
FORMS = {
    "logit": "logit", "logits": "logit", "probability": "probability", "rank": "rank",
    "token": "token", "tokens": "token", "position": "position", "positions": "position", "distractor": "distractor",
    "block": "block", "blocks": "block", "embedding": "embedding", "stream": "residual stream",
    "streams": "residual stream", "residual stream": "residual stream", "lens": "lens", "plain lens": "lens",
    "fitted lens": "fitted lens", "head": "head", "heads": "head", "attention": "attention", "pattern": "pattern",
    "memory value": "value", "memory values": "value", "MLP": "mlp", "MLPs": "mlp", "neuron": "neuron",
    "neurons": "neuron", "contribution": "contribution", "contributions": "contribution", "directly": "contribution",
    "mover": "role", "movers": "role", "negative mover": "role", "negative movers": "role", "suppressor": "role",
    "suppressors": "role", "inhibitor": "role", "inhibitors": "role",
    "influence": "influence", "band": "band", "bands": "band", "partner": "partner", "bit": "js", "bits": "js",
}  # fmt: skip

# Longest first, so that "fitted lens" is not read as a lens; what stands in quotation marks is a token, not a term.
_SPOKEN = re.compile("“[^”]*”|\\b(" + "|".join(sorted(FORMS, key=len, reverse=True)) + r")\b", re.IGNORECASE)
_TERM_OF = {form.lower(): term for form, term in FORMS.items()}


class Spoken(NamedTuple):
    """A term in a sentence: which sentence and piece of it, from which character to which (exclusive)."""

    sentence: int
    piece: int
    start: int
    end: int
    term: str


def terms_in(sentences: Iterable[Sequence[tuple[str, str | None]]]) -> Iterator[Spoken]:
    """Each term where a reading first says it; in its plain words and in its pieces with a node (id) separately.

    A piece with a node is a link of its own: what it says is no reason to leave the words after it unexplained.
    """
    said = set()
    for place, sentence in enumerate(sentences):
        for number, (text, node) in enumerate(sentence):
            for found in _SPOKEN.finditer(text):
                if found[1] is None:
                    continue
                term = _TERM_OF[found[1].lower()]
                if (term, node is None) not in said:
                    said.add((term, node is None))
                    yield Spoken(place, number, *found.span(), term)


def name_of(term: str) -> str:
    """What a term is called on the screen."""
    return NAMES.get(term, term)


def anchor_of(term: str) -> str:
    """Where a term stands in the address of the Glossary page: `glossary#…`."""
    return term.replace(" ", "-")


def explain(term: str) -> str:
    """The definition of a term; an unknown one is a bug and raises KeyError."""
    return GLOSSARY[term]
