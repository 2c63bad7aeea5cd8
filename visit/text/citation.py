"""How VISIT and the paper that it implements are cited: in the app, and in every file that it writes."""

from __future__ import annotations

PAPER = """@inproceedings{katz-belinkov-2023-visit,
  title     = {{VISIT}: Visualizing and Interpreting the Semantic Information Flow of Transformers},
  author    = {Katz, Shahar and Belinkov, Yonatan},
  booktitle = {Findings of the Association for Computational Linguistics: EMNLP 2023},
  year      = {2023},
  eprint    = {2305.13417},
  archivePrefix = {arXiv}
}"""


def tool() -> str:
    """The BibTeX entry of this program, in the version that runs."""
    from visit import __version__

    return f"""@software{{visit-tool,
  title   = {{{{VISIT}}: the semantic X-ray of a language model}},
  author  = {{{{The VISIT authors}}}},
  version = {{{__version__}}},
  year    = {{2026}},
  license = {{MIT}}
}}"""


def bibtex() -> str:
    """Both entries: the method's paper, and the program."""
    return f"{PAPER}\n\n{tool()}\n"
