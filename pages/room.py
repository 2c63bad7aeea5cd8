"""The teacher's page of a class: a room for a lesson, everybody's answers as they come in, and result files."""

from visit import app as ui
from visit.app import room_teacher

ui.ensure_entrypoint("pages/room.py")
ui.heading("Class room", "What does your class predict? Open a room, and see every answer as it comes in.")
room_teacher.page()
