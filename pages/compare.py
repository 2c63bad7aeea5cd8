"""The compare page: what changes inside the model when one word changes."""

from functools import partial

from visit import app as ui
from visit.app import compare_graphs, compare_prompts, compare_runs, guide_steps, patching, two_recordings, whatif

ui.ensure_entrypoint("pages/compare.py")
ui.heading("Compare", "What changes inside the model when the text changes?")
two = compare_prompts.two_prompts()
if two is None:
    two_recordings.lay_beside()
else:
    guide_steps.on_compare(partial(compare_runs.told_apart, two), two.same, compare_runs.select_node)
    if ui.shows("reading"):
        with ui.part("reading"):
            (compare_prompts.start_here if two.same else compare_runs.both_answers)(two)
    if not two.same:
        if ui.shows("apart"):
            with ui.part("apart"):
                compare_runs.parting(two)
        if ui.shows("patch"):
            with ui.part("patch"):
                patching.patch_b_into_a(patching.Sides(two.a, two.b, two.align), partial(whatif.with_changes, two.a))
        if ui.shows("answers"):
            with ui.part("answers"):
                compare_runs.answers_in_numbers(two)
        if ui.shows("graphs"):
            with ui.part("graphs"):
                compare_graphs.both_graphs(two)
