"""How VISIT is cited: one version everywhere, and in every file."""

import json
import re
import tomllib
from pathlib import Path

import pandas as pd

import visit
from visit.files.tables import meta_table, to_json
from visit.text.citation import METHODS, bibtex

ROOT = Path(visit.__file__).parents[1]


def test_the_package_the_project_file_and_the_citation_name_one_version():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    cff = (ROOT / "CITATION.cff").read_text()
    assert project["version"] == visit.__version__
    assert f"\nversion: {visit.__version__}\n" in cff
    assert f"## {visit.__version__} (" in (ROOT / "CHANGELOG.md").read_text()
    assert f"version = {{{visit.__version__}}}" in bibtex()


def test_every_bibtex_entry_closes_its_braces():
    entries = re.findall(r"^@\w+\{([\w-]+),$", bibtex(), re.MULTILINE)
    assert entries == ["katz-belinkov-2023-visit", "visit-tool"]
    assert bibtex().count("{") == bibtex().count("}")


def test_the_sources_of_methods_are_whole_and_stand_in_the_citation_file():
    cff = (ROOT / "CITATION.cff").read_text()
    for entry in METHODS.values():
        assert entry.count("{") == entry.count("}") and re.match(r"@\w+\{[\w-]+,\n", entry)
        title = re.search(r"title\s+= \{(.*)\},\n", entry)
        assert title is not None and title[1].replace("{", "").replace("}", "") in cff
        eprint = re.search(r"eprint\s+= \{(.*)\},\n", entry)
        assert eprint is None or f"arXiv:{eprint[1]}" in cff
        assert entry not in bibtex(), "files keep to the two that every number has"


def test_the_dialog_tells_every_source():
    from streamlit.testing.v1 import AppTest

    app = AppTest.from_string("from visit.app.own_model import _cite; _cite()", default_timeout=60).run()
    assert not app.exception
    shown = [block.value for block in app.code]
    assert shown == [bibtex().strip(), *METHODS.values()]


def test_tables_say_how_to_cite_what_made_them():
    table = pd.DataFrame({"layer": [0]})
    assert json.loads(to_json({"model": "m"}, {"t": table}))["meta"]["cite"] == bibtex()
    assert bibtex() in meta_table({"model": "m"})["value"].tolist()
