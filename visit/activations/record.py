"""What one forward pass leaves behind, and what altered it: frozen records, without batch axis."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor

from visit.errors import VisitError, check_kind
from visit.models.tokens import Chat
from visit.text.node_id import NodeId


@dataclass(frozen=True, eq=False)
class Activations:
    """One forward pass of one prompt, without batch axis. A quantity that was not asked for is None.

    So is one that the family does not have: `resid_mid` where attention and MLP stand side by side, `rotary` without
    rotation. Where both read one norm (or none) `ln2_out` is the array of `ln1_out` (or of the stream).
    `positions` names the positions that the axis `pos` holds (all of them, or the one that `capture_many` kept).
    `prompt` is what was typed; where a chat template wrapped it, `chat` says how, and the tokens are the whole.
    `edits`: what the run was altered by, as it was applied, so that it can be made again; empty for the model's own.
    """

    prompt: str
    token_ids: tuple[int, ...]
    tokens: tuple[str, ...]
    positions: tuple[int, ...]
    chat: Chat | None = None
    edits: tuple[Applied, ...] = ()
    resid_pre: Float[Tensor, "layer pos d_model"] | None = None
    ln1_out: Float[Tensor, "layer pos d_model"] | None = None
    q: Float[Tensor, "layer pos head d_head"] | None = None
    k: Float[Tensor, "layer pos kv_head d_head"] | None = None
    v: Float[Tensor, "layer pos kv_head d_head"] | None = None
    pattern: Float[Tensor, "layer head query key"] | None = None
    z: Float[Tensor, "layer pos head d_head"] | None = None
    attn_out: Float[Tensor, "layer pos d_model"] | None = None
    resid_mid: Float[Tensor, "layer pos d_model"] | None = None
    ln2_out: Float[Tensor, "layer pos d_model"] | None = None
    neurons: Float[Tensor, "layer pos d_mlp"] | None = None
    mlp_out: Float[Tensor, "layer pos d_model"] | None = None
    resid_post: Float[Tensor, "layer pos d_model"] | None = None
    logits: Float[Tensor, "pos d_vocab"] | None = None
    attn_raw: Float[Tensor, "layer pos d_model"] | None = None  # what W_O and W_out give, where a norm stands between
    mlp_raw: Float[Tensor, "layer pos d_model"] | None = None  # them and the stream; None in families without one
    rotary: Float[Tensor, "set two pos d_rotary"] | None = None  # cos and sin of this run (Gemma 3: two sets)

    def index(self, pos: int, whole: bool = True) -> int:
        """A position (negative counts from the end) as a non-negative one; out of range: a `VisitError`.

        `whole`: refuse a record that kept one position only, whose axis `pos` cannot be indexed by position.
        """
        length = len(self.token_ids)
        if whole and len(self.positions) != length:
            raise VisitError(
                f"This record kept position {self.positions[0]} only; the analysis needs all {length}. "
                "Capture with pos=None."
            )
        if isinstance(pos, bool) or not hasattr(pos, "__index__"):
            raise VisitError(f"A position is a whole number, negative from the end; got {pos!r}.")
        if not -length <= pos < length:
            raise VisitError(
                f"The position must be from 0 to {length - 1} (or -{length} to -1) in a prompt of {length} tokens; "
                f"got {pos}."
            )
        return pos % length

    @property
    def provenance(self) -> dict[str, Any]:
        """What was run: `prompt`, `tokens`, `token_ids`; of a chat message also its system message and template."""
        found = {"prompt": self.prompt, "tokens": list(self.tokens), "token_ids": list(self.token_ids)}
        return found if self.chat is None else found | self.chat.meta


_FIELDS = tuple(f.name for f in fields(Activations))
PARTS = _FIELDS[_FIELDS.index("resid_pre") :]


# ---- what a run is altered by (checked and made numbers: `edits`; written into the pass: `edit_hooks`) ---------------
How = Literal["zero", "mean", "from", "scale", "add"]


def check_pass(model: Any, acts: Any) -> None:
    """Refuse what is no model, or no record of one, before an attribute of it is missed."""
    if not hasattr(model, "n_layers"):
        raise VisitError(f"The model must be what visit.load_model returns; got {type(model).__name__}.")
    check_kind("The record", acts, Activations, "what visit.capture returns")


@dataclass(frozen=True)
class Site:
    """The numbers of one node: `columns` of a quantity of a layer, at `source_pos` where the node names one.

    `heads`: of keys, values and links the heads that the node acts on.
    """

    node: NodeId
    quantity: str
    layer: int
    columns: slice
    width: int
    heads: tuple[int, ...] = ()

    @property
    def source_pos(self) -> int | None:
        return self.node.source_pos

    @property
    def per_source(self) -> bool:
        """Whether it is one position as others attend to it: a key, a value, a link. Its edit acts at their queries."""
        return self.node.kind in ("key", "value", "link", "kv_key", "kv_value")


@dataclass(frozen=True, eq=False)
class Edit:
    """Replace or change one part of one run, at every position or at some.

    `node_id`: a head (`L9.head6`, the input of W_O), a neuron (`L9.mlp_value2071`, `L9.attn_neuron391`), a whole sum
    (`L9.attn_out`, `L9.mlp_out`; `L9.block`: all that the block adds to the stream), the stream (`L9.resid_pre`,
    `L9.resid_post`), the embedding as it enters the stream, without a learned position (`embed`, `embed.pos3`), a
    `L9.head6.query`; and of one source position, 4: `L9.head6.key4`, `L9.head6.value4` (of that head alone, also where
    heads share them), `L9.kv_head2.key4`, `L9.kv_head2.value4` (the shared vector, for all heads that read it), and
    `L9.head6.link4`, the weight with which the head attends to it: the others stay as they are, so that they add up to
    1 no more; with `L9.head6.link4.renormalised` they are divided by their new sum.
    `how`: "zero"; "scale": `factor` × its own; "add": plus `factor` (1 without one) × a direction;
    "from" (resampled): its values in `source`; "mean": its mean in `source`.
    `source` of "from": a record or a prompt; of another length it is aligned by its tokens, and what has no partner
    stays as it is. Of "mean": prompts (their mean at that position from the end; position 0 is never averaged with
    others, and a position that fewer than 5 prompts have takes the mean over all but position 0), a record (the mean of
    its positions), or None (of this run's positions). Of "add": a vector `[width]` or one a position `[pos, width]`, or
    a pair (b, a) of prompts or records: the site's vector at the last position of b minus that of a.
    `pos`: "all", a position (negative from the end), or several; of a key, value or link: the queries that see it so.
    Raises nothing by itself: `capture` checks it against its model and prompt. Source: causes, section 12.
    """

    node_id: str
    how: How = "zero"
    source: Any = None
    pos: Any = "all"
    factor: float | None = None


@dataclass(frozen=True, eq=False)
class Applied:
    """An edit as it acts on one run, its source turned into numbers, so that the run can be made again.

    `positions`: None = all. `values`: `[pos, width]`, one for each position of the prompt, or `[1, width]` for all of
    them; None where none are needed. `beyond`: of a mean over prompts, the vector of positions past the prompt's end.
    `edit` is what was asked for without its source, which may be a large record; `origin` says what that was.
    `note`: what was left out of it, a sentence. `changed`: (k, n), it changed k of n numbers in its run; of a key,
    value or link of one head the numbers of its z.
    """

    edit: Edit
    site: Site
    positions: tuple[int, ...] | None
    values: Float[Tensor, "pos width"] | None = None
    beyond: Float[Tensor, "1 width"] | None = None
    note: str = ""
    origin: str = ""
    changed: tuple[int, int] | None = None

    def edited(
        self, own: Float[Tensor, "... pos width"], whole: Tensor | None = None, rows: int | None = None
    ) -> Float[Tensor, "... pos width"]:
        """`own` with the edit in it. `whole`: what a run's own mean is taken over (None: `own`); `rows`: every row of
        `own` is the vector of this one position, as other positions see it."""
        values = None if self.values is None else self.values.to(own)
        # a direction, and the mean of one run, are one vector for all positions; all else is one for each
        if values is not None and (len(values) > 1 or self.beyond is not None or self.edit.how == "from"):
            if rows is not None:
                values = values[rows : rows + 1]
            elif (more := own.shape[-2] - len(values)) > 0:  # the text has grown
                after = own[..., len(values) :, :] if self.beyond is None else self.beyond.to(own).expand(more, -1)
                after = torch.zeros_like(after) if self.edit.how == "add" else after
                values = torch.cat([values.expand(*after.shape[:-2], -1, -1), after], dim=-2)
        how = self.edit.how
        if how == "zero":
            new = torch.zeros_like(own)
        elif how == "scale":
            new = own * self.factor
        elif values is None:
            new = (own if whole is None else whole).mean(-2, keepdim=True)
        else:
            new = own + self.factor * values if how == "add" else values
        new = new.expand_as(own)
        if self.positions is None:
            return new
        out = own.clone()
        out[..., self.positions, :] = new[..., self.positions, :]
        return out

    @property
    def factor(self) -> float:
        return 1.0 if self.edit.factor is None else float(self.edit.factor)

    @property
    def meta(self) -> dict[str, Any]:
        """What was done, for a table: `node`, `how`, `source` (in words), `factor`, `positions` (None: all), `heads`
        (of a shared key or value those that read it), `changed` of so many `numbers`, `note`.
        """
        changed, numbers = self.changed or (None, None)
        factor = self.factor if self.edit.how in ("scale", "add") else None
        return {
            "node": self.edit.node_id, "how": self.edit.how, "source": self.origin or None, "factor": factor,
            "positions": None if self.positions is None else list(self.positions),
            "heads": list(self.site.heads) if self.site.node.kv_head is not None else None,
            "changed": changed, "numbers": numbers, "note": self.note,
        }  # fmt: skip
