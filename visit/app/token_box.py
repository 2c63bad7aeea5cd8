"""The prompt as its tokens: running text in a box of three lines, and a field in which Enter runs the prompt."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import streamlit as st

_JS = """
export default function ({ data, parentElement, setTriggerValue }) {
  const root = parentElement.querySelector('.tokens');
  const old = root.version === data.version ? root.scrollTop : null;
  const make = (tag, name, text) => {
    const element = document.createElement(tag);
    if (name) element.className = name;
    if (text !== undefined) element.textContent = text;
    return element;
  };
  root.setAttribute('aria-label', data.label);
  const chips = data.tokens.map(([text, kind, title, breaks], pos) => {
    const chip = make('span', `token ${kind}`), on = pos === data.chosen;
    if (kind === 'start' || kind === 'control') {
      const sign = make('i', '', kind === 'start' ? 'anchor' : 'data_object');
      sign.setAttribute('aria-hidden', 'true');
      chip.append(sign);
    }
    const outer = kind === '' ? /^([·␣]*)(.*?)([·⏎␣⇥]*)$/s.exec(text) : null;
    if (outer) chip.append(make('s', '', outer[1]), make('bdi', '', outer[2]), make('s', '', outer[3]));
    else chip.append(make('bdi', '', text));
    chip.setAttribute('role', 'radio');
    chip.setAttribute('aria-label', text);
    chip.setAttribute('aria-checked', String(on));
    chip.title = `position ${pos}${title}`;
    chip.tabIndex = on ? 0 : -1;
    chip.onclick = () => { if (!on) setTriggerValue('pick', pos); };
    return [chip, breaks];
  });
  const flow = [];
  for (const [chip, breaks] of chips) { flow.push(chip); if (breaks) flow.push(make('br')); }
  const focused = root.contains(root.getRootNode().activeElement);
  root.replaceChildren(...flow);
  root.onkeydown = (event) => {
    const all = chips.map(([chip]) => chip), at = all.indexOf(root.getRootNode().activeElement);
    const to = { ArrowRight: at + 1, ArrowDown: at + 1, ArrowLeft: at - 1, ArrowUp: at - 1, Home: 0,
      End: all.length - 1 }[event.key];
    if (at < 0) return;
    if (event.key === 'Enter' || event.key === ' ') { event.preventDefault(); all[at].click(); return; }
    if (to === undefined) return;
    event.preventDefault();
    all[Math.max(0, Math.min(all.length - 1, to))].focus();
  };
  const on = chips[data.chosen][0];
  if (focused) on.focus({ preventScroll: true });
  const top = on.offsetTop - root.offsetTop; // at first, and when chosen elsewhere, the token is in sight
  root.scrollTop = old ?? 0;
  if (top < root.scrollTop || top + on.offsetHeight > root.scrollTop + root.clientHeight)
    root.scrollTop = Math.max(0, top - root.clientHeight / 2);
  root.version = data.version;
  root.onscroll = () => {
    root.classList.toggle('above', root.scrollTop > 6);
    root.classList.toggle('below', root.scrollTop + root.clientHeight < root.scrollHeight - 6);
  };
  root.onscroll();
}
"""
_CSS = """
.tokens { max-height: 6.9rem; overflow-y: auto; font-family: var(--st-font); color: var(--st-text-color);
  font-size: 0.95rem; padding: 1px 2px; scrollbar-width: thin; }
.above { mask-image: linear-gradient(#0000, #000 1.6rem); }
.below { mask-image: linear-gradient(#000 calc(100% - 1.6rem), #0000); }
.above.below { mask-image: linear-gradient(#0000, #000 1.6rem, #000 calc(100% - 1.6rem), #0000); }
.token { display: inline-block; max-width: 100%; box-sizing: border-box; overflow-wrap: anywhere; line-height: 1.4;
  padding: 2px 5px; margin: 0 3px 4px 0; border-radius: 6px; cursor: pointer; white-space: pre-wrap;
  border: 1px solid transparent; background: var(--st-secondary-background-color); }
.token s { text-decoration: none; opacity: 0.62; }
.token.start, .token.control { background: none; border: 1px dashed color-mix(in srgb, var(--st-text-color) 55%,
  transparent); font-size: 0.84rem; padding: 2px 5px; }
.token i { font-family: 'Material Symbols Rounded'; font-style: normal; font-size: 0.95rem; margin-right: 3px;
  vertical-align: -0.14em; opacity: 0.75; }
.token:hover { border: 1px solid var(--st-primary-color); }
.token:focus-visible { outline: 2px solid var(--st-primary-color); outline-offset: 1px; }
.token[aria-checked=true] { border: 1px solid var(--st-primary-color); color: var(--st-primary-color); font-weight: 600;
  background: color-mix(in srgb, var(--st-primary-color) 14%, var(--st-background-color)); }
"""


@cache
def _box() -> Any:
    html = "<div class='tokens' role='radiogroup'></div>"
    return st.components.v2.component("visit_tokens", html=html, css=_CSS, js=_JS)


Token = tuple[str, str, str, bool]  # as shown; "", "start" or "control"; what else is known; a line ends after it


def token_box(tokens: list[Token], chosen: int, label: str, pick: Callable[[int], None]) -> None:
    """The tokens of one prompt; the chosen one is marked and in sight. `pick(pos)`: another was chosen."""

    def picked() -> None:
        found = st.session_state["tokens"]["pick"]
        if isinstance(found, int | float) and 0 <= int(found) < len(tokens):
            pick(int(found))

    data = {"tokens": [list(t) for t in tokens], "chosen": chosen, "label": label, "version": str(tokens)}
    _box()(key="tokens", data=data, on_pick_change=picked)


# In a text area of Streamlit Enter makes a new line and Ctrl+Enter runs. A prompt is mostly one line: here Enter runs,
# and Shift+Enter makes a line. Without this script the field still works as Streamlit says below it.
_ENTER = """
export default function () {
  if (window.visitEnterRuns) return;
  window.visitEnterRuns = true;
  document.addEventListener('keydown', (event) => {
    const area = event.target.closest && event.target.closest('[class*="st-key-w_prompt"] textarea');
    const plain = event.key === 'Enter' && !event.isComposing && !event.shiftKey && !event.ctrlKey && !event.metaKey;
    if (!area || !plain || event.altKey) return;
    event.preventDefault();
    event.stopPropagation();
    const options = { key: 'Enter', code: 'Enter', ctrlKey: true, bubbles: true, cancelable: true };
    area.dispatchEvent(new KeyboardEvent('keydown', options));
  }, true);
}
"""
_FIELD = """<style>
[class*="st-key-w_prompt"] textarea { field-sizing: content; height: auto !important; min-height: 2.4rem !important;
  max-height: 5.6rem; line-height: 1.45; padding-top: 0.5rem; padding-bottom: 0.5rem; resize: none; }
[class*="st-key-w_prompt"] [data-testid="InputInstructions"] { font-size: 0; }
[class*="st-key-w_prompt"] [data-testid="InputInstructions"]::after { content: "Enter runs it"; font-size: 0.75rem; }
</style>"""


@cache
def _enter() -> Any:
    return st.components.v2.component("visit_enter", html="<span></span>", js=_ENTER)


def enter_runs() -> None:
    """In every prompt field Enter runs, Shift+Enter makes a new line. Call once a page."""
    st.html(_FIELD)
    _enter()(key="enter")
