"""The commands of `python -m visit`: one module each, with `add` (its options) and what it runs.

A new command is a new module here and one line in `visit/__main__.py`, which imports the modules that it is asked for.
`options` holds what several commands share: model, prompt, target, files to write.
"""
