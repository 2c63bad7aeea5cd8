"""The app's side of VISIT: the only code of the package that imports Streamlit."""

from visit.ui.prompt import Subject, prompt_bar
from visit.ui.shell import sidebar
from visit.ui.state import begin, ensure_entrypoint, shown_errors

__all__ = ["Subject", "begin", "ensure_entrypoint", "prompt_bar", "shown_errors", "sidebar"]
