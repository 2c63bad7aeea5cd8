"""A class without a room: the result files of its members, dropped on a page, as one table."""

from __future__ import annotations

import streamlit as st

from visit.app.widgets import plain
from visit.lessons.collected import MOST_FILES, Collected, collect, collected_rows, run_print, summary_rows
from visit.lessons.results import MOST_BYTES
from visit.lessons.room_file import answers_csv


def panel() -> None:
    """A field for the files, what is in them, and a sentence for each that cannot be read."""
    st.caption("Without a room every learner ends a lesson with a result file. Drop those of your class here, at most "
               f"{MOST_FILES}; nothing of them is kept.")  # fmt: skip
    files = st.file_uploader("Result files", ["json"], accept_multiple_files=True, key="result_files",
                             max_upload_size=max(1, MOST_BYTES >> 20))  # fmt: skip
    if files:
        show_collected(collect((file.name, file.getvalue()) for file in files))


def show_collected(found: Collected) -> None:
    """The table of what was collected, its CSV, and what was refused."""
    for name, why in found.refused:
        st.warning(f"**{plain(name)}**: {plain(why)}", icon=":material/error:")
    if not found.results:
        return
    rows, summary = collected_rows(found), summary_rows(found)
    st.markdown(f"**{len(found.results)}** results")
    st.dataframe(summary, hide_index=True, width="stretch")
    apart = sum(bool(row["differs"]) for row in summary)
    if apart:
        st.info(f"{apart} of {len(summary)} took another lesson, or ran another prompt or model than most: see "
                "“differs”. Their answers were checked on their own run.", icon=":material/fork_right:")  # fmt: skip
    runs = {run.model for _, result in found.results for run in result.runs}
    prints = {run_print(run) for _, result in found.results for run in result.runs}
    of = "one model" if len(runs) == 1 else f"{len(runs)} models"
    different = "one run" if len(prints) == 1 else f"{len(prints)} different runs"
    st.caption(f"These are of {different} of {of}. The fingerprint of a run (column “run” of the CSV) is made "
               "of model, revision and token ids: equal fingerprints, equal numbers.")  # fmt: skip
    st.download_button("All answers (CSV)", lambda: answers_csv(rows), "visit-results.csv", "text/csv",
                       on_click="ignore", icon=":material/table:")  # fmt: skip
