"""What one forward pass leaves behind: a frozen record, without batch axis."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

from jaxtyping import Float
from torch import Tensor

from visit.errors import VisitError
from visit.models.tokens import Chat

if TYPE_CHECKING:
    from visit.activations.edits import Applied


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


_NAMES = tuple(f.name for f in fields(Activations))
PARTS = _NAMES[_NAMES.index("resid_pre") :]


@dataclass(frozen=True, eq=False)
class Gradients:
    """How one number m of a run changes with what is added to the stream: ∂m/∂`attn_out`, ∂m/∂`mlp_out`.

    m is the target's centred logit at `pos` (or target − distractor), before a soft-cap; units: logits per unit of the
    stream. `positions` names what the axis `pos` of the gradients holds: `pos` alone, or all positions.
    A state has the gradient of what was added to it last (`into`).
    """

    pos: int
    positions: tuple[int, ...]
    attn_out: Float[Tensor, "layer pos d_model"]
    mlp_out: Float[Tensor, "layer pos d_model"]

    def into(self, kind: str, layer: int) -> Float[Tensor, " d_model"]:
        """∂m/∂ a vector at `pos`: "attn_out", "mlp_out", "resid_mid", "resid_post", or "resid_pre" after block 0."""
        if kind == "resid_pre":
            kind, layer = "resid_post", layer - 1
        part = self.attn_out if kind in ("attn_out", "resid_mid") else self.mlp_out
        return part[layer, self.positions.index(self.pos)]
