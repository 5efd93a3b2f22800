"""What a model of the pair really answers: through the project's own engine, batched, greedily."""

import threading
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

from edge.engine.answer import FinishReason, TokenLogprobs
from edge.engine.artifact import Artifact
from edge.engine.decoder import Decoder
from edge.engine.errors import EngineError
from edge.engine.events import Delta, Event, Failure, Finish
from edge.engine.generator import Generator
from edge.engine.sampling import Sampling
from edge.engine.session import SessionConfig
from edge.engine.template import ChatTemplate
from edge.engine.tokens import Tokenizer
from loadtests.pair.questions import Question

SLOTS = 32
_LONGEST_ANSWER_TOKENS = 320


@dataclass(slots=True)
class Reply:
    """One answer; `tokens` only if log-probabilities were asked for."""

    text: str = ""
    tokens: list[TokenLogprobs] = field(default_factory=list)
    finish: FinishReason = FinishReason.STOP


class _Answers:
    """Collects replies from the generator's thread."""

    def __init__(self, count: int, progress: Callable[[int], None]) -> None:
        self.replies = [Reply() for _ in range(count)]
        self._left = count
        self._progress = progress
        self._failure: EngineError | None = None
        self._done = threading.Event()

    def receiver(self, index: int) -> Callable[[Event], None]:
        """Where one generation's events go."""

        def deliver(event: Event) -> None:
            match event:
                case Delta(text=text, tokens=tokens):
                    self.replies[index].text += text
                    self.replies[index].tokens.extend(tokens)
                case Failure(error=error):
                    self._failure = error
                    self._done.set()
                case Finish(reason=reason):
                    self.replies[index].finish = reason
                    self._left -= 1
                    self._progress(len(self.replies) - self._left)
                    if not self._left:
                        self._done.set()

        return deliver

    def wait(self, limit_s: float) -> list[Reply]:
        """All replies, in order.

        Raises:
            EngineError: a generation failed.
            TimeoutError: `limit_s` passed.
        """
        if not self._done.wait(limit_s):
            raise TimeoutError(f"{self._left} answers are missing after {limit_s} s")
        if self._failure is not None:
            raise self._failure
        return self.replies


def answer_all(
    artifact: Path,
    questions: Sequence[Question],
    *,
    logprobs: int | None = None,
    limit_s: float = 900.0,
    progress: Callable[[int], None] = lambda _: None,
) -> list[Reply]:
    """One reply a question, from the chat artifact in a folder.

    Args:
        artifact: The folder.
        questions: What to ask.
        logprobs: So many of the likeliest tokens at each place; None for no log-probabilities.
        limit_s: How long all of it may take.
        progress: Told how many are done.
    """
    folder = Artifact.open(artifact).path
    tokenizer = Tokenizer(folder / "tokenizer.json")
    template = ChatTemplate.load(folder / "tokenizer_config.json")
    decoder = Decoder(folder, SessionConfig(), slots=SLOTS)
    sampling = Sampling(temperature=0.0, max_tokens=_LONGEST_ANSWER_TOKENS, logprobs=logprobs)
    answers = _Answers(len(questions), progress)
    with ExitStack() as stack:
        generator = stack.enter_context(Generator(decoder, tokenizer, waiting=len(questions), prefill_tokens=512))
        for index, question in enumerate(questions):
            turns = [{"role": role, "content": content} for role, content in question.messages]
            prompt = tokenizer.encode(template.render(turns), add_special=False)
            generator.submit(prompt, sampling, answers.receiver(index))
        return answers.wait(limit_s)
