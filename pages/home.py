"""The start page: what this is, an example that is alive, and the ways in."""

from visit import app as ui
from visit.app import home

ui.ensure_entrypoint("pages/home.py")
home.start_page()
