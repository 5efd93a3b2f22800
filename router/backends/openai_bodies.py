"""Between `router.query`'s values and the bodies of OpenAI's API, as a client of it says and reads them."""

import base64
import struct
from typing import Any

import msgspec

from edge import wire
from router.query import Choice, Finish, Parameters, TokenLogprob, Usage


def say_sampling(p: Parameters) -> dict[str, Any]:
    """Only what was asked for: an older server refuses parameters that it does not know."""
    chosen: dict[str, Any] = {
        "max_tokens": p.max_tokens,
        "temperature": p.temperature,
        "top_p": p.top_p,
        "stop": p.stop or None,
        "seed": p.seed,
        "n": p.n if p.n > 1 else None,
        "frequency_penalty": p.frequency_penalty or None,
        "presence_penalty": p.presence_penalty or None,
        "logit_bias": p.logit_bias or None,
        "response_format": _response_format(p),
    }
    return {name: value for name, value in chosen.items() if value is not None}


def _response_format(p: Parameters) -> dict[str, Any] | None:
    wanted = p.json_format
    if wanted is None:
        return None
    if wanted.schema is None:
        return {"type": "json_object"}
    schema = {"name": wanted.name, "schema": msgspec.Raw(wanted.schema), "strict": wanted.strict}
    return {"type": "json_schema", "json_schema": schema}


def say_turn(role: str, text: str, name: str | None) -> dict[str, str]:
    """A message of a chat request."""
    return {"role": role, "content": text} if name is None else {"role": role, "content": text, "name": name}


def read_usage(usage: wire.Usage | msgspec.UnsetType | None) -> Usage:
    """Token counts, zero where the server gave none."""
    return Usage(usage.prompt_tokens, usage.completion_tokens) if isinstance(usage, wire.Usage) else Usage()


def read_chat_choice(choice: wire.ChatChoice) -> Choice:
    """A whole chat answer."""
    return Choice(
        choice.message.content or "", Finish(choice.finish_reason or Finish.STOP), read_chat_logprobs(choice.logprobs)
    )


def read_text_choice(choice: wire.TextChoice) -> Choice:
    """A whole text completion."""
    return Choice(choice.text, Finish(choice.finish_reason or Finish.STOP), read_text_logprobs(choice.logprobs))


def read_chat_logprobs(logprobs: wire.ChatLogprobs | None) -> tuple[TokenLogprob, ...]:
    """Chat's form: an object a token."""
    if logprobs is None or not logprobs.content:
        return ()
    return tuple(
        TokenLogprob(
            place.token, place.logprob, tuple(TokenLogprob(top.token, top.logprob) for top in place.top_logprobs)
        )
        for place in logprobs.content
    )


def read_text_logprobs(logprobs: wire.TextLogprobs | None) -> tuple[TokenLogprob, ...]:
    """The older form: parallel lists."""
    if logprobs is None:
        return ()
    tops = logprobs.top_logprobs or [None] * len(logprobs.tokens)
    return tuple(
        TokenLogprob(token, logprob or 0.0, tuple(TokenLogprob(*item) for item in (top or {}).items()))
        for token, logprob, top in zip(logprobs.tokens, logprobs.token_logprobs, tops, strict=True)
    )


def read_vector(embedding: list[float] | str) -> bytes:
    """Little-endian float32, whichever form the server sent."""
    if isinstance(embedding, str):
        return base64.b64decode(embedding, validate=True)
    return struct.pack(f"<{len(embedding)}f", *embedding)
