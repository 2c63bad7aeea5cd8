"""The commands of `python -m visit`: one module each, with `add` (its options) and what it runs."""
