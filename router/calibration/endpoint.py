"""The running router, asked as any client asks it: temperature 0, background priority, patient when it is full."""

import asyncio
import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import httpx
import msgspec

from edge.wire import ChatChoice, ChatCompletion, ErrorBody
from router.calibration.errors import CalibrationError, UnansweredError
from router.query import Finish
from router.scoring.dataset import AnswerToken, Turn

CHAT_URL = "/v1/chat/completions"
TOP_LOGPROBS = 5
_PASSING = frozenset({408, 429, 500, 502, 503, 504})
_LOCKED = frozenset({401, 403, 404})
_LONGEST_WAIT_S = 30.0
_FIRST_ATTEMPTS = 3


@dataclass(frozen=True, slots=True)
class Patience:
    """How often a request that fails in passing is sent, and how long the first wait is; each next one doubles."""

    attempts: int = 8
    first_wait_s: float = 0.5
    timeout_s: float = 300.0


@dataclass(frozen=True, slots=True)
class Reply:
    """One answer; `tokens` is empty where the target gives no log-probabilities."""

    text: str
    tokens: list[AnswerToken]
    finish: Finish


class Endpoint:
    """One router. `ask` raises `CalibrationError` and nothing else."""

    def __init__(self, client: httpx.AsyncClient, patience: Patience | None = None) -> None:
        self._client = client
        self._patience = patience or Patience()
        self._decoder = msgspec.json.Decoder(ChatCompletion)
        self._without_logprobs: set[str] = set()
        self._reached = False

    async def ask(
        self, model: str, turns: Sequence[Turn], *, logprobs: bool = False, max_tokens: int | None = None
    ) -> Reply:
        """One greedy answer; asks without log-probabilities where the target refuses to give them.

        Raises:
            UnansweredError: the target refuses this prompt.
            CalibrationError: the router cannot be used, or did not recover within the patience.
        """
        body: dict[str, Any] = {
            "model": model,
            "messages": [{"role": turn.role, "content": turn.content} for turn in turns],
            "temperature": 0,
        }
        if max_tokens is not None:
            body["max_tokens"] = max_tokens
        if logprobs and model not in self._without_logprobs:
            wanted = {"logprobs": True, "top_logprobs": TOP_LOGPROBS}
            try:
                return self._read(model, await self._send(body | wanted))
            except UnansweredError:
                reply = self._read(model, await self._send(body))
                self._without_logprobs.add(model)  # the prompt was not to blame
                return reply
        return self._read(model, await self._send(body))

    async def _send(self, body: dict[str, Any]) -> httpx.Response:
        """Send until it is answered for good."""
        failure = ""
        response: httpx.Response | None = None
        for attempt in range(self._patience.attempts):
            if attempt >= _FIRST_ATTEMPTS and not self._reached:
                break  # a wrong address does not heal
            if attempt:
                await asyncio.sleep(self._wait_s(attempt, response))
            response = None
            try:
                response = await self._client.post(CHAT_URL, json=body, timeout=self._patience.timeout_s)
            except httpx.TransportError as exc:
                failure = f"cannot be reached ({type(exc).__name__})"
                continue
            self._reached = True
            if response.is_success:
                return response
            failure = f"answers {response.status_code} ({_said(response)})"
            if response.status_code in _LOCKED:
                break
            if response.status_code not in _PASSING:
                raise UnansweredError(f"{body['model']} {failure}")
        raise CalibrationError(
            f"{self._client.base_url}: the router {failure} for the model {body['model']!r}; put that right and run "
            "the same command again: it goes on where it stopped"
        )

    def _wait_s(self, attempt: int, response: httpx.Response | None) -> float:
        doubled = self._patience.first_wait_s * 2.0 ** (attempt - 1)
        asked = response.headers.get("retry-after", "") if response is not None else ""
        least = float(asked) if asked.isdecimal() else 0.0
        jitter = random.uniform(0.5, 1.0)  # noqa: S311 - spreads retries, guards nothing
        return min(max(doubled * jitter, least), _LONGEST_WAIT_S)

    def _read(self, model: str, response: httpx.Response) -> Reply:
        tier = response.headers.get("x-route-tier", model)
        if response.headers.get("x-degraded") or (model in {"edge", "cloud"} and tier != model):
            raise CalibrationError(
                f"{self._client.base_url}: {model} is down and its fallback answered; bring it up and run again"
            )
        try:
            choice = self._decoder.decode(response.content).choices[0]
            finish = Finish(choice.finish_reason or Finish.STOP)
        except (msgspec.MsgspecError, IndexError, ValueError) as exc:
            raise CalibrationError(f"{self._client.base_url}: sent an answer that we cannot read ({exc})") from exc
        return Reply(choice.message.content or "", _read_tokens(choice), finish)


def _read_tokens(choice: ChatChoice) -> list[AnswerToken]:
    content = choice.logprobs.content if choice.logprobs else None
    return [
        AnswerToken(one.token, one.logprob, [(top.token, top.logprob) for top in one.top_logprobs])
        for one in content or []
    ]


def _said(response: httpx.Response) -> str:
    """The error's code or type: its message may quote the prompt."""
    try:
        error = msgspec.json.decode(response.content, type=ErrorBody).error
    except msgspec.MsgspecError:
        return response.reason_phrase
    return str(error.code or error.type)
