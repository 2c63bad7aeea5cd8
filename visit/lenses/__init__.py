"""Vectors as words: `logit` reads any vector, `weights` every row of the weights, `similarity` compares readings."""
