"""
A model's own chat template: the Jinja text in tokenizer_config.json, rendered as transformers does
(https://huggingface.co/docs/transformers/chat_templating), in a sandbox and with bounds.
"""

import datetime
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jinja2
import msgspec
from jinja2.sandbox import ImmutableSandboxedEnvironment

LONGEST_PROMPT = 4 * 1024 * 1024
"""Characters; a template that loops cannot fill the memory."""


class TemplateError(ValueError):
    """There is no template, it is broken, or it refuses the conversation."""


class ChatTemplate:
    """Renders conversations for one model."""

    def __init__(self, source: str, special_tokens: Mapping[str, str]) -> None:
        """
        Args:
            source: The Jinja text.
            special_tokens: `bos_token`, `eos_token` and such, which templates name.

        Raises:
            TemplateError: the text is not a template.
        """
        environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True)
        environment.globals |= {"raise_exception": _refuse, "strftime_now": _format_now}
        environment.filters["tojson"] = _write_json
        try:
            self._template = environment.from_string(source)
        except jinja2.TemplateError as exc:
            raise TemplateError(f"the chat template is broken: {exc}") from exc
        self._special_tokens = dict(special_tokens)

    @classmethod
    def load(cls, path: Path) -> "ChatTemplate":
        """Read a tokenizer_config.json, or the chat_template.jinja beside it.

        Raises:
            TemplateError: one line naming the file.
        """
        try:
            config = msgspec.json.decode(path.read_bytes(), type=dict[str, Any])
            beside = path.with_name("chat_template.jinja")
            source = config.get("chat_template") or (beside.read_text() if beside.is_file() else None)
        except (OSError, UnicodeDecodeError, msgspec.MsgspecError) as exc:
            raise TemplateError(f"{path}: cannot be read as a tokenizer_config.json ({exc})") from exc
        if isinstance(source, list):  # named templates; the default one is for chat
            source = next((one["template"] for one in source if one.get("name") == "default"), None)
        if not isinstance(source, str):
            raise TemplateError(f"{path}: has no chat_template; use a model that was tuned for chat")
        return cls(source, _special_tokens(config))

    def render(self, messages: Sequence[Mapping[str, str]]) -> str:
        """The prompt that asks for the assistant's next turn; `messages` have `role` and `content`.

        Raises:
            TemplateError: the template refuses these turns, or its output is too long.
        """
        try:
            pieces = self._template.generate(
                messages=list(messages), add_generation_prompt=True, **self._special_tokens
            )
            return _join(pieces)
        except jinja2.TemplateError as exc:
            raise TemplateError(str(exc)) from exc
        except (TypeError, ValueError, KeyError, ArithmeticError) as exc:
            raise TemplateError(f"the chat template failed: {exc}") from exc


def _join(pieces: Any) -> str:
    kept: list[str] = []
    length = 0
    for piece in pieces:
        length += len(piece)
        if length > LONGEST_PROMPT:
            raise TemplateError(f"the prompt is over {LONGEST_PROMPT} characters")
        kept.append(piece)
    return "".join(kept)


def _special_tokens(config: Mapping[str, Any]) -> dict[str, str]:
    found = {}
    for name, value in config.items():
        if name.endswith("_token"):
            text = value.get("content") if isinstance(value, dict) else value
            if isinstance(text, str):
                found[name] = text
    return found


def _refuse(message: str) -> None:
    raise jinja2.TemplateError(message)


def _format_now(pattern: str) -> str:
    return datetime.datetime.now(datetime.UTC).strftime(pattern)


def _write_json(value: Any, indent: int | None = None) -> str:
    # unlike Jinja's own filter: no HTML escapes
    return json.dumps(value, ensure_ascii=False, indent=indent)
