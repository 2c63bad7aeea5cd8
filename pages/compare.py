"""The compare page: what changes inside the model when one word changes."""

from functools import partial

from visit import app as ui
from visit.app import compare, guide_steps, patching, two_recordings, whatif

ui.ensure_entrypoint("pages/compare.py")
ui.heading("Compare", "What changes inside the model when the text changes?")
two = compare.two_prompts()
if two is None:
    two_recordings.lay_beside()
else:
    guide_steps.on_compare(partial(compare.told_apart, two), two.same, compare.select_node)
    if ui.shows("reading"):
        with ui.part("reading"):
            (compare.start_here if two.same else compare.both_answers)(two)
    if not two.same:
        if ui.shows("apart"):
            with ui.part("apart"):
                compare.parting(two)
        if ui.shows("patch"):
            with ui.part("patch"):
                patching.patch_b_into_a(patching.Sides(two.a, two.b, two.align), partial(whatif.with_changes, two.a))
        if ui.shows("answers"):
            with ui.part("answers"):
                compare.answers_in_numbers(two)
        if ui.shows("graphs"):
            with ui.part("graphs"):
                compare.both_graphs(two)
