"""What must add up: heads, memory values and neurons as exact sums (`decompose`), queries and keys in the stream's
space (`circuits`), every part's influence (`influence`) from one backward pass (`gradients`), the identities behind all
numbers (`ledger`), and what a question is about (`question`).
"""
