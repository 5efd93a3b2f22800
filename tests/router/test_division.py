"""What each of several processes may use, and what cannot be divided."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.engine.settings import ConfigError
from router.config import Config, load_config
from router.config.cache import DiskTier
from router.processes.division import part_of, split
from router.processes.serving import prepare_disk

TARGET = """
targets:
  shop:
    backend: openai
    tier: edge
    url: "http://127.0.0.1:1"
    chat_model: m
    embedding_model: e
    connections: 9
    lane: {slots: 7, backlog: 5}
    price: {prompt_per_mtok: 1, completion_per_mtok: 1, most_completion_tokens: 10}
"""


def load(folder: Path, text: str) -> Config:
    path = folder / "router.yaml"
    path.write_text(TARGET + text)
    return load_config(path)


@given(st.integers(0, 10**6), st.integers(1, 64))
def test_parts_are_the_whole_and_nearly_equal(whole: int, count: int) -> None:
    parts = [split(whole, index, count) for index in range(count)]

    assert sum(parts) == whole
    assert max(parts) - min(parts) <= 1


def test_bounds_are_divided_and_rates_are_not(tmp_path: Path) -> None:
    config = load(
        tmp_path,
        "processes: 3\nquotas: {default: {requests_per_min: 10}}\npolicy: {kind: cloud_share, share: 0.3}\n",
    )

    parts = [part_of(config, index) for index in range(3)]

    lanes = [part.targets["shop"].lane for part in parts]
    assert [lane.slots for lane in lanes] == [3, 2, 2]
    assert [lane.backlog for lane in lanes] == [2, 2, 1]
    assert sum(part.targets["shop"].embedding_lane.slots for part in parts) == 16
    assert sum(part.cache.tiers.memory.most_bytes for part in parts) <= config.cache.tiers.memory.most_bytes
    assert all(part.quotas == config.quotas for part in parts)


def test_one_process_gets_all(tmp_path: Path) -> None:
    config = load(tmp_path, "")

    assert part_of(config, 0) is config


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ("processes: 8\n", "targets.shop.lane.slots"),
        ("processes: 2\ncache: {tiers: {memory: {most_bytes: 70000}}}\n", "cache.tiers.memory.most_bytes"),
        ("processes: 2\ncache: {semantic: {enabled: true}}\nscoring: {embedding: .}\n", "cache.semantic.enabled"),
        ("processes: 2\npolicy: {kind: budget, per_hour: 5}\n", "policy"),
        ("processes: 65\n", "processes"),
    ],
)
def test_what_cannot_be_divided_is_refused_in_one_line(tmp_path: Path, text: str, key: str) -> None:
    with pytest.raises(ConfigError) as refused:
        load(tmp_path, text)

    assert key in str(refused.value)
    assert "router.yaml" in str(refused.value)
    assert "\n" not in str(refused.value)


def test_each_process_has_a_database_and_none_is_left_behind(tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    text = f"cache: {{tiers: {{disk: {{folder: {tmp_path / 'disk'}}}}}}}\n"
    three, two = (load(tmp_path, f"{text}processes: {count}\n") for count in (3, 2))

    prepare_disk(three)
    folders = [disk_of(part_of(three, index)).folder for index in range(3)]
    (folders[2] / "records.sqlite3").write_bytes(b"old")
    prepare_disk(two)

    assert folders[0] == tmp_path / "disk"
    assert len(set(folders)) == 3
    assert [folder.is_dir() for folder in folders] == [True, True, False]
    assert sum(disk_of(part_of(three, i)).most_bytes for i in range(3)) <= disk_of(three).most_bytes


def disk_of(config: Config) -> DiskTier:
    assert config.cache.tiers.disk is not None
    return config.cache.tiers.disk
