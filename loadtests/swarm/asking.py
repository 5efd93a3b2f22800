"""One request over HTTP, timed: JSON, SSE or embedding. Cooperative (gevent), without locust."""

import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

import gevent
import msgspec
from geventhttpclient import HTTPClient
from geventhttpclient.response import HTTPParseError, HTTPSocketPoolResponse
from msgspec import Struct

from loadtests.swarm.record import Form, Record
from loadtests.swarm.scenario import Answers
from loadtests.swarm.workload import Request

_EVENT_END = b"\n\n"
_DATA = b"data: "
_DONE = b"[DONE]"
_CONNECT_S = 10.0
_UNIT_LENGTH = 1e-2


class _Text(Struct):
    content: str | None = None


class _Choice(Struct):
    message: _Text = msgspec.field(default_factory=_Text)
    delta: _Text = msgspec.field(default_factory=_Text)


class _Error(Struct):
    message: str = ""


class _Chat(Struct):
    """A whole answer, or a piece of one; or what went wrong inside a stream."""

    choices: list[_Choice] = []
    error: _Error | None = None


class _Vector(Struct):
    embedding: list[float]


class _Vectors(Struct):
    data: list[_Vector]


@dataclass(slots=True)
class _Reply:
    """What came so far; times are `time.perf_counter()`."""

    right: bool | None = None
    pieces: list[float] = field(default_factory=list)
    status: int = 0
    error: str = ""
    headers: dict[str, str] = field(default_factory=dict)

    def number(self, name: str) -> float | None:
        """A header's value."""
        return float(self.headers[name]) if name in self.headers else None


class Asker:
    """Connections to one router. `ask` never raises: what goes wrong is in the record."""

    def __init__(self, url: str, answers: Answers, *, connections: int, worker: int = 0, key: str = "") -> None:
        parts = urlsplit(url)
        self._answers = answers
        self._worker = worker
        self._client = HTTPClient(
            parts.hostname or "127.0.0.1",
            parts.port,
            ssl=parts.scheme == "https",
            concurrency=connections,
            connection_timeout=_CONNECT_S,
            network_timeout=answers.deadline_s,
        )
        self._headers = {"content-type": "application/json"}
        if key:
            self._headers["authorization"] = f"Bearer {key}"
        if not answers.cached:
            self._headers["cache-control"] = "no-store"
        self._chat = msgspec.json.Decoder(_Chat)
        self._vectors = msgspec.json.Decoder(_Vectors)

    def ask(self, request: Request, due: float, zero: float) -> Record:
        """Send it now and wait for the end.

        Args:
            request: What to ask.
            due: When it was to be sent, `time.perf_counter()`.
            zero: The run's start, on the same clock.
        """
        sent, reply = time.perf_counter(), _Reply()
        with gevent.Timeout(self._answers.deadline_s, False):
            self._exchange(request, max(sent - due, 0.0), reply)
        ended = time.perf_counter()
        if not reply.status:
            reply.error = reply.error or f"no answer within {self._answers.deadline_s:g} s"
        gaps = [(later - earlier) * 1e3 for earlier, later in zip(reply.pieces, reply.pieces[1:], strict=False)]
        record = Record(
            number=request.number,
            worker=self._worker,
            form=request.form,
            origin=request.origin,
            priority=request.priority,
            model=request.model,
            due=due - zero,
            sent=sent - zero,
            ended=ended - zero,
            deadline_ms=request.deadline_ms,
            first=reply.pieces[0] - zero if reply.pieces else None,
            gap_ms=sum(gaps) / len(gaps) if gaps else None,
            longest_gap_ms=max(gaps, default=None),
            # an answer that broke off is none
            status=0 if reply.error and reply.status == 200 else reply.status,
            error=reply.error,
            right=reply.right,
        )
        return _tell(record, reply)

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    def _exchange(self, request: Request, late_s: float, reply: _Reply) -> None:
        headers = {**self._headers, "x-priority": request.priority.value}
        if request.deadline_ms is not None:
            headers["x-deadline-ms"] = str(max(request.deadline_ms - round(late_s * 1e3), 1))
        path = "/v1/embeddings" if request.form is Form.EMBEDDING else "/v1/chat/completions"
        try:
            with self._client.request("POST", path, self._body(request), headers) as response:
                reply.headers = {name.lower(): value for name, value in response.items()}
                status = response.status_code
                if status != 200:
                    reply.error = response.read()[:200].decode(errors="replace")
                elif request.form is Form.STREAM:
                    text = "".join(self._read_pieces(response, reply))
                    reply.right = request.judge(text)
                else:
                    reply.right = self._judge(request, response.read())
                reply.status = status
        except (OSError, HTTPParseError, msgspec.MsgspecError, ValueError) as exc:
            reply.error = f"{type(exc).__name__}: {exc}"[:200]

    def _body(self, request: Request) -> bytes:
        body: dict[str, Any]
        if request.form is Form.EMBEDDING:
            # an embedding's model is a tier's; the router's own choice serves every question alike
            body = {"model": request.model.value, "input": request.question.messages[-1][1], "encoding_format": "float"}
        else:
            messages = [{"role": role, "content": content} for role, content in request.question.messages]
            body = {
                "model": request.model.value,
                "messages": messages,
                "temperature": 0,
                "max_tokens": self._answers.max_tokens,
                "stream": request.form is Form.STREAM,
            }
        return msgspec.json.encode(body)

    def _judge(self, request: Request, content: bytes) -> bool:
        """A chat's answer is the known one; a vector has unit length."""
        if request.form is Form.EMBEDDING:
            (vector,) = self._vectors.decode(content).data
            return abs(sum(value * value for value in vector.embedding) - 1.0) <= _UNIT_LENGTH
        return request.judge(self._chat.decode(content).choices[0].message.content or "")

    def _read_pieces(self, response: HTTPSocketPoolResponse, reply: _Reply) -> Iterator[str]:
        """Text as it comes.

        Raises:
            ValueError: the stream said that it failed, or broke off.
        """
        while event := response.readline(_EVENT_END):
            for line in event.split(b"\n"):
                if not line.startswith(_DATA):
                    continue
                if line[len(_DATA) :] == _DONE:
                    response.read()
                    return
                chunk = self._chat.decode(line[len(_DATA) :])
                if chunk.error is not None:
                    raise ValueError(f"stream failed: {chunk.error.message}")
                if chunk.choices and (text := chunk.choices[0].delta.content):
                    reply.pieces.append(time.perf_counter())
                    yield text
        raise ValueError("stream broke off")


def _tell(record: Record, reply: _Reply) -> Record:
    """The record with what the answer's headers say of its way."""
    said = reply.headers
    return msgspec.structs.replace(
        record,
        tier=said.get("x-route-tier", ""),
        reason=said.get("x-route-reason", ""),
        cache=said.get("x-cache", ""),
        degraded=said.get("x-degraded", ""),
        queue_ms=reply.number("x-queue-ms"),
        overhead_ms=reply.number("x-overhead-ms"),
    )
