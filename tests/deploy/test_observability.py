"""Rules and dashboards against the real site, a real Prometheus and its own promtool."""

import json
import re
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from deploy.demo import ROOT, main
from loadtests.site import Site, running_site
from router.admission import digest
from router.traced_backend import CONTENT

HERE = ROOT / "deploy" / "observability"
PROMETHEUS = HERE / "prometheus"
DASHBOARDS = sorted((HERE / "grafana" / "dashboards").glob("*.json"))
RULES = sorted((PROMETHEUS / "rules").glob("*.yml"))
CHAT = "/v1/chat/completions"
KEYS = {"shop": "hy-shop", "small": "hy-small"}

GPU_ONLY = {
    "nv_gpu_memory_total_bytes",
    "nv_gpu_memory_used_bytes",
    "nv_gpu_power_limit",
    "nv_gpu_power_usage",
    "nv_gpu_utilization",
}
"""Triton exports these only where it finds a GPU and DCGM
(https://docs.nvidia.com/deeplearning/triton-inference-server/user-guide/docs/user_guide/metrics.html)."""
MADE_BY_PROMETHEUS = {"ALERTS", "up"}
QUIET = {
    "Firing alerts": "nothing is wrong",
    "Depth by class": "nobody waits",
    "Refused, shed, expired by class": "every lane has room",
    "Evicted, failed, damaged, dropped": "no tier is full or broken",
    "Waiting by tenant": "nobody waits",
    "Answers from a fallback": "every target answers",
    "Reads of slow tiers, p95": "the site has no slow tier",
    "Semantic false hits, with 95% bounds": "no hit was audited yet",
    "Audits by verdict, and waiting": "no hit was audited yet",
    "Utilisation": "no GPU",
    "Memory": "no GPU",
    "Power": "no GPU",
}
"""Panels that a healthy site without a GPU may leave empty, and why."""

_STRING = re.compile(r'"[^"]*"')
_MATCHERS, _RANGE = re.compile(r"\{[^}]*\}"), re.compile(r"\[[^\]]*\]")
_LABELS = re.compile(r"\b(?:by|without|on|ignoring|group_left|group_right)\s*\([^)]*\)")
_NAME = re.compile(r"[A-Za-z_:][A-Za-z0-9_:]*(?!\s*\()\b(?!\s*\()")
_WORDS = {"and", "or", "unless", "by", "without", "on", "ignoring", "group_left", "group_right", "bool", "offset"}

promtool = pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool is not installed (Debian: prometheus)")


@dataclass(frozen=True)
class Panel:
    """One panel of a dashboard."""

    title: str
    queries: tuple[str, ...]


@dataclass(frozen=True)
class Watched:
    """A site, and the URLs of its routers."""

    site: Site
    urls: tuple[str, ...]

    def send_traffic(self) -> None:
        """A little of everything, to each router."""
        for url in self.urls:
            send_traffic(url)


def read_panels(path: Path) -> list[Panel]:
    """All panels that show something."""
    panels = json.loads(path.read_text())["panels"]
    return [
        Panel(one["title"], tuple(target["expr"].replace("$__rate_interval", "1m") for target in one["targets"]))
        for one in panels
        if one["type"] != "row"
    ]


def read_rules() -> list[dict[str, Any]]:
    """All rules of all groups."""
    return [rule for path in RULES for group in yaml.safe_load(path.read_text())["groups"] for rule in group["rules"]]


def read_names(query: str) -> set[str]:
    """The metrics that a query names."""
    for pattern in (_STRING, _MATCHERS, _RANGE, _LABELS):
        query = pattern.sub(" ", query)
    return {name for name in _NAME.findall(query) if name not in _WORDS}


def everything_named() -> dict[str, set[str]]:
    """The metrics that panels and rules name, by where."""
    named = {f"{rule.get('alert', rule.get('record'))} in rules": read_names(rule["expr"]) for rule in read_rules()}
    for path in DASHBOARDS:
        for panel in read_panels(path):
            named[f"{panel.title!r} in {path.name}"] = {name for query in panel.queries for name in read_names(query)}
    return named


def send_traffic(url: str) -> None:
    """A little of everything: whole, streamed, cached, escalated, embedded, unknown, over quota."""
    shop, small = ({"authorization": f"Bearer {key}"} for key in KEYS.values())
    check = {"x-route-threshold": "0.000001", "x-answer-check": "on"}
    with httpx.Client(base_url=url, timeout=60, trust_env=False, headers=shop) as client:
        for stream in (False, True):
            for text in ("What is 3 plus 4?", "What is 4817 minus 3956?", "Please, what is 3 plus 4?"):
                body = {"model": "auto", "temperature": 0, "messages": [{"role": "user", "content": text}]}
                client.post(CHAT, json={**body, "stream": stream}).raise_for_status()
                fresh = {**body, "stream": stream, "seed": time.monotonic_ns() % 10_000}
                client.post(CHAT, json=fresh, headers=check).raise_for_status()
        client.post("/v1/embeddings", json={"model": "auto", "input": f"hello {time.time_ns()}"}).raise_for_status()
        client.post("/v1/embeddings", json={"model": "cloud", "input": f"hello {time.time_ns()}"}).raise_for_status()
        assert client.post(CHAT, json={**body, "model": "none"}).status_code == 404
        assert [client.post(CHAT, json=body, headers=small).status_code for _ in range(3)][-1] == 429


def configure(site: Site) -> None:
    """What has metrics is on: keys with a quota, a budget, the semantic cache, traces (to nobody)."""
    keys = {digest(key): {"tenant": tenant} for tenant, key in KEYS.items()}
    (site.work / "keys.yaml").write_text(yaml.safe_dump(keys))
    path = site.work / "router.yaml"
    content: dict[str, Any] = yaml.safe_load(path.read_text())
    price = {"prompt_per_mtok": 1.0, "completion_per_mtok": 2.0, "most_completion_tokens": 64}
    content["targets"]["cloud-demo"]["price"] = price
    content |= {
        "keys_file": "keys.yaml",
        "policy": {"kind": "budget", "per_day": 1000.0},
        "quotas": {"tenants": {"small": {"requests_per_min": 1, "burst_s": 60}}},
        "cache": {"semantic": {"enabled": True}},
        "tracing": {"endpoint": "http://127.0.0.1:9/v1/traces"},
    }
    path.write_text(yaml.safe_dump(content))


@pytest.fixture(scope="module")
def watched(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Watched]:
    """A site in which everything that may be watched is on, with a second router under another policy."""
    with running_site(tmp_path_factory.mktemp("watched"), configure) as site:
        site.configure("router", "policy", kind="cloud_share", share=0.5)
        content = yaml.safe_load((site.work / "router.yaml").read_text())
        del content["policy"]["per_day"]
        (site.work / "router.yaml").write_text(yaml.safe_dump(content))
        second = site.add_router("second")
        site.start("second")
        watched = Watched(site, (site.url, second))
        watched.send_traffic()
        yield watched


@pytest.fixture(scope="module")
def exported(watched: Watched) -> set[str]:
    """The names of all that the parts export, with a histogram's and a summary's parts."""
    names = set()
    for url in (*watched.urls, watched.site.edge_url, watched.site.triton_metrics_url.removesuffix("/metrics")):
        for line in httpx.get(f"{url}/metrics", trust_env=False).raise_for_status().text.splitlines():
            if line.startswith("# TYPE "):
                _, _, name, kind = line.split()
                parts = {"histogram": ("_bucket", "_sum", "_count"), "summary": ("_sum", "_count")}.get(kind, ("",))
                names |= {name + part for part in parts}
    return names


def test_every_metric_that_a_panel_or_rule_names_is_exported(exported: set[str]) -> None:
    recorded = {rule["record"] for rule in read_rules() if "record" in rule}
    known = exported | recorded | GPU_ONLY | MADE_BY_PROMETHEUS

    strange = {where: names - known for where, names in everything_named().items() if names - known}

    assert strange == {}
    assert not GPU_ONLY & exported, "these are exported without a GPU: take them off the list"


def test_names_are_read_out_of_queries() -> None:
    query = 'sum by (le) (rate(a_total{b=~"c", d!="e"}[5m])) / on (f) group_left (g) (h:i:j > 0) and k offset 1 or up'

    assert read_names(query) == {"a_total", "h:i:j", "k", "up"}


def read_lines(log: str, request_id: str) -> list[dict[str, Any]]:
    """A log's lines about a request."""
    return [json.loads(line) for line in log.splitlines() if request_id in line]


@pytest.mark.parametrize("stream", [False, True])
def test_every_part_logs_a_request_by_its_id_and_nobody_its_words(watched: Watched, *, stream: bool) -> None:
    site, request_id, name = watched.site, f"told-{stream}", "Wilhelmine"
    body = {"messages": [{"role": "user", "content": f"Reverse the word {name}."}], "stream": stream}
    for tier in ("edge", "cloud"):
        sent = {"authorization": f"Bearer {KEYS['shop']}", "x-request-id": f"{request_id}-{tier}"}
        httpx.post(site.url + CHAT, json={**body, "model": tier}, headers=sent, timeout=60).raise_for_status()
    wait_until(lambda: len(read_lines(site.log("router"), request_id)) == 2)
    wait_until(lambda: len(read_lines(site.log("triton"), request_id)) == 1)

    ours, (edge,), (cloud,) = (read_lines(site.log(part), request_id) for part in ("router", "edge", "triton"))
    assert [line["tier"] for line in ours] == ["edge", "cloud"]
    for line, theirs in zip(ours, (edge, cloud), strict=True):
        assert line["request_id"] == theirs["request_id"]
        assert line["prompt_tokens"] == theirs["prompt_tokens"] > 0
        assert line["completion_tokens"] == theirs["completion_tokens"] > 0
        assert line["total_ms"] >= theirs["total_ms"] > 0
        assert line["trace_id"]
    assert edge["trace_id"] == ours[0]["trace_id"]
    logs = [site.log(part) for part in ("router", "edge", "triton")]
    assert not [log for log in logs if name in log or name[::-1].lower() in log.lower()]


@contextmanager
def running_prometheus(watched: Watched, work: Path) -> Iterator[httpx.Client]:
    """Debian's Prometheus with our configuration, but for where the parts are and how often it looks."""
    config = yaml.safe_load((PROMETHEUS / "prometheus.yml").read_text())
    ports = watched.site.ports
    parts = {
        "router": [url.removeprefix("http://") for url in watched.urls],
        "edge": [f"127.0.0.1:{ports.edge}"],
        "triton": [f"127.0.0.1:{ports.triton_metrics}"],
    }
    config["global"] = {"scrape_interval": "1s", "evaluation_interval": "1s"}
    config["rule_files"] = list(map(str, RULES))
    config["scrape_configs"] = [{"job_name": job, "static_configs": [{"targets": at}]} for job, at in parts.items()]
    (work / "prometheus.yml").write_text(yaml.safe_dump(config))
    with socket.create_server(("127.0.0.1", 0)) as free:
        address = f"127.0.0.1:{free.getsockname()[1]}"
    command = ["prometheus", f"--config.file={work}/prometheus.yml", f"--storage.tsdb.path={work}/data"]
    with (
        (work / "log").open("wb") as log,
        subprocess.Popen([*command, f"--web.listen-address={address}"], stdout=log, stderr=log) as process,
        httpx.Client(base_url=f"http://{address}", timeout=10, trust_env=False) as client,
    ):
        try:
            yield client
        finally:
            process.terminate()
            process.wait(20)


def ask(client: httpx.Client, query: str) -> list[dict[str, Any]]:
    """The series of an instant query that have a number."""
    answer = client.get("/api/v1/query", params={"query": query}).json()
    assert answer["status"] == "success", f"{query}: {answer.get('error')}"
    return [one for one in answer["data"]["result"] if one["value"][1] != "NaN"]


def wait_until(true: Callable[[], bool], limit_s: float = 20.0) -> None:
    """Wait for what another process does."""
    end = time.monotonic() + limit_s
    while not true():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.05)


def wait_for(client: httpx.Client, query: str, limit_s: float = 60.0) -> None:
    """Wait until a query has an answer."""
    end = time.monotonic() + limit_s
    while time.monotonic() < end:
        try:
            if ask(client, query):
                return
        except httpx.HTTPError:
            pass
        time.sleep(0.2)
    raise AssertionError(f"nothing came of {query}")


@pytest.mark.skipif(shutil.which("prometheus") is None, reason="prometheus is not installed (Debian: prometheus)")
def test_a_real_prometheus_fills_every_panel_and_no_alert_fires(watched: Watched, tmp_path: Path) -> None:
    with running_prometheus(watched, tmp_path) as client:
        wait_for(client, "count(count_over_time(up[1m]) > 1) == 4 and min(up) == 1")
        watched.send_traffic()
        wait_for(client, "min(changes(nv_inference_request_success[1m])) > 0 and hybrid:errors:ratio_rate1h >= 0")
        wait_for(client, f"min(timestamp(up)) > {time.time() + 1}")
        panels = [panel for path in DASHBOARDS for panel in read_panels(path)]
        empty = {panel.title for panel in panels if not any(ask(client, query) for query in panel.queries)}
        loaded = client.get("/api/v1/rules").json()["data"]["groups"]
        firing = {one["labels"]["alertname"] for one in client.get("/api/v1/alerts").json()["data"]["alerts"]}

    assert empty <= QUIET.keys(), f"panels without data: {empty - QUIET.keys()}"
    assert {rule["health"] for group in loaded for rule in group["rules"]} == {"ok"}
    assert firing <= {"HybridTracesLost"}, "only the collector is missing here"


def run_promtool(*arguments: str | Path) -> None:
    """Run it, and show what it says if it fails."""
    done = subprocess.run(["promtool", *map(str, arguments)], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@promtool
def test_promtool_accepts_configuration_and_rules() -> None:
    run_promtool("check", "config", PROMETHEUS / "prometheus.yml")
    run_promtool("check", "rules", "--lint-fatal", *RULES)


@promtool
def test_rules_do_what_they_say() -> None:
    run_promtool("test", "rules", *sorted((PROMETHEUS / "tests").glob("*.yml")))


def test_every_alert_has_a_test() -> None:
    tested = "".join(path.read_text() for path in (PROMETHEUS / "tests").glob("*.yml"))
    alerts = {rule["alert"] for rule in read_rules() if "alert" in rule}

    assert {alert for alert in alerts if f"alertname: {alert}" not in tested} == set()


@promtool
def test_every_query_of_a_dashboard_is_promql(tmp_path: Path) -> None:
    queries = [query for path in DASHBOARDS for panel in read_panels(path) for query in panel.queries]
    rules = [{"record": f"panel:{number}", "expr": query} for number, query in enumerate(queries)]
    (tmp_path / "queries.yml").write_text(yaml.safe_dump({"groups": [{"name": "panels", "rules": rules}]}))

    run_promtool("check", "rules", tmp_path / "queries.yml")


@pytest.mark.parametrize("path", DASHBOARDS, ids=lambda path: path.stem)
def test_panels_lie_side_by_side(path: Path) -> None:
    panels = json.loads(path.read_text())["panels"]
    taken: dict[tuple[int, int], str] = {}
    for panel in panels:
        at = panel["gridPos"]
        assert at["x"] + at["w"] <= 24, panel["title"]
        for cell in ((x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])):
            assert cell not in taken, f"{panel['title']} covers {taken[cell]}"
            taken[cell] = panel["title"]
        assert panel["type"] in {"row", "timeseries", "state-timeline"}
    assert len({panel["id"] for panel in panels}) == len(panels)


def test_ports_are_those_of_the_parts() -> None:
    ports = {option.name: option.default for option in main.params}
    config = yaml.safe_load((PROMETHEUS / "prometheus.yml").read_text())
    scraped = {job["job_name"]: job["dns_sd_configs"][0]["port"] for job in config["scrape_configs"]}
    collector = yaml.safe_load((HERE / "collector.yaml").read_text())
    own = collector["service"]["telemetry"]["metrics"]["readers"][0]["pull"]["exporter"]["prometheus"]["port"]

    assert scraped == {
        "router": ports["router_port"],
        "edge": ports["edge_port"],
        "triton": ports["triton_metrics_port"],
        "collector": own,
    }


@pytest.mark.parametrize(
    "path", sorted((ROOT / "deploy" / "sites").glob("*/compose*.yaml")), ids=lambda p: f"{p.parent.name}-{p.stem}"
)
def test_every_part_of_a_site_is_scraped(path: Path) -> None:
    config = yaml.safe_load((PROMETHEUS / "prometheus.yml").read_text())
    scraped = {name for job in config["scrape_configs"] for name in job["dns_sd_configs"][0]["names"]}
    services = yaml.safe_load(path.read_text())["services"]

    assert {name for name in services if name.split("-")[0] in {"router", "edge", "triton"}} <= scraped


def test_grafana_finds_its_source_and_dashboards() -> None:
    provisioning = HERE / "grafana" / "provisioning"
    sources = yaml.safe_load((provisioning / "datasources" / "prometheus.yml").read_text())["datasources"]
    providers = yaml.safe_load((provisioning / "dashboards" / "hybrid.yml").read_text())["providers"]
    interval = yaml.safe_load((PROMETHEUS / "prometheus.yml").read_text())["global"]["scrape_interval"]

    assert [(one["type"], one["isDefault"], one["jsonData"]["timeInterval"]) for one in sources] == [
        ("prometheus", True, interval)
    ]
    assert providers[0]["options"]["path"] in (HERE / "README.md").read_text()


def test_the_collector_uses_what_it_defines_and_keeps_content_back() -> None:
    config = yaml.safe_load((HERE / "collector.yaml").read_text())
    pipelines = config["service"]["pipelines"]
    kinds = ("receivers", "processors", "exporters")
    used = {kind: {name for pipeline in pipelines.values() for name in pipeline[kind]} for kind in kinds}
    deleted = {action["key"] for action in config["processors"]["attributes/no-content"]["actions"]}

    assert {kind: set(config[kind]) for kind in kinds} == used
    assert set(config["extensions"]) == set(config["service"]["extensions"])
    assert deleted == set(CONTENT)
    for pipeline in pipelines.values():
        assert pipeline["processors"][0] == "memory_limiter"
        assert pipeline["processors"][-1] == "batch"
