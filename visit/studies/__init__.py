"""The studies of the paper: its quantitative figures for any model and any prompts.

`visit.study(model, prompts, …)` runs everything; pages and commands use the parts, in this order: `settings` (what is
asked), `plan` (which cells that makes), `duration` (what it will take), `run` (the job of the worker: one pass over the
prompts feeds all figures, by `measure` and `early` into `sums`), `tables` (figure id → table), `verdicts` (what the
numbers say about the paper's claims), `study` (the finished `Study`), `captions` (the words of every figure).

Tables of the figures of section 3 and appendix D ("2a" … "20"): columns `figure`, `series`, `group` ("all", "correct",
"incorrect"; the last two in Figures 13, 14 and "early" alone), `measure` ("intersection", "rbo", "probability"; those
of "early": `visit.studies.early`), `layer`, `head`, `rank` (missing where they mean nothing), `mean`, `low`, `high`
(95 % bootstrap band), `prompts`.

| id | series | rank | head |
|---|---|---|---|
| 2a, 2b | attn_out, block, final (what the heads are compared with) | | mean |
| 3 | attn_out, block, final | 1 to 3: of the head's norm in its layer | |
| 5 | value | 1 to 3: of the source by attention | mean |
| 13 | `heads: attn_out` … `longest: final` (of Figures 2b and 3, there the mean of the three) | | mean |
| 14 | prediction, fitted (measure probability; the plain lens, and the fitted one where one is given) | | |
| early | plain, fitted (a number per layer); `plain: exit`, `fitted: exit` (per prompt, no layer) | | |
| 15 | after, before, block, previous (the last from layer 1 on) | | |
| 16 | value | 1 to all: of the source by attention | mean |
| 17 | value | 1 to 3 | each |
| 18 | value (measure probability; mean over heads and sources) | | mean |
| 19, 20 | naive, circuit, gain (mean over each head's most attended sources: `Settings.sources`) | | mean |

Tables of the norm and neuron analyses have the columns of the functions that make them, and are made once the run is
done: "7" (`norm_sets.set_shift`, extremes of ln1 at the last layer of the first quarter, column `vectors`:
"real" or "random"), "8" (`neuron_sets.statistics_table`), "9" (`neurons.weight_profile` of the last
layer), "21", "22" (`layer_words` of ln1, ln2), "23" (as "7", read without the final norm), "tables-1" to "tables-6":
"tables-1", "tables-2" (`top_words` of ln1, at the last layers of the first and of the second quarter), "tables-3"
(`falling_words` of ln1), "tables-4" (`top_words` of ln2), "tables-5" (`falling_words` of ln2), "tables-6"
(`falling_words` of ln1, read without the final norm).
"""
