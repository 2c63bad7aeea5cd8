"""Vectors as words, in ways that stand beside each other.

1. `logit`: the plain logit lens, which reads any vector through the final norm and the unembedding.
2. `linear`: a lens fitted to one model, a map per state of the stream; `fit_linear` makes it (`written_rows`: on text
   that the model writes, `least_squares`: in closed form), `trust` says why one may believe it. Another fitted lens is
   a module like `linear`: a record with `carry`, which is named where it reads.
3. `weights`: every row of the weights as words, and the search through them.
4. `similarity` compares what two vectors read.
"""
