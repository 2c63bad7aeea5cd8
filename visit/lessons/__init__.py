"""Lessons: text files that lead through the pages, and the checks of their answers against the learner's own run.

`lesson` is what a lesson is, in frozen records; `lesson_file` reads one from its text, and says every mistake in it by
its line (`shipped`: those that come along).
`grammar` is the closed list of what a lesson may ask of a run, `queries` answers it by token id, node id, position or
number, `words` says which placeholders its texts may hold. `check` compares what a learner answered, and tells every
wrong answer what the chosen thing does instead. `results` writes down what was answered, and of which run.

`room` holds a class together while a lesson lasts: one teacher with a key, up to a hundred members (`nicknames`), their
answers as they come in, and the step that is opened for all. `room_file` writes a room into a file and opens it again,
and makes the table of its answers; `tally` lays them out as bars, step by step. `collected` reads the result files of a
class that had no room. Nothing here knows of a page: the app shows what these modules hold. A lesson is
data: nothing in it is ever executed.
"""
