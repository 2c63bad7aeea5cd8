"""What changed, in one sentence, for those who do not see it: said once, politely, when a page has been drawn anew."""

from __future__ import annotations

from visit.app.sessions import session
from visit.app.widgets import component


def say(sentence: str) -> None:
    """Something that the page now shows. What was said in a run of the page is told when it ends, if it is new."""
    if sentence not in session().saying:
        session().saying.append(sentence)


def announce() -> None:
    """Call where a run of the whole page ends."""
    now = session()
    said, now.saying = now.saying, []
    component("live", "<span></span>")(key="live", data={"text": "; ".join(said) or now.page.capitalize()})
