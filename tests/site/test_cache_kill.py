"""kill -9 of a running router, the short form of `make prove-cache-kill`."""

from pathlib import Path

import pytest

from loadtests.cache_traffic import BrokenStreamError, join
from loadtests.prove_cache_kill import Progress, prove
from loadtests.site import free_ports

CHUNK = (
    'data: {{"id":"chatcmpl-{id}","object":"chat.completion.chunk","created":7,"model":"edge",'
    '"choices":[{{"index":0,"delta":{{"content":"{text}"}},"finish_reason":{finish}}}],"usage":null}}\n\n'
)
END = (
    'data: {"id":"chatcmpl-a","object":"chat.completion.chunk","created":7,"model":"edge","choices":[],'
    '"usage":{"prompt_tokens":1,"completion_tokens":2,"total_tokens":3}}\n\ndata: [DONE]\n\n'
)


def test_a_killed_router_leaves_only_answers_that_were_given(tmp_path: Path) -> None:
    seen = prove(tmp_path, kills=3)

    assert seen.hits > 0
    assert (seen.wrong, seen.failed, seen.damaged) == (0, 0, 0)
    assert prove(tmp_path, kills=3) == seen  # it goes on where it was


def test_a_wrong_answer_would_be_seen() -> None:
    progress = Progress(free_ports())
    progress.judge(1, b"said after the connection was lost")
    progress.judge(1, b"said after the connection was lost")
    progress.judge(1, b"something else")

    assert (progress.hits, progress.wrong) == (2, 1)


def test_a_stream_is_read_as_its_whole_answer() -> None:
    hello = CHUNK.format(id="a", text="Hel", finish="null") + CHUNK.format(id="a", text="lo", finish='"stop"')

    assert b'"content":"Hello"' in join(hello + END)
    for broken in (hello, hello + END.removesuffix("data: [DONE]\n\n"), hello.replace('"stop"', "null") + END):
        with pytest.raises(BrokenStreamError):
            join(broken)
    with pytest.raises(BrokenStreamError):
        join(CHUNK.format(id="b", text="!", finish="null") + hello + END)
