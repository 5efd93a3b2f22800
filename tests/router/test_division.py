"""What each of several processes may use, and what cannot be divided."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.engine.settings import ConfigError
from router.config import BudgetPolicy, Config, load_config
from router.config.cache import DiskTier
from router.policy import Period
from router.policy.ledger import Record
from router.policy.money import picos
from router.policy.state import StateFile
from router.processes.division import part_of, split
from router.processes.serving import prepare_files

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
        ("processes: 2\npolicy: {kind: budget, per_hour: 5}\n", "policy.state_file"),
        ("processes: 7\npolicy: {kind: budget, per_hour: 1.0e-5, state_file: spent}\n", "(a process's part)"),
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

    prepare_files(three)
    folders = [disk_of(part_of(three, index)).folder for index in range(3)]
    (folders[2] / "records.sqlite3").write_bytes(b"old")
    prepare_files(two)

    assert folders[0] == tmp_path / "disk"
    assert len(set(folders)) == 3
    assert [folder.is_dir() for folder in folders] == [True, True, False]
    assert sum(disk_of(part_of(three, i)).most_bytes for i in range(3)) <= disk_of(three).most_bytes


def disk_of(config: Config) -> DiskTier:
    assert config.cache.tiers.disk is not None
    return config.cache.tiers.disk


@given(st.floats(1e-3, 1e9), st.integers(2, 64))
def test_budgets_together_are_never_more(limit: float, count: int) -> None:
    policy = BudgetPolicy(per_hour=limit, state_file=Path("spent"))
    config = Config(targets={}, policy=policy, processes=count)

    parts = [part_of(config, index).policy for index in range(count)]

    limits = [part.per_hour for part in parts if isinstance(part, BudgetPolicy) and part.per_hour is not None]
    assert sum(map(picos, limits)) <= picos(limit)
    assert sum(limits) == pytest.approx(limit)


def test_what_was_spent_stays_spent_when_the_number_of_processes_changes(tmp_path: Path) -> None:
    path = tmp_path / "spent"
    seven: Record = {Period.HOUR: {480_000: 7}, Period.DAY: {20_000: 100}}
    keep(path, seven)
    texts = [
        f"processes: {count}\npolicy: {{kind: budget, per_hour: 5, state_file: spent}}\n" for count in (3, 3, 2, 1)
    ]

    left = []
    for text in texts:
        config = load(tmp_path, text)
        prepare_files(config)
        left.append([recall(file_of(part_of(config, index))) for index in range(config.processes)])

    assert left[0] == left[1] == [{Period.HOUR: {480_000: 3}, Period.DAY: {20_000: 34}}] * 3
    assert left[2] == [{Period.HOUR: {480_000: 5}, Period.DAY: {20_000: 51}}] * 2
    assert left[3] == [{Period.HOUR: {480_000: 10}, Period.DAY: {20_000: 102}}]
    assert [file.name for file in tmp_path.glob("spent*")] == ["spent"]


def keep(path: Path, record: Record) -> None:
    file = StateFile(path)
    file.save(record).result()
    file.close()


def recall(path: Path) -> Record:
    assert path.is_file()
    file = StateFile(path)
    record = file.load()
    file.close()
    return record


def file_of(config: Config) -> Path:
    assert isinstance(config.policy, BudgetPolicy)
    assert config.policy.state_file is not None
    return config.policy.state_file
