"""Learn: lessons that lead through the other pages, and one of one's own from a text file."""

from visit import app as ui
from visit.app import learn

ui.ensure_entrypoint("pages/learn.py")
learn.learn_page()
