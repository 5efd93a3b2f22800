"""What the minimal upstreams of benchmarks share: reading requests off a connection, and framing answers for it."""

import asyncio
import re
import socket
from collections.abc import Callable, Sequence
from typing import Final, cast

_END: Final = b"\r\n\r\n"
_LENGTH: Final = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
_STREAM: Final = re.compile(rb'"stream": ?true')
_MOST_BYTES: Final = 1_048_576
_STREAM_HEAD: Final = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"


def frame_answer(content: bytes, status: str = "200 OK") -> bytes:
    """A whole HTTP response with JSON."""
    head = f"HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {len(content)}\r\n\r\n"
    return head.encode() + content


def frame_events(events: Sequence[bytes]) -> list[bytes]:
    """HTTP's chunks of a stream: one an event, the head before the first, the end behind the last."""
    framed = [b"%x\r\n%b\r\n" % (len(event), event) for event in events]
    framed[0] = _STREAM_HEAD + framed[0]
    framed[-1] += b"0\r\n\r\n"
    return framed


def wants_stream(request: bytes) -> bool:
    """Whether a chat request asks for a stream."""
    return _STREAM.search(request) is not None


class Connection(asyncio.Protocol):
    """Reads requests one after the other, and no more of them than it has to; says each, head and body, to `answer`."""

    def __init__(self) -> None:
        self._received = b""
        self.write: Callable[[bytes], None] = lambda content: None

    def answer(self, request: bytes) -> None:
        """To a whole request."""
        raise NotImplementedError

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See asyncio."""
        self._transport = cast("asyncio.Transport", transport)  # uvloop's is one in all but name
        self.write = self._transport.write

    def data_received(self, data: bytes) -> None:
        """Answer once a request is whole."""
        received = self._received + data if self._received else data
        self._received = b""
        head = received.find(_END)
        length = _LENGTH.search(received, 0, head) if head >= 0 else None
        whole = head + len(_END) + (int(length[1]) if length else 0)
        if head >= 0 and length is None and not received.startswith(b"GET "):
            self.write(frame_answer(b'{"error":{"message":"Content-Length is missing."}}', "411 Length Required"))
            self._transport.close()
        elif head >= 0 and len(received) >= whole:
            self.answer(received)
        elif len(received) > _MOST_BYTES:
            self._transport.abort()
        else:
            self._received = received


async def serve_connections(port: int, connect: Callable[[], Connection]) -> None:
    """On loopback, until cancelled."""
    with socket.create_server(("127.0.0.1", port), backlog=4096) as listener:
        server = await asyncio.get_running_loop().create_server(connect, sock=listener)
        await server.serve_forever()
