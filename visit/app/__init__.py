"""The app's side of VISIT: the only code of the package that imports Streamlit."""

from visit.app.cache import turns
from visit.app.follow import begin_page, end_page
from visit.app.home import carries_state
from visit.app.lesson import begin_lesson
from visit.app.marks import named_part as part
from visit.app.marks import shows
from visit.app.own_model import asked_dialog
from visit.app.page_files import figures_dialog
from visit.app.preload import begin_preload
from visit.app.problems import shown_errors
from visit.app.prompt_bar import prompt_bar
from visit.app.recorded import told_as_damage
from visit.app.sessions import ensure_entrypoint, open_page, session
from visit.app.share import heading
from visit.app.sidebar import sidebar
from visit.app.subject import Subject
from visit.app.takeover import await_model, tell_difference
from visit.app.widgets import ICON, PAGE_STYLE, unfolding

__all__ = [
    "ICON",
    "PAGE_STYLE",
    "Subject",
    "asked_dialog",
    "await_model",
    "begin_lesson",
    "begin_page",
    "begin_preload",
    "carries_state",
    "end_page",
    "ensure_entrypoint",
    "figures_dialog",
    "heading",
    "open_page",
    "part",
    "prompt_bar",
    "session",
    "shown_errors",
    "shows",
    "sidebar",
    "tell_difference",
    "told_as_damage",
    "turns",
    "unfolding",
]  # fmt: skip
