"""An open loop of chats through OpenAI's SDK, whole and streamed, that asks once and counts whatever goes wrong."""

import asyncio
import random
import threading
from collections import Counter
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Self

from openai import AsyncOpenAI, OpenAIError

_LIMIT_S = 60.0
_EVERY = 4
# a string that long cannot end early, whatever the model would say
_LONG: dict[str, Any] = {
    "max_tokens": 140,
    "response_format": {
        "type": "json_schema",
        "json_schema": {"name": "long", "schema": {"type": "string", "minLength": 120}},
    },
}
_SHORT: dict[str, Any] = {"max_tokens": 48}


@dataclass
class Load:
    """`with Load(url, rate) as load`: `rate` requests a second, at random, whether or not others are answered.

    Half are streamed, every fourth answer is long, none comes from a cache.
    """

    url: str
    rate: float
    key: str = "none"
    model: str = "edge"
    sent: int = 0
    answered: Counter[str] = field(default_factory=Counter)
    """By target."""
    failed: list[str] = field(default_factory=list)

    def __enter__(self) -> Self:
        self._over = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()))
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, exc: BaseException | None, _: TracebackType | None) -> None:
        self._over.set()
        self._thread.join(2 * _LIMIT_S)

    async def _run(self) -> None:
        arrivals = random.Random(6)
        async with (
            AsyncOpenAI(
                base_url=f"{self.url}/v1",
                api_key=self.key,
                max_retries=0,
                timeout=_LIMIT_S,
                default_headers={"cache-control": "no-store"},
            ) as client,
            asyncio.TaskGroup() as group,
        ):
            while not self._over.is_set():
                self.sent += 1
                group.create_task(self._ask(client, self.sent))
                await asyncio.sleep(arrivals.expovariate(self.rate))

    async def _ask(self, client: AsyncOpenAI, number: int) -> None:
        prompt = f"What is {number % 90} plus {number // 90}?"
        try:
            ask = self._ask_whole if number % 2 else self._ask_streamed
            length = _LONG if number // 2 % _EVERY == 0 else _SHORT
            self.answered[await ask(client, prompt, length)] += 1
        except (OpenAIError, AssertionError) as exc:
            self.failed.append(f"{type(exc).__name__}: {exc}")

    async def _ask_whole(self, client: AsyncOpenAI, prompt: str, length: dict[str, Any]) -> str:
        raw = await client.chat.completions.with_raw_response.create(
            model=self.model, messages=[{"role": "user", "content": prompt}], temperature=0, **length
        )
        answer = raw.parse()
        assert answer.choices[0].message.content, "an empty answer"
        return str(raw.headers["x-route-target"])

    async def _ask_streamed(self, client: AsyncOpenAI, prompt: str, length: dict[str, Any]) -> str:
        raw = await client.chat.completions.with_raw_response.create(
            model=self.model, messages=[{"role": "user", "content": prompt}], temperature=0, stream=True, **length
        )
        finish = None
        async for chunk in raw.parse():
            finish = chunk.choices[0].finish_reason or finish if chunk.choices else finish
        assert finish, "a stream without an end"
        return str(raw.headers["x-route-target"])
