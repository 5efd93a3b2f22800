from pathlib import Path

import pytest

from edge.engine.settings import ConfigError
from router.admission import Client, digest, load_admission, new_key
from router.decision import Tier
from router.errors import AuthenticationError
from router.query import Priority


def test_a_key_opens_its_own_clients_door_only(tmp_path: Path) -> None:
    shop, ward = new_key(), new_key()
    path = tmp_path / "keys.yaml"
    path.write_text(
        f"{digest(shop)}: {{tenant: shop, tiers: [edge], priority: batch}}\n{digest(ward)}: {{tenant: ward}}\n"
    )

    admission = load_admission(path)

    assert admission.admit(f"Bearer {shop}") == Client(
        tenant="shop", tiers=frozenset({Tier.EDGE}), priority=Priority.BATCH
    )
    assert admission.admit(f"bearer {ward}").tenant == "ward"


@pytest.mark.parametrize(
    ("header", "code"),
    [
        (None, "missing_api_key"),
        ("", "missing_api_key"),
        ("Basic abc", "missing_api_key"),
        ("Bearer ", "missing_api_key"),
        ("Bearer wrong", "invalid_api_key"),
    ],
)
def test_without_a_known_key_nobody_enters(tmp_path: Path, header: str | None, code: str) -> None:
    path = tmp_path / "keys.yaml"
    path.write_text(f"{digest(new_key())}: {{tenant: shop}}\n")

    with pytest.raises(AuthenticationError) as caught:
        load_admission(path).admit(header)

    assert caught.value.code == code


@pytest.mark.parametrize(
    "text", ["abc: {tenant: a}", f"{'0' * 64}: {{}}", f"{'0' * 64}: {{tenant: a, tires: [edge]}}", "{"]
)
def test_a_broken_keys_file_is_refused_in_one_line(tmp_path: Path, text: str) -> None:
    path = tmp_path / "keys.yaml"
    path.write_text(text)

    with pytest.raises(ConfigError, match=r"keys\.yaml: ") as caught:
        load_admission(path)

    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("wanted", "got"),
    [
        (Priority.INTERACTIVE, Priority.STANDARD),
        (Priority.STANDARD, Priority.STANDARD),
        (Priority.BATCH, Priority.BATCH),
    ],
)
def test_a_key_caps_the_priority(wanted: Priority, got: Priority) -> None:
    assert Client(tenant="t", priority=Priority.STANDARD).cap(wanted) is got
