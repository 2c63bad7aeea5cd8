"""Lessons: text files that lead through the pages, and the checks of their answers against the learner's own run.

`room` holds a class together while a lesson lasts: one teacher with a key, up to a hundred members (`nicknames`), their
answers as they come in, and the step that is opened for all. `room_file` writes a room into a file and opens it again,
and makes the table of its answers. Nothing here knows of a page: the app shows what these modules hold.
"""
