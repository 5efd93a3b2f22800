"""kill -9 while records are written, the short form of `make prove-disk-kill`."""

from pathlib import Path

from loadtests.prove_disk_kill import Progress, is_exact, make_key, make_record, prove


def test_a_killed_process_leaves_only_what_it_wrote(tmp_path: Path) -> None:
    seen = prove(tmp_path, kills=4)

    assert seen.hits > 1000
    assert (seen.wrong, seen.errors, seen.afresh) == (0, 0, 0)
    assert prove(tmp_path, kills=4) == seen  # it goes on where it was


def test_wrong_records_would_be_seen() -> None:
    record = make_record(2003)

    assert is_exact(make_key(3), record)
    assert not is_exact(make_key(4), record)
    assert not is_exact(make_key(3), make_record(2004))
    assert Progress() != Progress(wrong=1)
