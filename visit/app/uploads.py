"""Files that visitors send to a hosted app: bounded for one visitor, and for all together.

Streamlit keeps whatever is sent, wanted by a page or not, in memory until the session ends and two minutes longer: a
script that sends a hundred files takes the server down. `.streamlit/config.toml` bounds a file; here

1. `beyond` says which files have to go: a visitor's own oldest ones beyond SENT_BYTES, then, beyond ALL_SENT_BYTES of
   all, the oldest of whoever has most;
2. `bound_uploads`, at the start of a hosted server, has them removed with every file that comes.
"""

from __future__ import annotations

from typing import Any

from visit.models.catalog import is_hosted

SENT_BYTES = 32 << 20  # of one visitor: two of the largest files that a page asks for
ALL_SENT_BYTES = 128 << 20


def beyond(sent: dict[str, dict[str, int]], most: int, most_of_all: int) -> list[tuple[str, str]]:
    """(visitor, file) of what has to go. `sent`: of every visitor the bytes of each file, the oldest first."""
    left = {visitor: dict(files) for visitor, files in sent.items() if files}
    gone = []

    def drop(visitor: str) -> None:
        file = next(iter(left[visitor]))
        del left[visitor][file]
        gone.append((visitor, file))

    for visitor, files in left.items():
        while sum(files.values()) > most:
            drop(visitor)
    held = {visitor: sum(files.values()) for visitor, files in left.items()}
    while sum(held.values()) > most_of_all:
        largest = max(held, key=lambda visitor: held[visitor])
        drop(largest)
        held[largest] = sum(left[largest].values())
    return gone


def bound_uploads() -> bool:
    """Keep what visitors of this server send within the bounds, if it is hosted; whether it could be asked for."""
    from streamlit import runtime

    if not is_hosted() or not runtime.exists():
        return False
    return keep_bounded(runtime.get_instance().uploaded_file_mgr)


def keep_bounded(manager: Any) -> bool:
    """The same for a store of Streamlit's; False for one that is not held in memory."""
    if not hasattr(manager, "file_storage"):
        return False
    add = manager.add_file

    def add_file(session_id: str, file: Any) -> None:
        add(session_id, file)
        sent = {who: {name: len(one.data) for name, one in list(files.items())}
                for who, files in list(manager.file_storage.items())}  # fmt: skip
        for who, name in beyond(sent, SENT_BYTES, ALL_SENT_BYTES):
            manager.remove_file(who, name)

    manager.add_file = add_file
    return True
