"""Which sequence has which slot of the decoder."""

from collections.abc import Sequence

from edge.engine.decoder import Decoder
from edge.engine.generation import Generation
from edge.engine.sampling import Logits


class Batch:
    """By slot, without gaps: those that decode, then at most one whose prompt is being read."""

    def __init__(self, decoder: Decoder) -> None:
        self._decoder = decoder
        self.running: list[Generation] = []

    @property
    def free(self) -> int:
        """Slots that nobody has."""
        return self._decoder.slots - len(self.running)

    @property
    def filling(self) -> Generation | None:
        """The one whose prompt is being read."""
        last = self.running[-1] if self.running else None
        return last if last and last.length < len(last.prompt) else None

    @property
    def decoding(self) -> list[Generation]:
        """Those whose prompts have been read."""
        return self.running[:-1] if self.filling else list(self.running)

    def add(self, generations: Sequence[Generation]) -> None:
        """Give the next slots to one that is to be filled, or, while all are free, to several of one length."""
        self.running.extend(generations)

    def fill(self, generation: Generation, most_tokens: int) -> tuple[int, Logits]:
        """Read a piece of the last one's prompt; returns how many tokens, and logits [vocabulary] after the piece."""
        piece = generation.prompt[generation.length : generation.length + most_tokens]
        logits = self._decoder.prefill(len(self.running) - 1, piece, generation.length)
        generation.length += len(piece)
        return len(piece), logits

    def fill_equal(self) -> Logits:
        """Read everybody's prompt, all whole and of one length; returns logits [n, vocabulary]."""
        logits = self._decoder.prefill_equal([one.prompt for one in self.running])
        for generation in self.running:
            generation.length = len(generation.prompt)
        return logits

    def step(self, decoding: Sequence[Generation]) -> Logits:
        """Add its last token to each of `decoding`; returns logits [n, vocabulary], overwritten by the next step."""
        logits = self._decoder.step([one.token for one in decoding], [one.length for one in decoding])
        for generation in decoding:
            generation.length += 1
        return logits

    def remove(self, generation: Generation) -> None:
        """Close the gap: the last that decodes moves into it, and the one being prefilled moves up."""
        gap = self.running.index(generation)
        last = len(self.running) - 1
        if self.filling is not None and self.filling is not generation:
            self._move(last - 1, gap)
            gap = last - 1
        self._move(last, gap)
        self.running.pop()

    def clear(self) -> list[Generation]:
        """Take everyone out."""
        left, self.running = self.running, []
        return left

    def _move(self, source: int, target: int) -> None:
        if source != target:
            moved = self.running[source]
            self._decoder.move(source, target, moved.length)
            self.running[target] = moved
