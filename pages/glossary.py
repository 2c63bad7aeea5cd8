"""The glossary: what the words on the other pages mean."""

from visit import app as ui
from visit.app import glossary

ui.ensure_entrypoint("pages/glossary.py")
ui.heading("Glossary", "What do the words on these pages mean? Each has one definition, the same wherever it stands.")
glossary.page()
