from hypothesis import given
from hypothesis import strategies as st

from router.health import Pulse


@given(st.lists(st.booleans()), st.integers(1, 4), st.integers(1, 4))
def test_a_pulse_turns_only_after_a_full_streak(seen: list[bool], to_down: int, to_up: int) -> None:
    pulse = Pulse(to_down, to_up)
    for i, ok in enumerate(seen):
        before = pulse.up
        after = pulse.record(ok)

        needed = to_up if not before else to_down
        streak = seen[: i + 1][-needed:]
        if after is not before:
            assert len(streak) == needed
            assert all(one is ok for one in streak)
        if len(streak) == needed and all(one is not before for one in streak):
            assert after is not before


def test_an_unreachable_target_is_down_at_once() -> None:
    pulse = Pulse(failures_to_down=5, successes_to_up=1, up=True)

    pulse.fail()

    assert not pulse.up
    assert pulse.record(ok=True)
