"""A request's body, read within the router's limit."""

from litestar.types import Receive

from edge.hang_up import HangUpError
from router.api.asking import Fields
from router.api.failures import too_large_error


async def read_body(receive: Receive, headers: Fields, most_bytes: int) -> bytes:
    """All of it. Litestar's own reader keeps the same limit; a small body takes it several times as long.

    Raises:
        BodyTooLargeError: it is longer, or says that it will be.
        HangUpError: the client left before its end.
    """
    announced = headers.get("content-length", "")
    if announced.isdecimal() and int(announced) > most_bytes:
        raise too_large_error()
    chunks, length, more = [], 0, True
    while more:
        message = await receive()
        if message["type"] != "http.request":
            raise HangUpError
        chunk = message.get("body", b"")
        length += len(chunk)
        if length > most_bytes:
            raise too_large_error()
        chunks.append(chunk)
        more = message.get("more_body", False)
    return b"".join(chunks)
