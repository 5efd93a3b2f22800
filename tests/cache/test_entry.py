"""Stored answers: as bytes, replayed as a stream, and assembled from one."""

from hypothesis import example, given
from hypothesis import strategies as st

from router.cache.entry import Entry, EntryCodec, Stamp, assemble, make_entry, replay
from router.decision import Decision, Evidence, Reason, Score, Target, Tier
from router.query import Choice, Completion, Delta, Finish, TokenLogprob, Usage

DECISION = Decision(Target("shop", Tier.EDGE), Reason.EASY, 0.5, Score(0.25, Evidence.FEATURES))

tops = st.lists(st.builds(TokenLogprob, token=st.text(max_size=4), logprob=st.floats(-9, 0)), max_size=2).map(tuple)
places = st.builds(TokenLogprob, token=st.text(max_size=4), logprob=st.floats(-9, 0), top=tops)


@st.composite
def choices(draw: st.DrawFn) -> Choice:
    logprobs = tuple(draw(st.lists(places, max_size=5)))
    said = "".join(place.token for place in logprobs)
    spelled = bool(logprobs) and draw(st.integers(0, 1)) == 1
    text = said if spelled else draw(st.text(max_size=300))
    return Choice(text, draw(st.sampled_from(list(Finish))), logprobs)


completions = st.builds(
    Completion,
    choices=st.lists(choices(), min_size=1, max_size=3),
    usage=st.builds(Usage, st.integers(0, 99), st.integers(0, 99)),
)


@given(completions)
def test_a_replayed_answer_is_the_answer(completion: Completion) -> None:
    assert assemble(list(replay(completion))) == completion


@given(completions)
def test_a_replay_has_the_form_of_a_stream(completion: Completion) -> None:
    pieces = list(replay(completion))

    assert [piece.usage is None for piece in pieces] == [*[True] * (len(pieces) - 1), False]
    for index in range(len(completion.choices)):
        own = [piece for piece in pieces[:-1] if piece.index == index]
        assert [piece.finish is None for piece in own] == [*[True] * (len(own) - 1), False]


def test_a_long_answer_comes_in_many_pieces() -> None:
    choice = Choice("word " * 100 + "x" * 1000, Finish.STOP)

    pieces = [piece.text for piece in replay(Completion([choice], Usage())) if piece.text]

    assert len(pieces) > 20
    assert max(map(len, pieces)) <= 4 * 65


@given(completions)
def test_bytes_bring_back_the_same_entry(completion: Completion) -> None:
    entry, codec = make_entry(completion, DECISION, Stamp()), EntryCodec()

    back = codec.decode(codec.encode(entry))

    assert back == entry
    assert isinstance(back, Entry)
    assert back.completion == Completion(tuple(completion.choices), completion.usage)
    assert back.decision == DECISION


@given(st.binary(max_size=200))
@example(b"\x9a\xa4\x00\x00\x00\x80")  # a text that is no UTF-8
def test_other_bytes_are_no_entry(value: bytes) -> None:
    assert EntryCodec().decode(value) is None


def test_a_stream_that_ended_early_is_no_answer() -> None:
    whole = [Delta(0, "a"), Delta(1, "b"), Delta(0, finish=Finish.STOP), Delta(1, finish=Finish.STOP)]

    assert assemble(whole) is not None
    assert assemble(whole[:-1]) is None
    assert assemble([]) is None
