"""What happens when a part of a pass is taken out, or another put in: effects, beside what the pass itself shows.

A contribution says what a part adds to a logit directly, an influence what a small change of it would do; an effect is
what the whole rest of the model makes of the change, and so the only number behind a "because".

`block` runs one block again from its weights, for many changed runs at once, past what the clean run has already
computed, and `triangle` all blocks from the changed one on. `effects` makes the map of a prompt with it: every head,
neuron or memory value taken out one by one, for a tenth of what as many forward passes cost. `patching` puts another
prompt's values into a run, place by place (`two_runs`), and says how far the answer goes towards that prompt's.
`tracing` makes a subject unreadable and puts one state back at a time (`trace_plan`: what it is asked).
`roles` names what heads do (mover, suppressor, …) by measured criteria, each with its number and threshold.
`faithfulness` asks how much of the answer the most important parts bring back alone. `ablate` takes a list of edits
(`activations.edits`) for one run and compares it with the clean one, `edit_ledger` checks what must hold of them, and
`continuation` lets the edited model write on. Over a set of prompts (`set_lines`: which of its lines can be asked)
`head_sets` takes every part out of every line, and `path_patching` asks which head says something to whom.
"""
