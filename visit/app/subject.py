"""What a page is about: a model, its pass, a position, and the words asked about; live, or from a recording."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from visit.app.recorded import answered_at, is_recorded, run_named, stands_in
from visit.text.visible import visible

if TYPE_CHECKING:
    from visit.activations.record import Activations
    from visit.exact.question import Question
    from visit.models.model import Model


@dataclass(frozen=True, eq=False)
class Subject:
    """What a page is about: a model, a captured pass, a position, and the words it is asked about.

    `key`: the pass: the model, and what was typed. A subject does not hold them: callbacks keep it as long as their
    session lives, and thirty sessions must keep neither thirty passes nor a model that has left the memory.
    """

    key: tuple[str, Any]
    pos: int
    target: int
    distractor: int | None
    _model: Callable[[], Model]
    _acts: Callable[[], Activations]

    @property
    def model(self) -> Model:
        """As it was when the page was drawn, while it is in memory."""
        return self._model()

    @property
    def acts(self) -> Activations:
        """As the model."""
        return self._acts()

    @property
    def recorded(self) -> Any:
        """The recorded pass, where this is one: model and pass are what the recording says of them."""
        return run_named(self.key[0])[1] if is_recorded(self.key[0]) else None

    @property
    def stands_in(self) -> bool:
        """Whether this is a recording in the place of a model that is being loaded: nothing is refused then."""
        return stands_in(self.key[0])

    @property
    def about(self) -> tuple[str, Any, int, int, int | None]:
        """What a cached analysis needs to know: model, prompt, position, target, distractor."""
        return *self.key, self.pos, self.target, self.distractor

    @property
    def question(self) -> Question:
        """The same, as an analysis takes it."""
        from visit.exact.question import Question

        return Question(self.model, self.acts, self.pos, self.target, self.distractor)

    @property
    def meta(self) -> dict[str, Any]:
        """What a file of this page is of."""
        if self.recorded is not None:
            return {**self.recorded.graph.meta, "recorded": True}
        return self.question.meta

    @property
    def chance(self) -> float:
        """The probability of the target at the position."""
        if self.recorded is not None:
            return answered_at(self.recorded)[0]
        assert self.acts.logits is not None
        return float(self.acts.logits[self.pos].float().softmax(-1)[self.target])

    @property
    def word(self) -> str:
        """The target as it is shown."""
        return visible(self.model.vocabulary[self.target])

    @property
    def named(self) -> list[str]:
        """The prompt's tokens as a reader names them: `東 1/2` for a part of a character."""
        from visit.models.tokens import spelled_tokens

        if self.recorded is not None:
            return list(self.recorded.named)
        return spelled_tokens(self.model.tokenizer, self.acts.token_ids, self.acts.tokens)

    @property
    def token(self) -> str:
        """The token at the position, as it is shown."""
        return visible(self.named[self.pos])

    def in_address(self, pos: int) -> int:
        """A position as the address holds it: the last one as −1."""
        return -1 if pos == len(self.acts.token_ids) - 1 else pos
