"""The house keeps its shape: imports point downwards, Streamlit stays in its room, README's folder tells the truth."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent


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


def test_a_package_imports_only_what_lies_below_it():
    """The layers of pyproject.toml, over every module: `lint-imports` says which import breaks them."""
    from importlinter.application.use_cases import SUCCESS, lint_imports
    from importlinter.configuration import configure

    configure()
    assert lint_imports(config_filename=str(ROOT / "pyproject.toml"), cache_dir=None, no_logo=True) is SUCCESS


LEVELS, HOMONYMS = 14, 40  # modules on the longest way of imports; names that two modules or more define


def modules() -> dict[str, ast.Module]:
    """Every module of the package by its dotted name, read."""
    found = {}
    for file in (ROOT / "visit").rglob("*.py"):
        name = ".".join(file.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
        found[name] = ast.parse(file.read_text(encoding="utf-8"))
    return found


def test_the_longest_way_of_imports_is_short():
    """Imports of functions and of types count as well. Two modules that know each other are one step."""
    trees = modules()
    below: dict[str, set[str]] = {}
    for name, tree in trees.items():
        froms = [n for n in ast.walk(tree) if isinstance(n, ast.ImportFrom) and n.module and not n.level]
        pairs = [(f"{n.module}.{a.name}", str(n.module)) for n in froms for a in n.names]
        named = {inner if inner in trees else outer for inner, outer in pairs}
        below[name] = {m for m in named if m in trees and m not in (name, "visit")}

    def way(name: str, seen: tuple[str, ...]) -> tuple[str, ...]:
        assert name not in seen, f"a circle of imports: {' → '.join([*seen, name])}"
        if name not in known:
            ways = [way(m, (*seen, name)) for m in sorted(below[name]) if name not in below[m]]
            known[name] = (name, *max(ways, key=len, default=()))
        return known[name]

    known: dict[str, tuple[str, ...]] = {}
    longest = max((way(name, ()) for name in trees), key=len)
    assert len(longest) <= LEVELS, f"{len(longest)} levels: {' → '.join(longest)}"


def test_few_names_mean_two_things():
    """`add` and `run` of the commands are one such name each; a private helper is called by what it does."""
    where: dict[str, set[str]] = {}
    for module, tree in modules().items():
        for node in tree.body:
            names = [node.name] if isinstance(node, ast.FunctionDef | ast.ClassDef) else []
            if isinstance(node, ast.Assign | ast.AnnAssign):
                targets = node.targets if isinstance(node, ast.Assign) else [node.target]
                names = [t.id for t in targets if isinstance(t, ast.Name)]
            for name in names:
                where.setdefault(name, set()).add(module)
    twice = sorted(name for name, places in where.items() if len(places) > 1 and name != "__all__")
    assert len(twice) < HOMONYMS, twice


def test_few_modules_stand_outside_a_package():
    flat = {p.stem for p in (ROOT / "visit").glob("*.py")}
    assert flat == {"__init__", "__main__", "cache", "errors"}


def test_no_package_shadows_a_public_function():
    import visit

    here = {p.stem for p in (ROOT / "visit").iterdir()}
    assert not here & set(visit.__all__)


def test_every_package_tells_what_it_is():
    for file in (ROOT / "visit").rglob("__init__.py"):
        told = ast.get_docstring(ast.parse(file.read_text(encoding="utf-8")))
        assert told and len(told) > 60, file


def test_only_the_app_imports_streamlit():
    files = [p for p in (ROOT / "visit").rglob("*.py") if "app" not in p.relative_to(ROOT / "visit").parts]
    assert not [p.name for p in files if "streamlit" in imports(p)]


def test_app_and_command_line_load_no_torch_before_they_are_used():
    """Every page paints, and every command explains itself, before torch and transformers are imported."""
    files = [*(ROOT / "visit" / "app").glob("*.py"), *(ROOT / "visit" / "cli").glob("*.py"), ROOT / "visit/__main__.py"]
    names = [".".join(file.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__") for file in files]
    code = f"import sys, {', '.join(names)}; print({{'torch', 'transformers'}} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert done.stdout.strip() == "set()", done.stdout + done.stderr


def test_pages_hold_no_maths():
    for page in (ROOT / "pages").glob("*.py"):
        assert not imports(page) & {"torch", "numpy", "pandas", "transformers"}
        assert len(page.read_text().splitlines()) < 60


def test_nothing_unsafe_is_used():
    for file in [*(ROOT / "visit").rglob("*.py"), *(ROOT / "pages").glob("*.py")]:
        text = file.read_text(encoding="utf-8")
        for word in ("pickle.load", "torch.load", "unsafe_allow_html", "trust_remote_code=True", "eval("):
            assert word not in text.replace(".eval()", ""), f"{file.name} uses {word}"


def test_every_public_name_is_there_and_documented():
    import visit

    for name in visit.__all__:
        found = getattr(visit, name)
        assert name == "__version__" or (found.__doc__ and found.__doc__[0].isupper()), name


def test_the_readme_lists_every_family_and_what_is_not_read():
    from visit.models.families import supported

    text = (ROOT / "README.md").read_text(encoding="utf-8")
    for row in supported():
        line = f"| {row['family']} | `{row['model_type']}` | {row['special']} | {row['refused'] or '–'} |"
        assert line in text, f"README's table of models needs the row {line}"


def test_no_two_test_files_have_one_name():
    """pytest imports a test file by its name alone: the second of two is not run, and the whole run fails."""
    names = [file.name for file in (ROOT / "tests").rglob("test_*.py")]
    assert sorted(names) == sorted(set(names))
