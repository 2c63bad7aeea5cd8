"""What the study's figures show, how to read them, and what the paper found: text, and nothing else.

The paper's findings are of GPT-2 medium on 100 CounterFact prompts that it answers correctly, said in our words.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Caption:
    """The words of one figure or table. `different`: where this study is not the paper's; may be empty."""

    id: str
    title: str
    measured: str
    reading: str
    paper: str
    different: str = ""

    @property
    def name(self) -> str:
        """`Fig. 2b`, or `Table 4`."""
        return self.id.replace("tables-", "Table ") if self.id.startswith("tables-") else f"Fig. {self.id}"

    @property
    def anchor(self) -> str:
        """The name of the figure's place on a page."""
        return f"fig-{self.id}"


_I_K = "The share of the k most probable words that the two have in common (I_k = |top k of a ∩ top k of b| / k)"
_BAND = (
    "The line is the mean over prompts, the band its 95 % bootstrap interval, the quiet lines what unrelated vectors "
    "score."
)
_FREE = (
    "A head is a part of attn_out, and a memory value of its head: some overlap comes with any model, trained or not."
)
_STATES = "what attention adds to the stream (attn_out), the block's output, and the model's last state"

ANSWERS = (
    "✓ as in the paper, ✗ not as in the paper, ○ undecided with these prompts. Numbers in brackets are 95 % intervals "
    "of prompt sets drawn anew; a rank correlation ρ over few layers takes few values, so that its interval may end at "
    "the estimate. A ✓ says that the numbers agree, no more: some of them come with any model, an untrained one, too."
)
_GIVE_WAY = "Function words stand high before the norm and give way to content words after it."
_LOSE = "The ten words that lose most probability, at the end of each quarter of the model"

_ALL = (
    Caption(
        "2a",
        "Heads read before the output matrix",
        f"{_I_K}, between each head's z, set at its own place in a vector of zeros, and {_STATES}; mean over heads.",
        f"{_BAND} Lines on these mean that z speaks another language than the stream.",
        "Without W_O the heads share no words with anything the model goes on to write.",
    ),
    Caption(
        "2b",
        "Heads read through the output matrix",
        f"{_I_K}, between each head z·W_O and {_STATES}; mean over heads.",
        f"{_BAND} A line that rises says that deeper heads write words which the model then uses.",
        "Through W_O the heads share words with all three, more with depth, and somewhat less in the last layers.",
        _FREE,
    ),
    Caption(
        "3",
        "The three longest heads of each layer",
        f"{_I_K}, between each of the layer's three heads of the largest ‖z·W_O‖ and {_STATES}.",
        f"{_BAND} Compare the heads: the further the first lies above the others, the more one head decides.",
        "Only the few longest heads share words with what attention adds; their effect on the block's output and on "
        "the prediction grows with depth.",
        _FREE,
    ),
    Caption(
        "5",
        "The three most attended memory values of each head",
        f"{_I_K}, between a head and each of its three memory values v·W_O of the largest pattern; mean over heads.",
        f"{_BAND} The most attended value on top means that a head's words come from where it looks.",
        "The more a head attends to a memory value, the more of its words that value explains.",
        _FREE,
    ),
    Caption(
        "13",
        "Correct answers against all prompts",
        "The series of Figures 2b and 3, once over the prompts that the model answers correctly and once over all: "
        "I_k, the shared part of the k most probable words.",
        "Solid: all prompts; dashed: those answered correctly. Lines that lie on each other mean that attention works "
        "alike whether or not the answer is right.",
        "Correct and random prompts give almost the same lines.",
        "The paper runs twice, on prompts that are answered correctly and on random ones; here one run serves both, so "
        "that the correct prompts are among all. The answer compares the correct with the incorrect ones.",
    ),
    Caption(
        "14",
        "When the prediction becomes probable",
        "The probability that the lens reads in each block's output for the model's own final prediction, over prompts "
        "answered correctly and incorrectly.",
        "The line is the mean over prompts, the band its 95 % bootstrap interval. Where a line leaves the ground, the "
        "model begins to believe what it will say.",
        "Correct answers become probable from the middle layers on; wrong ones, mostly function words, have moderate "
        "probabilities from early layers on.",
    ),
    Caption(
        "15",
        "What attention does to the stream",
        f"{_I_K}, between attn_out and the stream after it, the stream before it, the block's output, and the previous "
        "block's attn_out.",
        f"{_BAND} After above before: attention adds words of its own. A high line to the previous block: neighbouring "
        "attentions say the same.",
        "Attention changes the stream step by step, and each attention output resembles the one before it; the first "
        "4 to 6 of 24 layers score low.",
    ),
    Caption(
        "16",
        "Memory values by how much they are attended",
        f"{_I_K}, between a head and its memory value of every attention rank (1 = most attended); mean over heads.",
        "Each cell is the mean over heads and prompts; the darker, the more words are shared. Dark at the lower edge "
        "and pale above: only attended values count.",
        "Only the most attended memory values resemble their head, and hardly any do in the first layers.",
        "Prompts of different lengths have different numbers of ranks: a cell is over the prompts that have it. "
        f"{_FREE}",
    ),
    Caption(
        "17",
        "Memory values head by head",
        f"{_I_K}, between every single head and its most attended memory values (rank 1 to 3).",
        "Each cell is one head; the darker, the more words it shares with its memory value. Even panels mean that all "
        "heads work alike; pale cells are heads that mix many values.",
        "The flow from attended memory values to the head is found in all heads.",
    ),
    Caption(
        "18",
        "Does a memory value remember its token?",
        "The probability that the lens reads in a memory value v·W_O for the very token it was made from; mean over "
        "heads and positions.",
        "The line is the mean over prompts, the band its 95 % bootstrap interval, the quiet line the chance of a "
        "random word, 1/V. Above it, values carry their token's name.",
        "The source token is more probable than chance, and more so in later layers.",
    ),
    Caption(
        "19",
        "Do queries and keys name the same words?",
        f"{_I_K}, between a head's query, as the source sees it, and the key of each of its most attended sources: "
        "read naively at the head's own place in a vector of zeros, through the circuit (q·W_Kᵀ, k·W_Qᵀ), and with "
        "ln1's gain folded in.",
        f"{_BAND} A line above the quiet ones says that queries ask, in words, for what keys offer.",
        "Almost no overlap, naively or through the circuit.",
        "The paper's code leaves out one transpose (for GPT-2 that of the query's side), so its negative result for "
        "queries was no test. Here both sides have theirs, and rotary models their rotation: what comes out is new, "
        "also where it agrees.",
    ),
    Caption(
        "20",
        "Do keys name the words their values write?",
        f"{_I_K}, between a key and the memory value it gives access to, for each head's most attended sources: the "
        "key read naively, through the circuit (k·W_Qᵀ), and with ln1's gain folded in; the value always through W_O.",
        f"{_BAND} A line above the quiet ones says that a value holds the words by which it is found.",
        "Almost no overlap, so that what is looked for and what is written seem to be different things.",
        "For GPT-2 the paper's code has the key's transpose right; new are the folded gain and rotary models.",
    ),
    Caption(
        "7",
        "What the first norm does to every word",
        "The change of a word's probability in the lens through ln1, Δ = P after − P before, mean over prompts, for "
        "the words that change most.",
        "Every dot is a word, its id to the right. Right panel: random vectors with the real ones' mean and spread.",
        "Function words (the, a, not) lose most, content words (Microsoft, subsidiaries) gain most.",
    ),
    Caption(
        "8",
        "Neurons that are always on",
        "For every neuron the norm of its row of W_out and the entropy of the words it writes; colour: the share of "
        "prompts in which it is among its layer's most active.",
        "Neurons active in more than 85 % of the prompts are large dots: look whether they stand apart.",
        "Each of the last six of 24 layers has one or more; their norms and entropies are exceptionally high, and at "
        "least one a layer reads as function words.",
    ),
    Caption(
        "9",
        "The weights of the neurons that are always on",
        "The weights of their rows of W_out, dimension by dimension, beside the mean neuron and random ones.",
        "Dots are weights beyond three standard deviations of their own row; upright grey lines, if any, the stream's "
        "rogue dimensions.",
        "A few outlier weights, which feed the stream's rogue dimensions.",
    ),
    Caption(
        "21",
        "Words before and after ln1, layer by layer",
        "The probability of the words that change most, before ln1, after it, and the difference.",
        "A line a word; all layers share one scale.",
        "Function words lose in every layer.",
    ),
    Caption(
        "22",
        "Words before and after ln2, layer by layer",
        "As Figure 21, for the norm in front of the MLP.",
        "A line a word; all layers share one scale.",
        "As for ln1: function words lose.",
    ),
    Caption(
        "23",
        "ln1 read without the final norm",
        "As Figure 7, with a lens that leaves the final norm out.",
        "Every dot is a word; compare with Figure 7. Right: random vectors, as there.",
        "Without the final norm the words look out of place, so it belongs into the lens.",
    ),
    *(
        Caption(
            f"tables-{number}",
            title,
            f"{what}; of the probabilities that the mean vector reads.",
            "Place 1 is the most probable word." if number in (1, 2, 4) else "Place 1 is the word that loses most.",
            paper,
        )
        for number, title, what, paper in (
            (1, "Top words before and after ln1, end of the first quarter", "The ten most probable words", _GIVE_WAY),
            (2, "Top words before and after ln1, middle of the model", "The ten most probable words", _GIVE_WAY),
            (3, "Words that lose most through ln1", _LOSE, "Mostly function words."),
            (4, "Top words before and after ln2", "The ten most probable words", _GIVE_WAY),
            (5, "Words that lose most through ln2", _LOSE, "Mostly function words."),
            (6, "Words that lose most through ln1, read without the final norm", _LOSE, "Words out of any context."),
        )
    ),
)  # fmt: skip

FIGURES: dict[str, Caption] = {caption.id: caption for caption in _ALL}

# how a series is called in a legend; one that is not listed goes by its own name
SERIES = {
    "attn_out": "attn_out",
    "block": "the block's output",
    "final": "the last state",
    "heads": "all heads",
    "longest": "the three longest heads",
    "after": "the stream after it",
    "before": "the stream before it",
    "previous": "attn_out of the block before",
    "value": "memory value",
    "prediction": "the final prediction",
    "naive": "naive",
    "circuit": "through the circuit",
    "gain": "circuit, gain folded in",
}
MEASURES = {
    "intersection": "I_k: words in common",
    "rbo": "rank-biased overlap (RBO)",
    "probability": "probability",
}
AXES = {"intersection": "mean I_k", "rbo": "mean RBO", "probability": "mean probability"}
GROUPS = {"all": "all prompts", "correct": "answered correctly", "incorrect": "answered incorrectly"}
SECOND = (
    "Rank-biased overlap compares the two ranked lists from the top down, so that agreement about the first words "
    "counts more than about the fiftieth. Like I_k it takes synonyms for different words."
)


def caption_of(figure: str) -> Caption:
    """The caption of a figure or table; one without words of its own gets its id as title."""
    return FIGURES.get(figure) or Caption(figure, f"Figure {figure}", "", "", "")
