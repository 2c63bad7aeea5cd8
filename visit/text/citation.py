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


METHODS = {  # what is used → the paper whose method it is
    "paths between heads, and roles of heads": """@misc{wang-2022-interpretability,
  title  = {Interpretability in the Wild: a Circuit for Indirect Object Identification in {GPT-2} small},
  author = {Wang, Kevin and Variengien, Alexandre and Conmy, Arthur and Shlegeris, Buck and Steinhardt, Jacob},
  year   = {2022},
  eprint = {2211.00593},
  archivePrefix = {arXiv}
}""",
    "the causal trace": """@inproceedings{meng-2022-locating,
  title     = {Locating and Editing Factual Associations in {GPT}},
  author    = {Meng, Kevin and Bau, David and Andonian, Alex and Belinkov, Yonatan},
  booktitle = {Advances in Neural Information Processing Systems},
  year      = {2022},
  eprint    = {2202.05262},
  archivePrefix = {arXiv}
}""",
    "states read as words (the logit lens)": """@misc{nostalgebraist-2020-logit-lens,
  title        = {Interpreting {GPT}: the logit lens},
  author       = {{nostalgebraist}},
  year         = {2020},
  howpublished = {LessWrong}
}""",
    "the fitted lens": """@misc{yom-din-2023-jump,
  title  = {Jump to Conclusions: Short-Cutting Transformers With Linear Transformations},
  author = {Yom Din, Alexander and Karidi, Taelin and Choshen, Leshem and Geva, Mor},
  year   = {2023},
  eprint = {2303.09435},
  archivePrefix = {arXiv}
}""",
}
