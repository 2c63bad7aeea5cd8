"""A recorded run, read: all numbers of one or two passes that pages show, without the model, torch or transformers.

`visit.files.record_run` writes recordings, `recording_file` says what the file is and judges it as a whole, and
`recorded_values` how a table stands in it. Its parts become what the library's functions returned: here what was run
and what is of both prompts, in `recorded_results` what was computed of it, each when it is first asked for.
"""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd

from visit.errors import VisitError, check_kind
from visit.files.recorded_model import RecordedModel, model_read
from visit.files.recorded_results import GRAPH_META, Results, layouts_read
from visit.files.recorded_values import (
    LONGEST_TEXT,
    LONGEST_WORD,
    PATTERN_STEP,
    StoredValues,
    check_text,
    check_whole,
    from_plain,
    is_like,
    told_as_broken,
)
from visit.files.recording_file import LARGEST_FILE, broken_file, unpacked_recording, unpacked_size
from visit.graph.flowgraph import FlowGraph
from visit.models.tokens import Message

MOST_TOKENS = 20_000


@dataclass(frozen=True, eq=False)
class RecordedRun:
    """One recorded pass: what was run, what was asked of it, and its results.

    `message`: what was typed, where a chat template wrapped it; `named`: the tokens as a reader names them; `starts`:
    how many start tokens stand in front; `special`: positions of control tokens; `words`: what the ids that occur read.
    """

    prompt: str
    message: Message | None
    token_ids: tuple[int, ...]
    tokens: tuple[str, ...]
    named: tuple[str, ...]
    pos: int
    target: int
    distractor: int | None
    starts: int
    special: frozenset[int]
    words: dict[int, str]
    results: Results = field(repr=False)

    def result(self, key: str) -> Any:
        """One result by its key (`visit.files.recorded_results` lists them). Raises `NotRecorded`."""
        return self.results.result(key)

    def compared(self, again: FlowGraph) -> pd.DataFrame:
        """All nodes of its graph that `again` has read, the same graph as it was built here: as `check_recording`."""
        from visit.files.recording_check import nodes_compared

        return nodes_compared(self.graph, again)

    @property
    def graph(self) -> FlowGraph:
        """The flow graph of all blocks, as `visit.build_flow_graph` made it."""
        found: FlowGraph = self.result("graph")
        return found

    @cached_property
    def pattern(self) -> np.ndarray:
        """`[layer, head, query, key]`: the attention pattern, float32, right to 8e-6 (it is kept in 65,536 steps)."""
        limits, n = self.results.limits, len(self.token_ids)
        shape = limits["n_layers"], limits["n_heads"]
        flat = self.results.stored.array(f"{self.results.owner}/pattern", "u", shape[0] * shape[1] * n * (n + 1) // 2)
        if flat.dtype != np.uint16:
            raise broken_file("its pattern is not kept in steps")
        flat = flat.reshape(*shape, -1)
        pattern = np.zeros((*shape, n, n), np.float32)
        for query in range(n):  # the indices of all would take more memory than the pattern
            start = query * (query + 1) // 2
            pattern[..., query, : query + 1] = flat[..., start : start + query + 1] * np.float32(PATTERN_STEP)
        return pattern


@dataclass(frozen=True, eq=False)
class RecordedPair:
    """What was recorded of two prompts together."""

    results: Results = field(repr=False)

    def result(self, key: str) -> Any:
        """One result by its key (`visit.files.recorded_results` lists them). Raises `NotRecorded`."""
        return self.results.result(key)


@dataclass(frozen=True, eq=False)
class Recording:
    """A recorded run of one prompt or two, as `load_recording` reads it.

    `meta`: model, revision, dtype, versions, when (`made`), on which machine, through which lens, what was kept;
    `model`: its dimensions; `runs`: the recorded passes; `pair`: what is of both, None with one prompt; `hash`: the
    SHA-256 sum of the file; `size`: the bytes that it unpacks to.
    """

    meta: dict[str, Any]
    model: RecordedModel
    runs: tuple[RecordedRun, ...]
    pair: RecordedPair | None
    hash: str
    size: int
    machine: Results = field(repr=False)  # what is of the model, on the machine that recorded

    @property
    def largest_pattern(self) -> int:
        """Bytes of the larger of its patterns, as it is read."""
        tokens = max(len(run.token_ids) for run in self.runs)
        return 4 * self.model.n_layers * self.model.n_heads * tokens**2

    @property
    def prompts(self) -> tuple[str, ...]:
        """The prompts, one or two."""
        return tuple(run.prompt for run in self.runs)

    @property
    def graph(self) -> FlowGraph:
        """The flow graph of the first prompt."""
        return self.runs[0].graph

    @property
    def ledger(self) -> pd.DataFrame:
        """`visit.ledger` of the model on the machine that recorded."""
        found: pd.DataFrame = self.machine.result("ledger")
        return found

    @cached_property
    def tables(self) -> dict[str, pd.DataFrame]:
        """All tables by name: of the second prompt and of both `b/…` and `pair/…`; of many heads, norms or layers one,
        whose column `of` says which."""
        sources = [("", self.runs[0].results), *(("b/", run.results) for run in self.runs[1:])]
        sources += [] if self.pair is None else [("pair/", self.pair.results)]
        found = {"ledger": self.ledger}
        for start, results in sources:
            for name, layout in results.layouts.items():
                if layout["kind"] == "table":
                    found[f"{start}{name}"] = results.result(name)
                elif layout["kind"] == "stack":
                    table = results.stack(name)
                    of = np.repeat(np.array(layout["of"], object), layout["rows"])
                    found[f"{start}{name}"] = table.assign(of=of)
                elif layout["kind"] == "graph":
                    graph = results.result(name)
                    found |= {f"{start}nodes": graph.nodes, f"{start}edges": graph.edges} if name == "graph" else {}
                elif layout["kind"] == "compare":
                    found |= {f"{start}{n}": table for n, table in results.result(name).tables.items()}
        return found

    def check(self, model: Any, k: int = 20, seed: int = 0, lens: Any = None) -> pd.DataFrame:
        """Replay k random nodes with the model, as `visit.check_recording`."""
        from visit.files.recording_check import check_recording

        return check_recording(self, model, k, seed, lens)


def load_recording(source: str | os.PathLike[str] | bytes) -> Recording:
    """Read a recording, from its path or its bytes. It needs neither the model nor torch.

    The file is judged as one from anybody: its sizes before it is unpacked, the sums of its parts, the shape of every
    table when it is first used. Raises `VisitError` where it is none, is damaged, or is of a newer version.
    """
    check_kind("A recording", source, (str, os.PathLike, bytes), "the path of a file, or its bytes")
    if isinstance(source, bytes):
        data = source
    else:
        try:
            with open(source, "rb") as file:
                data = file.read(LARGEST_FILE + 1)
        except (OSError, ValueError) as error:  # a path with a null character is a ValueError
            reason = getattr(error, "strerror", None) or error
            raise VisitError(
                f"{os.fspath(source)!r} cannot be read ({reason}). Choose a file that "
                "python -m visit record, or Save this run, has written."
            ) from error
    content, arrays = unpacked_recording(data)
    with told_as_broken():
        return _whole_recording(content, arrays, hashlib.sha256(data).hexdigest(), unpacked_size(data))


def _whole_recording(content: dict[str, Any], arrays: dict[str, Any], digest: str, size: int) -> Recording:
    texts = [check_text("text", text, LONGEST_WORD) for text in content["texts"]]
    stored, model = StoredValues(texts, arrays), model_read(content["model"])
    sizes = {"n_layers": model.n_layers, "n_heads": model.n_heads, "d_vocab": model.d_vocab}
    if len(content["runs"]) not in (1, 2) or (content["pair"] is None) != (len(content["runs"]) == 1):
        raise broken_file("it is of neither one prompt nor two")
    runs = tuple(_run_read(one, name, stored, sizes) for one, name in zip(content["runs"], "ab", strict=False))
    most = sizes | {"tokens": max(len(run.token_ids) for run in runs)}
    pair = content["pair"]
    return Recording(
        _meta_of(from_plain(content["meta"])), model, runs,
        None if pair is None else RecordedPair(Results(layouts_read(pair["results"]), "pair", stored, most)),
        digest, size, Results(layouts_read(content["machine"]), "machine", stored, most),
    )  # fmt: skip


def _meta_of(meta: Any) -> dict[str, Any]:
    """What was recorded, with the parts that are shown."""
    for name in ("model", "dtype", "made", "machine", "note"):
        check_text(name, meta[name], LONGEST_TEXT if name == "note" else LONGEST_WORD)
    for name in ("lens", "versions", "keep", "ledger"):
        kind = GRAPH_META[name]
        if not is_like(meta[name], (kind, None) if name == "lens" else kind):
            raise broken_file(f"it has a {name} that is none")
    check_text("version of VISIT", meta["versions"]["visit"], LONGEST_WORD)
    return dict(meta)


def _run_read(given: Any, name: str, stored: StoredValues, sizes: dict[str, int]) -> RecordedRun:
    ids = [check_whole("token", i, 0, sizes["d_vocab"] - 1) for i in given["token_ids"]]
    check_whole("number of tokens", len(ids), 1, MOST_TOKENS)
    tokens, named = ([check_text("token", t, LONGEST_WORD) for t in given[part]] for part in ("tokens", "named"))
    if not len(ids) == len(tokens) == len(named):
        raise broken_file("its tokens have no ids, or its ids no tokens")
    word = {role: None if given[role] is None else check_whole(role, given[role], 0, sizes["d_vocab"] - 1)
            for role in ("target", "distractor")}  # fmt: skip
    words = {check_whole("id", i, 0, sizes["d_vocab"] - 1): check_text("word", w, LONGEST_WORD)
             for i, w in given["words"]}  # fmt: skip
    if not {*ids, *word.values()} <= {*words, None} or word["target"] is None:
        raise broken_file("a word that it is about has no text")
    message = None if given["message"] is None else Message(
        check_text("message", given["message"][0], LONGEST_TEXT),
        None if given["message"][1] is None else check_text("system message", given["message"][1], LONGEST_TEXT),
    )  # fmt: skip
    return RecordedRun(
        check_text("prompt", given["prompt"], LONGEST_TEXT), message, tuple(ids), tuple(tokens), tuple(named),
        check_whole("position", given["pos"], 0, len(ids) - 1), word["target"], word["distractor"],
        check_whole("number of start tokens", given["starts"], 0, len(ids)),
        frozenset(check_whole("position", i, 0, len(ids) - 1) for i in given["special"]), words,
        Results(layouts_read(given["results"]), name, stored, sizes | {"tokens": len(ids)}),
    )  # fmt: skip
