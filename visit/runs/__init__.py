"""Long work over sets of prompts.

1. `prompts` reads a set; `answers` leaves out what a model cannot read, and says what makes two runs equal (`run_key`).
2. `sums` is what an analysis keeps of the prompts it has seen, and how that of two parts of a set becomes that of both.
3. `job` takes an analysis batch by batch, for the library at once (`finish`), for others step by step with its progress
   and a file to go on from (`drive`).
4. `worker` keeps such work alive while nobody looks: one lane, a queue, results that equal requests share.
"""
