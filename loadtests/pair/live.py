"""The demo pair behind a running router: every question through its endpoint, with what its headers say."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import httpx

from loadtests.pair.questions import Question, is_correct

CONCURRENCY = 12
_DEADLINE_S = 60.0

T = TypeVar("T")
Progress = Callable[[int], None]


@dataclass(frozen=True, slots=True)
class Routed:
    """One answer that came through the router."""

    right: bool
    tier: str
    reason: str
    evidence: str
    score: float


@dataclass(frozen=True, slots=True)
class Explained:
    """What `/v1/route` said of a question, before any inference."""

    score: float
    evidence: str


class LiveRouter:
    """`async with LiveRouter(url) as router`; bounded in how much it asks at once."""

    def __init__(self, url: str) -> None:
        headers = {"cache-control": "no-store"}  # what is measured is the pair
        self._client = httpx.AsyncClient(base_url=url, timeout=_DEADLINE_S, trust_env=False, headers=headers)
        self._room = asyncio.Semaphore(CONCURRENCY)

    async def __aenter__(self) -> "LiveRouter":
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._client.aclose()

    async def answer(
        self, questions: Sequence[Question], model: str, headers: Mapping[str, str], progress: Progress
    ) -> list[Routed]:
        """Ask for an answer to each question."""

        async def ask(question: Question) -> Routed:
            response = await self._post("/v1/chat/completions", model, question, headers)
            text: str = response.json()["choices"][0]["message"]["content"]
            said = response.headers
            return Routed(
                is_correct(question, text),
                said["x-route-tier"],
                said["x-route-reason"],
                said.get("x-route-evidence", ""),
                float(said.get("x-route-score", "nan")),
            )

        return await self._each(questions, ask, progress)

    async def explain(self, questions: Sequence[Question], progress: Progress) -> list[Explained]:
        """Ask where each question would go."""

        async def ask(question: Question) -> Explained:
            said = (await self._post("/v1/route", "auto", question, {"x-answer-check": "off"})).json()
            return Explained(said["score"], said["evidence"])

        return await self._each(questions, ask, progress)

    async def _post(self, path: str, model: str, question: Question, headers: Mapping[str, str]) -> httpx.Response:
        messages = [{"role": role, "content": content} for role, content in question.messages]
        body: dict[str, Any] = {"model": model, "messages": messages, "temperature": 0}
        async with self._room:
            response = await self._client.post(path, json=body, headers=dict(headers))
        response.raise_for_status()
        return response

    async def _each(
        self, questions: Sequence[Question], ask: Callable[[Question], Awaitable[T]], progress: Progress
    ) -> list[T]:
        done = 0

        async def one(question: Question) -> T:
            nonlocal done
            result = await ask(question)
            done += 1
            progress(done)
            return result

        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(one(question)) for question in questions]
        return [task.result() for task in tasks]
