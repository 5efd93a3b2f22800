"""Text from tokens, and stop strings: the same however the text is split."""

from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer as HuggingFaceTokenizer
from tokenizers import decoders, models, pre_tokenizers

from edge.engine.answer import Answer
from edge.engine.errors import ModelError
from edge.engine.sampling import Choice, Sampling, Score
from edge.engine.tokens import StopMatcher, Tokenizer, Utf8Stream
from tests.edge.checkpoints import write_tokenizer


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    folder = tmp_path_factory.mktemp("tokenizer")
    write_tokenizer(folder)
    return Tokenizer(folder / "tokenizer.json")


def pieces(text: str, cuts: list[int]) -> Iterator[str]:
    """`text`, cut at some places."""
    places = sorted({0, len(text), *(cut % (len(text) + 1) for cut in cuts)})
    return (text[a:b] for a, b in pairwise(places))


def cut_at_first_stop(text: str, stops: list[str]) -> tuple[str, bool]:
    """What a stop string leaves, by trying every end."""
    for end in range(len(text) + 1):
        starts = [end - len(stop) for stop in stops if text[:end].endswith(stop)]
        if starts:
            return text[: min(starts)], True
    return text, False


@given(st.text())
def test_tokens_stream_as_the_text_they_came_from(tokenizer: Tokenizer, text: str) -> None:
    stream = Utf8Stream()

    shown = [stream.push(tokenizer.token_bytes(token)) for token in tokenizer.encode(text)]

    assert "".join(shown) == text
    assert stream.flush() == ""


@given(st.lists(st.binary(max_size=3)))
def test_bytes_of_any_kind_read_as_python_reads_them(parts: list[bytes]) -> None:
    stream = Utf8Stream()

    shown = "".join(stream.push(part) for part in parts) + stream.flush()

    assert shown == b"".join(parts).decode(errors="replace")


@given(
    st.text("abc", max_size=30), st.lists(st.text("abc", min_size=1, max_size=4), max_size=4), st.lists(st.integers(0))
)
def test_no_part_of_a_stop_string_leaks(text: str, stops: list[str], cuts: list[int]) -> None:
    matcher = StopMatcher(stops)

    shown = []
    for piece in pieces(text, cuts):
        shown.append(matcher.push(piece))
        # what is out already can never be taken back
        assert cut_at_first_stop(text, stops)[0].startswith("".join(shown))

    assert ("".join(shown) + matcher.flush(), matcher.stopped) == cut_at_first_stop(text, stops)


@given(st.text("abä€", max_size=20), st.lists(st.text("abä€", min_size=1, max_size=3), max_size=2))
def test_an_answer_shows_each_token_with_its_first_character(tokenizer: Tokenizer, text: str, stops: list[str]) -> None:
    answer = Answer(tokenizer, Sampling(stop=tuple(stops), logprobs=0))
    expected, stopped = cut_at_first_stop(text, stops)

    shown, said, raw = "", [], b""
    starts = []
    for token in tokenizer.encode(text):
        if answer.stopped:
            break
        starts.append((len(raw.decode(errors="ignore")), token))
        raw += tokenizer.token_bytes(token)
        more, tokens = answer.push(Choice(token, Score(token, 0.0, 1)))
        shown += more
        said += [one.chosen.token for one in tokens]
    more, tokens = answer.finish(end_token=False)
    said += [one.chosen.token for one in tokens]

    assert (shown + more, answer.stopped) == (expected, stopped)
    assert said == [token for start, token in starts if start < len(expected)]


def test_special_tokens_have_no_text(tokenizer: Tokenizer) -> None:
    ids = tokenizer.encode("<|im_start|>a<|im_end|>")

    assert len(ids) == 3
    assert [tokenizer.token_bytes(token) for token in ids] == [b"", b"a", b""]
    assert tokenizer.token_bytes(10_000_000) == b""


def test_sentencepiece_tokens_have_bytes_of_their_own(tmp_path: Path) -> None:
    vocabulary = {"<unk>": 0, "<0xC3>": 1, "<0xA4>": 2, "▁": 3, "▁a": 4, "b": 5, "a": 6}
    written = HuggingFaceTokenizer(models.BPE(vocab=vocabulary, merges=[("▁", "a")], byte_fallback=True))
    written.pre_tokenizer = pre_tokenizers.Metaspace()
    written.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
    written.save(str(tmp_path / "tokenizer.json"))

    tokenizer = Tokenizer(tmp_path / "tokenizer.json")

    assert b"".join(map(tokenizer.token_bytes, [4, 5, 1, 2])).decode() == " abä"


def test_a_tokenizer_whose_tokens_have_no_bytes_is_refused(tmp_path: Path) -> None:
    written = HuggingFaceTokenizer(models.WordPiece({"[UNK]": 0}, unk_token="[UNK]"))
    written.decoder = decoders.WordPiece()
    written.save(str(tmp_path / "tokenizer.json"))

    with pytest.raises(ModelError, match="WordPiece"):
        Tokenizer(tmp_path / "tokenizer.json")
