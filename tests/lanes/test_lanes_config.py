import msgspec
import pytest

from router.config.lanes import Lane, Pressure, Quotas, Shares


@pytest.mark.parametrize(
    ("section", "given", "said"),
    [
        (Lane, {"slot": 3}, "unknown field `slot`"),
        (Lane, {"slots": 0}, r">= 1 - at `\$.slots`"),
        (Lane, {"adaptive": {"least": 5, "most": 2}}, "least"),
        (Shares, {"interactive": 0.7, "standard": 0.4}, "more than 1 together"),
        (Pressure, {"engage": 0.3, "release": 0.5}, "release"),
        (Quotas, {"default": {"tokens_per_min": -1}}, "> 0.0 - at"),
        (Quotas, {"weights": {"ann": 0}}, "> 0.0 - at"),
    ],
)
def test_bad_settings_are_named(section: type, given: dict[str, object], said: str) -> None:
    with pytest.raises(msgspec.ValidationError, match=said):
        msgspec.convert(given, section)


@pytest.mark.parametrize("section", [Lane, Pressure, Quotas])
def test_the_defaults_are_valid_and_have_a_schema(section: type) -> None:
    assert msgspec.convert(msgspec.to_builtins(section()), section) == section()
    assert msgspec.json.schema(section)
