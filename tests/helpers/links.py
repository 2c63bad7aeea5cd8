"""Walks through a page whose controls are turned at random; is its link, opened in a new session, the same page?"""

from __future__ import annotations

import random
import re
import time
from pathlib import Path
from urllib.parse import urlencode

from streamlit.testing.v1 import AppTest

from visit.runs.worker import SLOW, WORKER

ROOT = Path(__file__).parents[2]
LONG = " ".join(["The capital of Japan is the city of Tokyo, and the capital of France is Paris."] * 3)
# page: a view in which there is much to turn
VIEWS = {
    "flow": {"prompt": LONG, "opened": "map-table"},
    "compare": {"prompt": LONG, "prompt_b": LONG.replace("Japan", "Poland"), "opened": "flows,answers,apart-map-table"},
    "memory": {"prompt": LONG, "opened": "heads-list,pattern,life,paper-figures,head-picture"},
    "whatif": {"edits": "L4.head1~zero@-1;L3.head5~scale0.5@all", "opened": "roles,edited_flows"},
    "layernorm": {"set": "plain", "opened": "function-words,norm-figure7,norm-layers,norm-tables"},
    "neurons": {"set": "plain", "opened": "neuron-findings", "neuron": "L3.mlp_value17", "word": " city"},
    "study": {"opened": "takes-time,study-settings", "set": "plain", "count": "20"},
    "heads": {"lines": "16", "asks": "layers"},
    "trace": {"opened": "trace-table", "samples": "2"},
}
TYPED = {
    "w_layers": ["2-5", "0,3,7"], "w_blocks": ["0,3"], "w_word": [" Paris"], "w_force": [""],
    "w_target": [" Paris", " Kyoto", ""], "w_target_b": [" Paris", ""], "w_distractor": [" France", ""],
    "w_distractor_b": [" France", ""], "w_subject": ["capital", "Japan", "is the", ""],
}  # fmt: skip
STEPS = 4  # of a walk
# what is no control of the picture: where to go, a form that is not sent yet, a search for another model
NOT_OURS = re.compile(
    r"edit_node|edit_how|edit_factor$|edit_where|own_prompts|source_|w_model|w_system|w_prompt|w_chat|w_set$|w_answered"
)


def opened(page: str, params: dict[str, str]) -> AppTest:
    app = AppTest.from_file(str(ROOT / "streamlit_app.py"), default_timeout=120).switch_page(f"pages/{page}.py")
    for name, text in params.items():
        app.query_params[name] = text
    return app.run()


def settled(app: AppTest) -> AppTest:
    """The page when nothing on it is measured any more, and no run of it goes on."""
    if going := [one for one in [*WORKER.runs(), *SLOW.runs()] if one.alive]:
        for one in going:
            one.wait(120)
        app.run()
    for _ in range(100):
        if not any("hourglass_top" in caption.value for caption in app.caption):
            break
        time.sleep(0.3)
        app.run()
    return app


def address(app: AppTest) -> dict[str, str]:
    return {name: text[0] if isinstance(text, list) else text for name, text in app.query_params.items()}


def picture(app: AppTest) -> list[str]:
    """Everything that stands on a page, as the browser gets it, without the names that Streamlit gives."""
    found: list[str] = []

    def look(block) -> None:
        for child in block.children.values():
            if hasattr(child, "children"):
                look(child)
            elif (proto := getattr(child, "proto", None)) is not None:
                found.append(f"{child.type} {_NAMES.sub('', str(proto))}")

    look(app.main)
    return found


_NAMES = re.compile(
    r'^\s*(id|uuid|form_id|element_id|fragment_id|url|data_id|deferred_file_id): ".*"$|\$\$ID-[0-9a-f]+-[^"\\ ]+', re.M
)


def turn(app: AppTest, dice: random.Random) -> str:
    """Turn any control of the page to another of its values; says which."""
    controls = [
        one
        for kind in ("selectbox", "button_group", "toggle", "checkbox", "slider", "number_input", "text_input")
        for one in app.main.get(kind)
        if not getattr(one, "disabled", False) and one.key and not NOT_OURS.match(one.key)
    ]
    one = dice.choice(controls)
    if one.type in ("toggle", "checkbox"):
        value = not one.value
    elif one.type in ("slider", "number_input"):
        low, high = one.min, one.max
        value = (
            type(low)(dice.uniform(low, high))
            if isinstance(low, float)
            else dice.randint(int(low), min(int(high), int(low) + 60))
        )
        if isinstance(low, float) or isinstance(one.value, float):
            value = round(value / 0.05) * 0.05
    else:
        options = TYPED.get(one.key, ["4", "80 %", "all"]) if one.type == "text_input" else one.options
        value = dice.choice([option for option in options if option != one.value] or [one.value])
    one.set_value(value)
    return f"{one.key} = {value!r}"


def run_sets(page: str) -> None:
    """What a page shows of a set of prompts is there: its runs are done before it is walked through."""
    for button in [b for b in opened(page, VIEWS[page]).button if b.label == "Run"]:
        button.click().run()
    for one in [*WORKER.runs(), *SLOW.runs()]:
        one.wait(120)


def walk(page: str, seed: int) -> None:
    """One walk: after it the page and its link, opened anew, show the same."""
    dice = random.Random(f"{page} {seed}")
    app, done = opened(page, VIEWS[page]), []
    for _ in range(STEPS):
        done.append(turn(app, dice))
        app.run()
        assert not app.exception, done
    link = address(app)
    here, there = picture(settled(app)), picture(settled(opened(page, link)))
    assert len(urlencode(link)) <= 2_000
    assert here == there, (done, link, [pair for pair in zip(here, there, strict=False) if pair[0] != pair[1]][:1])
