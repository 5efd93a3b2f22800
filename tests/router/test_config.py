from pathlib import Path

import pytest

from edge.engine.settings import ConfigError
from router.config import Config, OpenAITarget, json_schema, load_config

GOOD = """
targets:
  shop: {backend: openai, tier: edge, url: "http://127.0.0.1:1", chat_model: m}
"""


def load(tmp_path: Path, text: str) -> Config:
    """Write and read a file."""
    path = tmp_path / "router.yaml"
    path.write_text(text)
    return load_config(path)


def test_a_small_file_gets_every_default(tmp_path: Path) -> None:
    config = load(tmp_path, GOOD)

    assert isinstance(config.targets["shop"], OpenAITarget)
    assert (config.listen.host, config.listen.port) == ("127.0.0.1", 8080)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (
            GOOD.replace("chat_model", "supports: [tools], chat_model"),
            "targets.shop.supports: this router cannot carry",
        ),
        (GOOD + "polcy: {}", "unknown field `polcy`"),
        (GOOD + "listen: {port: 99999}", "$.listen.port"),
        (GOOD + "listen: {host: 0.0.0.0}", "listen.host: '0.0.0.0' is not loopback"),
        (GOOD + "keys_file: nowhere.yaml", "nowhere.yaml is not a file"),
        (GOOD.replace("shop", "cloud"), "targets.cloud: this name is reserved"),
        (GOOD.replace("edge,", "fog,"), "Invalid enum value 'fog'"),
        ("targets: {t: {backend: triton, tier: cloud, address: 'a:1'}}", "targets.t.template: missing"),
        ("targets: {t: {backend: smoke}}", "Invalid value 'smoke'"),
        ("targets: {", "not YAML"),
        ("", "Expected `object`"),
    ],
)
def test_a_mistake_stops_the_start_with_one_line_naming_it(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load(tmp_path, text)

    assert said in str(caught.value)
    assert str(tmp_path / "router.yaml") in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"absent\.yaml: cannot be read"):
        load_config(tmp_path / "absent.yaml")


def test_relative_paths_start_at_the_files_folder(tmp_path: Path) -> None:
    (tmp_path / "keys.yaml").write_text("{}")

    config = load(tmp_path, GOOD + "keys_file: keys.yaml")

    assert config.keys_file == tmp_path / "keys.yaml"


def test_the_schema_knows_every_section() -> None:
    schema = json_schema()

    assert set(schema["$defs"]["Config"]["properties"]) == set(Config.__struct_fields__)
