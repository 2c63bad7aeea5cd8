"""What leaves a page as files: each of its figures, and the page as a notebook.

*Figures* and *Notebook* (in *Code*), at the top of a page, open a dialog each. The page is drawn once more then, and
what it draws is gathered (`visit.app.figure_list`); files are made from that when they are asked for.
"""

from __future__ import annotations

import io
import json
import re
import zipfile
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

import streamlit as st

from visit.app.cache import st_model
from visit.app.figure_list import PageFigure
from visit.app.recipe_lines import Looked, Recipe
from visit.app.recipes import recipe
from visit.app.sessions import FIGURES_DIALOG, FILE_DIALOGS, close_dialog, session, state
from visit.app.share import link
from visit.app.state import value_of
from visit.app.widgets import component, plain
from visit.models.catalog import display_name
from visit.text.markdown import escaped
from visit.text.visible import visible

if TYPE_CHECKING:
    from visit.files.notebook_file import NotebookCell


def figures_dialog() -> None:
    """The dialog that is asked for, at the end of a run of the page."""
    if session().dialog in FILE_DIALOGS:
        found, session().figures = session().figures, []
        (_figures if session().dialog == FIGURES_DIALOG else _notebook)(found)


# ---- figures ---------------------------------------------------------------------------------------------------------
@st.dialog("Figures of this page", width="large", icon=":material/image:", on_dismiss=close_dialog)
def _figures(found: list[PageFigure]) -> None:
    from visit.files.figure_file import WIDTHS, WORD_SIZES

    if not found:
        st.caption("No figure is open on this page.")
        return
    left, middle, right = st.columns(3)
    width = left.selectbox("Width in print", list(WIDTHS), key="figure_width")
    points = WORD_SIZES[middle.selectbox("Smallest words", list(WORD_SIZES), key="figure_words")]
    scale = right.selectbox(
        "PNG: pixels a unit", (1, 2, 4), index=1, format_func=lambda n: f"{n} ×", key="figure_scale"
    )
    mm = WIDTHS[width]
    meta = _page_meta()
    files = partial(_figure_files, mm=mm, points=points, scale=scale, meta=meta)
    for n, figure in enumerate(found):
        with st.container(horizontal=True, vertical_alignment="center", gap="small"):
            st.markdown(escaped(figure.shows), width="stretch")
            for kind in _kinds_of(figure):
                st.download_button(
                    kind.upper(), partial(_one_file, files, figure, kind), f"visit-{figure.name}.{kind}",
                    on_click="ignore", key=f"figure_{n}_{kind}", type="tertiary",
                )  # fmt: skip
    if mm or points:
        st.caption(_type_size(found, mm, points))
    whole = partial(_figures_zip, found, files, meta)
    st.download_button("All of them (zip)", whole, f"visit-{session().page}-figures.zip", on_click="ignore",
                       key="figure_zip", icon=":material/folder_zip:", type="primary")  # fmt: skip
    component("escape", "<i hidden></i>")(key="escape")


def _kinds_of(figure: PageFigure) -> tuple[str, ...]:
    """The files that there are of it."""
    drawn = () if figure.svg is None else ("svg", "pdf", "png")
    return (*drawn, *(() if figure.table is None else ("csv", "json")))


def _page_meta() -> dict[str, Any]:
    """What the page's figures are of, where they do not say it themselves; on Compare of both prompts."""
    from visit.models.provenance import provenance, versions

    now, page = state(), session().page
    made = {"model": now.model, "versions": versions()} if now.recording else provenance(st_model(now.model))
    found = {**made, "page": page}
    if page not in ("heads", "study"):  # which are of sets alone
        found |= {"prompt": now.prompt, "target": now.target, "distractor": now.distractor}
    if page == "compare":
        two = now.compare
        found |= {"prompt_b": two.prompt_b or now.prompt, "model_b": two.model_b or now.model,
                  "target_b": two.target_b, "distractor_b": two.distractor_b}  # fmt: skip
        if two.model_b and not now.recording:
            found["revision_b"] = st_model(two.model_b).revision
    return {name: value for name, value in found.items() if value not in ("", None)}


def _figure_meta(figure: PageFigure, page: dict[str, Any]) -> dict[str, Any]:
    return page if figure.about is None else {"page": page.get("page"), **figure.about}


def _figure_caption(figure: PageFigure, meta: dict[str, Any]) -> str:
    """What is shown, and of what: a prompt, two of them, or a set."""
    if own := meta.get("prompt_set"):
        count = meta["prompts"]
        how = f", in its place: {_PUT_IN_PLACE.get(meta['how'], meta['how'])}" if "how" in meta else ""
        return f"{figure.shows}. Set “{visible(own['name'])}”, {count:,} prompt{'s' if count != 1 else ''}{how}"
    asked = [_quoted_prompt(meta[name]) for name in ("prompt", "prompt_b") if name in meta]
    if len(asked) < 2:
        return f"{figure.shows}. {asked[0]}" if asked else figure.shows
    models = [f" ({meta[name]})" if meta["model"] != meta["model_b"] else "" for name in ("model", "model_b")]
    return f"{figure.shows}. A: {asked[0]}{models[0]}; B: {asked[1]}{models[1]}"


_PUT_IN_PLACE = {"zero": "nothing", "mean": "its mean over the set", "from": "its value in the partner"}
_CAPTION_CHARACTERS = 400  # of a prompt in a caption; the file's metadata have all of it


def _quoted_prompt(prompt: str) -> str:
    text = visible(prompt)
    return f"“{text}”" if len(text) <= _CAPTION_CHARACTERS else f"“{text[:_CAPTION_CHARACTERS]}…”"


def _figure_files(
    figure: PageFigure, kinds: tuple[str, ...], mm: float | None, points: float | None, scale: int,
    meta: dict[str, Any],
) -> dict[str, bytes]:  # fmt: skip
    """The files of one figure, by their names."""
    from visit.files.figure_file import FIGURE_KINDS, drawn_with_words, figure_bytes, figure_svg
    from visit.files.tables import to_csv, to_json

    made: dict[str, bytes] = {}
    meta = _figure_meta(figure, meta)
    drawn = [kind for kind in kinds if kind in FIGURE_KINDS]
    if drawn and figure.svg is not None:
        svg = figure_svg(drawn_with_words(figure.svg, points, mm), _figure_caption(figure, meta), meta, mm)
        made = {f"{figure.name}.{kind}": figure_bytes(svg, kind, scale) for kind in drawn}
    if figure.table is not None and {"csv", "json"} & set(kinds):
        table = figure.table()
        texts = {"csv": to_csv(table), "json": to_json({**meta, "figure": figure.shows}, {"figure": table})}
        made |= {f"{figure.name}.{kind}": texts[kind].encode() for kind in kinds if kind in texts}
    return made


def _one_file(files: Callable[..., dict[str, bytes]], figure: PageFigure, kind: str) -> bytes:
    return files(figure, (kind,))[f"{figure.name}.{kind}"]


def _figures_zip(found: list[PageFigure], files: Callable[..., dict[str, bytes]], meta: dict[str, Any]) -> bytes:
    """All files, with what they are of and how to cite it: a CSV has no place for that."""
    from visit.files.tables import meta_table, to_csv
    from visit.text.citation import bibtex

    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", zipfile.ZIP_DEFLATED) as archive:
        for n, figure in enumerate(found):
            for name, data in files(figure, _kinds_of(figure)).items():
                archive.writestr(f"{n + 1:02}-{name}", data)
        archive.writestr("meta.csv", to_csv(meta_table(meta)))
        archive.writestr("cite.bib", bibtex())
    return content.getvalue()


def _type_size(found: list[PageFigure], mm: float | None, points: float | None) -> str:
    from visit.files.figure_file import drawn_with_words, smallest_words

    drawn = [(figure.shows, figure.svg) for figure in found if figure.svg is not None]
    sizes = {shows: smallest_words(drawn_with_words(svg, points, mm), mm) for shows, svg in drawn}
    if not sizes:
        return ""
    least = min(sizes, key=lambda name: sizes[name])
    size = f"{sizes[least]:.1f} pt"
    return f"The smallest words are then {size} high ({escaped(least)}); journals ask for 6 or more."


# ---- the page as a notebook ------------------------------------------------------------------------------------------
@st.dialog("This page as a notebook", icon=":material/menu_book:", on_dismiss=close_dialog)
def _notebook(found: list[PageFigure]) -> None:
    now, page = state(), session().page
    made = recipe(page, now, Looked(**session().looked))
    if made is None or not made.steps:
        st.caption("This page has no code to make a notebook of.")
        return
    drawn = sum(figure.svg is not None for figure in found)
    st.markdown(
        f"Prose, code, and as they stand on this page {drawn} figure{'' if drawn == 1 else 's'} and the numbers: it "
        "reads without being run, and runs from top to bottom."
    )
    of = {"heads": now.heads_page.heads_set, "study": value_of(now, "set")}.get(page)
    asked = f"on “{plain(visible(now.prompt))}”" if of is None else f"over the set “{plain(of)}”"
    content = partial(_notebook_bytes, made, f"{plain(display_name(now.model))} {asked}", link(), found, _page_meta())
    st.download_button("Download the notebook", content, f"visit-{page}.ipynb", "application/x-ipynb+json",
                       on_click="ignore", icon=":material/download:", key="code_notebook", type="primary")  # fmt: skip
    component("escape", "<i hidden></i>")(key="escape")


def _notebook_bytes(
    found: Recipe, title: str, address: str, figures: list[PageFigure], meta: dict[str, Any]
) -> bytes:  # fmt: skip
    from visit.files.notebook_file import notebook_file

    head = (
        f"# {found.question}\n\n{title}\n\nMade by VISIT {meta['versions']['visit']}; it must be installed to run this."
    )
    if found.command:
        fence = "`" * max(3, 1 + max(map(len, re.findall("`+", found.command)), default=0))  # a prompt may hold one
        head += f"\n\nOn the command line:\n\n{fence}sh\n{found.command}\n{fence}"
    head += f"\n\n[The page it was made from]({address})" if address else ""
    return json.dumps(notebook_file(head, notebook_cells(found, figures, meta), meta), ensure_ascii=False, indent=1,
                      default=str).encode()  # fmt: skip


def notebook_cells(found: Recipe, figures: list[PageFigure], meta: dict[str, Any]) -> list[NotebookCell]:
    """The recipe's cells, each with the figures of the page that its code gives; the others in a cell at the end."""
    from visit.files.notebook_file import NotebookCell

    cells: list[NotebookCell] = []
    named: set[str] = set()
    for step in found.steps:
        named.update(step.shows)
        own = [output for figure in figures if figure.code in step.shows for output in _outputs(figure, meta)]
        cells.append(NotebookCell(step.why, "\n".join([*step.lines, *step.shows]), tuple(own)))
    others = [output for figure in figures if figure.code not in named for output in _outputs(figure, meta)]
    if others:
        cells.append(NotebookCell("What else the page shows, as it stood there.",
                                  "# no code above gives these: run, this cell loses them", tuple(others)))  # fmt: skip
    return cells


def _outputs(figure: PageFigure, page: dict[str, Any]) -> list[dict[str, Any]]:
    """A figure and its numbers as outputs of a cell."""
    from visit.files.figure_file import figure_svg
    from visit.files.notebook_file import picture_output, table_output

    meta = _figure_meta(figure, page)
    made = []
    if figure.svg is not None:
        caption = _figure_caption(figure, meta)
        made.append(picture_output(figure_svg(figure.svg(1.0), caption, meta), caption))
    return made if figure.table is None else [*made, table_output(figure.table())]
