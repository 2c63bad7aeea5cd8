"""The house keeps its shape: imports point downwards, Streamlit stays in its room, README's folder tells the truth."""

from __future__ import annotations

import ast
from pathlib import Path

ROOT = Path(__file__).parent.parent
# lowest first; a module may import from its own row's left and from rows above
LEVELS = [
    {"errors", "families", "listed", "words", "glossary", "promptfile", "streaming", "machine", "rendering"},
    {"tokens", "permalink", "job", "checkpoint", "forecast", "wheels"},
    {"hub", "adapter", "reading"},
    {"gguf"},
    {"loading", "download"},
    {"model", "store", "worker"},
    {"edits", "scoring", "shelf", "chat"},
    {"activations"},
    {"recorder"},
    {"forward"},
    {"lens", "decompose", "keep", "static_disk"},
    {"circuits"},
    {"identities", "draft", "static", "neurons_set", "promptset"},
    {"draft_attention", "draft_mlp"},
    {"blocks"},
    {"graph", "overview", "pairing", "standing"},
    {"difference", "parting"},
    {"story", "doctor", "tables", "roles", "aim", "recall", "heads", "memory", "alignment"},
    {"layernorm_steps", "layernorm", "layernorm_set", "layernorm_words", "layernorm_tables", "layernorm_job"},
    {"detail", "figures", "contrast", "neurons", "neurons_one"},
    {"palette", "sheet", "figures_memory", "figures_neurons", "neurons_card", "figures_layernorm", "recollection"},
    {"neurons_tokens", "studies"},
    {"rows", "paths", "inspector", "lens_rows"},
    {"layout", "bands"},
    {"legend"},
    {"svg"},
    {"drawing"},
    {"twins"},
    {"export", "chart_svg", "figures_study"},
    {"report"},
    {"ui", "mini", "commands", "__main__"},
]


def imports(file: Path, start: str = "visit") -> set[str]:
    """Modules of the package that a file imports when it is run, functions' own imports included."""
    found = set()
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == start:
            parts = node.module.split(".")
            found |= {parts[1]} if len(parts) > 1 else {alias.name for alias in node.names}
        elif isinstance(node, ast.Import):
            found |= {a.name.split(".")[1] for a in node.names if a.name.startswith(f"{start}.")}
            found |= {a.name for a in node.names if a.name.split(".")[0] != start}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module.split(".")[0])
    return found


def test_a_module_imports_only_from_below():
    place = {name: i for i, level in enumerate(LEVELS) for name in level}
    modules = {p.stem if p.parent.name == "visit" else p.parent.name: p for p in (ROOT / "visit").rglob("*.py")}
    missing = {p.stem for p in (ROOT / "visit").glob("*.py")} - set(place) - {"__init__"}
    assert not missing, f"say at which level {missing} stands"
    for name, file in modules.items():
        if name in place and file.stem == name:
            above = {i for i in imports(file) if i in place and place[i] > place[name]}
            assert not above, f"visit/{name}.py imports {above} from above"


def test_only_the_app_imports_streamlit():
    files = [p for p in (ROOT / "visit").rglob("*.py") if "ui" not in p.relative_to(ROOT / "visit").parts]
    assert not [p.name for p in files if "streamlit" in imports(p)]


def test_pages_hold_no_maths():
    for page in (ROOT / "pages").glob("*.py"):
        assert not imports(page) & {"torch", "numpy", "pandas", "transformers"}
        assert len(page.read_text().splitlines()) < 60


def test_nothing_unsafe_is_used():
    for file in [*(ROOT / "visit").rglob("*.py"), *(ROOT / "pages").glob("*.py")]:
        text = file.read_text(encoding="utf-8")
        for word in ("pickle.load", "torch.load", "unsafe_allow_html", "trust_remote_code=True", "eval("):
            if word == "torch.load" and file.name == "train.py":
                continue  # the training's own checkpoint, weights_only
            assert word not in text.replace(".eval()", ""), f"{file.name} uses {word}"


def test_every_public_name_is_there_and_documented():
    import visit

    for name in visit.__all__:
        found = getattr(visit, name)
        assert name == "__version__" or (found.__doc__ and found.__doc__[0].isupper()), name


def test_the_readme_lists_every_family_and_what_is_not_read():
    from visit.families import supported

    text = (ROOT / "README.md").read_text(encoding="utf-8")
    for row in supported():
        line = f"| {row['family']} | `{row['model_type']}` | {row['special']} | {row['refused'] or '–'} |"
        assert line in text, f"README's table of models needs the row {line}"
