"""The values that travel between the API, the pipeline and the backends: no wire format, no I/O."""

from collections.abc import Sequence
from enum import StrEnum

from msgspec import Struct


class Priority(StrEnum):
    """How urgent a request is, most urgent first."""

    INTERACTIVE = "interactive"
    STANDARD = "standard"
    BATCH = "batch"

    @property
    def rank(self) -> int:
        """0 for the most urgent."""
        return _RANKS[self]


_RANKS = {priority: rank for rank, priority in enumerate(Priority)}


class Capability(StrEnum):
    """What a target may or may not be able to honour. Each value is the request parameter that asks for it."""

    JSON_OBJECT = "response_format.json_object"
    JSON_SCHEMA = "response_format.json_schema"
    TOOLS = "tools"
    IMAGES = "messages.image_url"
    AUDIO = "messages.input_audio"
    FILES = "messages.file"
    FREQUENCY_PENALTY = "frequency_penalty"
    PRESENCE_PENALTY = "presence_penalty"
    LOGIT_BIAS = "logit_bias"
    REASONING_EFFORT = "reasoning_effort"
    VERBOSITY = "verbosity"
    MODALITIES = "modalities"
    WEB_SEARCH = "web_search_options"
    ECHO = "echo"
    SUFFIX = "suffix"
    BEST_OF = "best_of"

    @property
    def param(self) -> str:
        """The request's parameter, as OpenAI's `error.param` names it."""
        return self.value.split(".", 1)[0]

    @property
    def carried(self) -> bool:
        """Whether `Query` can take it to a target; the others are refused whatever a target could do."""
        return self in _CARRIED


_CARRIED = frozenset(
    {
        Capability.JSON_OBJECT,
        Capability.JSON_SCHEMA,
        Capability.FREQUENCY_PENALTY,
        Capability.PRESENCE_PENALTY,
        Capability.LOGIT_BIAS,
    }
)


class Message(Struct, frozen=True):
    """One turn; `text` joins the text parts."""

    role: str
    text: str
    name: str | None = None


class Conversation(Struct, frozen=True):
    """Turns to answer through the target's chat template; never empty."""

    messages: tuple[Message, ...]

    @property
    def text(self) -> str:
        """The last user turn."""
        return next((m.text for m in reversed(self.messages) if m.role == "user"), self.messages[-1].text)


class RawPrompts(Struct, frozen=True):
    """Texts to continue as they are, one or more; answer `i * n + k` is the k-th continuation of text i."""

    texts: tuple[str, ...]

    @property
    def text(self) -> str:
        """All of them."""
        return "\n".join(self.texts)


Prompt = Conversation | RawPrompts


class JsonFormat(Struct, frozen=True):
    """The answer must be JSON; `schema` None means any object (OpenAI's `json_object`)."""

    schema: bytes | None = None
    name: str = "answer"
    strict: bool = False


class Parameters(Struct, frozen=True):
    """How to generate. None leaves the choice to the target."""

    max_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    stop: tuple[str, ...] = ()
    seed: int | None = None
    n: int = 1
    logprobs: bool = False
    top_logprobs: int = 0
    json_format: JsonFormat | None = None
    frequency_penalty: float = 0.0
    presence_penalty: float = 0.0
    logit_bias: dict[str, float] = {}


class Query(Struct, frozen=True):
    """What a client wants generated; `deadline` is on `time.monotonic()`'s clock.

    With `on_site` nothing that is made of it may leave the site. `trace_headers` are W3C's, for the target.
    """

    prompt: Prompt
    parameters: Parameters
    priority: Priority = Priority.STANDARD
    deadline: float | None = None
    request_id: str = ""
    tenant: str = ""
    on_site: bool = False
    trace_headers: dict[str, str] = {}


class TokenLogprob(Struct, frozen=True):
    """A token, its natural-log probability, and the likeliest tokens at its place."""

    token: str
    logprob: float
    top: tuple["TokenLogprob", ...] = ()

    @property
    def bytes(self) -> list[int]:
        """The token's UTF-8 bytes, as OpenAI lists them."""
        return list(self.token.encode())


class Finish(StrEnum):
    """Why a generation ended."""

    STOP = "stop"
    LENGTH = "length"
    CONTENT_FILTER = "content_filter"


class Choice(Struct, frozen=True):
    """One whole answer."""

    text: str
    finish: Finish
    logprobs: tuple[TokenLogprob, ...] = ()


class Usage(Struct, frozen=True):
    """Token counts of a whole request."""

    prompt_tokens: int = 0
    completion_tokens: int = 0

    def __add__(self, other: "Usage") -> "Usage":
        return Usage(
            self.prompt_tokens + other.prompt_tokens,
            self.completion_tokens + other.completion_tokens,
        )


class Completion(Struct, frozen=True):
    """All `n` answers, in order."""

    choices: Sequence[Choice]
    usage: Usage


class Delta(Struct, frozen=True):
    """A piece of answer `index`; the piece that ends it carries `finish`, the last piece of all `usage`."""

    index: int
    text: str = ""
    logprobs: tuple[TokenLogprob, ...] = ()
    finish: Finish | None = None
    usage: Usage | None = None


Input = str | tuple[int, ...]
"""What is embedded: a text, or token ids."""


class EmbeddingQuery(Struct, frozen=True):
    """Texts, or token lists, to embed, in order; the rest as in `Query`."""

    inputs: tuple[Input, ...]
    priority: Priority = Priority.STANDARD
    deadline: float | None = None
    request_id: str = ""
    tenant: str = ""
    on_site: bool = False
    trace_headers: dict[str, str] = {}


class Embeddings(Struct, frozen=True):
    """One little-endian float32 vector (as bytes) an input, in order.

    `counts` are the tokens of each input, where the target tells more than their sum `prompt_tokens`.
    """

    vectors: tuple[bytes, ...]
    prompt_tokens: int
    counts: tuple[int, ...] | None = None
