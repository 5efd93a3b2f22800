"""
A new version of the edge's model, beside the old one.

A second edge (`edge-next`) starts with the new version, once every digest of it was checked. It must be ready and
answer the site's probe questions; then routers give it a share of the old one's work, at last all of it. While it
carries the site, the first edge is replaced by one of the new version, takes the work back, and the second one goes: a
site at rest always has one edge, and `edge.yaml` says what it runs. Whatever goes wrong on the way, the work goes back
to the old version. A second process, not a second model in the first: what crashes or swells there cannot take the old
one along.

Routers follow `edge-next.share` (`targets.*.canary.share_file`), and nothing is stopped before each of them has
followed and has no work left there.
"""

import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Annotated, Any, Final

import msgspec
import yaml
from msgspec import Meta, Struct

from deploy.site.errors import SiteError
from deploy.site.files import write
from deploy.site.services import Services
from deploy.site.waiting import Gauges, Limits, wait_ready, wait_targets, wait_until
from edge.engine.artifact import Artifact, ArtifactKind
from edge.engine.errors import EngineError

QUESTIONS: Final = "probes.yaml"
_STILL_LOOKS: Final = 4
_LOOK_S: Final = 0.25
_NO_FAULT: Final = frozenset({"refused_by_target", "budget_exhausted", "overloaded"})
"""Codes of calls that failed for the caller's mistake, for money or for room: no version is better at those."""
_OK: Final = 200


class Question(Struct, frozen=True, forbid_unknown_fields=True):
    """A probe: the answer to `ask` must contain `expect`."""

    ask: str
    expect: str
    max_tokens: int = 96


class Questions(Struct, frozen=True, forbid_unknown_fields=True):
    """A site's `probes.yaml`."""

    questions: Annotated[list[Question], Meta(min_length=1)]


@dataclass(frozen=True, slots=True)
class Edge:
    """A service that serves a model, its configuration on this host, and the routers' name for it."""

    service: str
    target: str
    config: Path


@dataclass(frozen=True)
class Upgrade:
    """`stable` and `canary` are both asked for `model`; `on_host` leads a path of `edge.yaml` to this host's."""

    services: Services
    routers: Sequence[str]
    stable: Edge
    canary: Edge
    share_file: Path
    model: str
    questions: Sequence[Question]
    on_host: Callable[[str], Path] = Path
    limits: Limits = field(default_factory=Limits)
    say: Callable[[str], None] = print

    def run(self, version: str, shares: Sequence[float], hold_s: float, *, stay: bool = False) -> None:
        """Verify a version of the model, give it each share in turn for `hold_s`, and put it in the old one's place,
        or `stay` with both and the last share.

        Raises:
            SiteError: why the old version serves on.
        """
        try:
            self.start(version)
            for share in shares:
                self.shift(share, hold_s)
            if not stay:
                self.finish()
        except SiteError as exc:
            raise SiteError(f"{exc}; {self._go_back()}") from None

    def start(self, version: str) -> None:
        """Check a version in the store, start it beside the old one, and ask it the probe questions.

        Raises:
            SiteError: it is damaged, not ready in time, unreachable for a router, or answers wrongly.
        """
        artifact = str(PurePosixPath(self._artifact(self.stable)).parent / version)
        try:
            identity = Artifact.open(self.on_host(artifact), ArtifactKind.CHAT).identity
        except EngineError as exc:
            raise SiteError(str(exc)) from exc
        self.say(f"{identity}: every digest is right")
        self._give_back()
        set_artifact(self.canary.config, artifact)
        self._replace(self.canary)

    def shift(self, share: float, hold_s: float) -> None:
        """Give the new version a share of the work, and watch it for a while.

        Raises:
            SiteError: a router does not follow, or the new version fails calls or goes down.
        """
        self._set_share(share)
        before = self._failures()
        end = time.monotonic() + hold_s
        while True:
            self._check_up()
            if (failed := self._failures() - before) > 0:
                raise SiteError(f"{self.canary.target} failed {failed:.0f} calls with {share:.0%} of the work")
            if time.monotonic() >= end:
                break
            time.sleep(_LOOK_S)
        self.say(f"{self.canary.target} has {share:.0%} of the work and fails none of it")

    def finish(self) -> None:
        """Put the new version in the old one's place.

        Raises:
            SiteError: it is not up; or the first edge did not come up with it, and was put back as it was.
        """
        self._check_up()
        self._set_share(1.0)
        self._wait_idle(self.stable)
        self._check_up()
        old, artifact = self.stable.config.read_bytes(), self._artifact(self.canary)
        set_artifact(self.stable.config, artifact)
        try:
            self._replace(self.stable)
        except SiteError:
            write(self.stable.config, old)
            self._replace(self.stable)
            raise
        self.abandon()
        self.say(f"{self.stable.service} serves {artifact}")

    def abandon(self) -> None:
        """Give all work to the first edge, and stop the second once it has none.

        Raises:
            SiteError: the first edge is not up, or a router does not follow.
        """
        self._give_back()
        self._wait_idle(self.canary)
        self.services.remove(self.canary.service)

    def _go_back(self) -> str:
        try:
            self.abandon()
        except SiteError as exc:
            return f"and {exc}: look at {self.share_file}"
        return f"{self.stable.service} serves on with {self._artifact(self.stable)}"

    def _replace(self, edge: Edge) -> None:
        began = time.monotonic()
        self.services.replace(edge.service)
        wait_ready(self.services, edge.service, self.limits.ready_s)
        self.say(f"{edge.service} is ready after {time.monotonic() - began:.1f} s")
        for question in self.questions:
            if (fault := self._find_wrong_answer(edge, question)) is not None:
                raise SiteError(fault)
        self.say(f"{edge.service} answers {len(self.questions)} probe questions as expected")
        for router in self.routers:
            wait_targets(self.services, router, {edge.target}, self.limits.notice_s)

    def _find_wrong_answer(self, edge: Edge, question: Question) -> str | None:
        body: dict[str, Any] = {
            "model": self.model,
            "messages": [{"role": "user", "content": question.ask}],
            "temperature": 0,
            "max_tokens": question.max_tokens,
        }
        answer = self.services.ask(edge.service, "/v1/chat/completions", msgspec.json.encode(body))
        if answer is None:
            return f"{edge.service} broke off at the probe question {question.ask!r}"
        said = msgspec.json.decode(answer.content)
        if answer.status != _OK:
            return f"{edge.service} refused the probe question {question.ask!r}: {said['error']['message']}"
        text = said["choices"][0]["message"]["content"]
        if question.expect in text:
            return None
        return f"{edge.service} answered {text!r} to the probe question {question.ask!r}, without {question.expect!r}"

    def _give_back(self) -> None:
        """All work to the first edge; not while a router does not reach it."""
        for router in self.routers:
            wait_targets(self.services, router, {self.stable.target}, self.limits.notice_s)
        self._set_share(0.0)

    def _set_share(self, share: float) -> None:
        """Write it, and wait until every router follows."""
        write_share(self.share_file, share)
        for router in self.routers:

            def find_fault(router: str = router) -> str | None:
                now = Gauges(self.services, router).sum("hybrid_canary_share", target=self.canary.target)
                return None if now == share else f"{router} gives {self.canary.target} {now:g} instead of {share:g}"

            wait_until(find_fault, self.limits.notice_s)

    def _wait_idle(self, edge: Edge) -> None:
        """Until no router has had work there for a few looks: what it had decided before may come a little later."""
        still = 0

        def find_fault() -> str | None:
            nonlocal still
            gauges = [Gauges(self.services, router) for router in self.routers]
            names = ("hybrid_lane_running", "hybrid_lane_waiting")
            busy = sum(each.sum(name, target=edge.target) for each in gauges for name in names)
            still = 0 if busy else still + 1
            return None if still >= _STILL_LOOKS else f"{edge.target} still has {busy:.0f} requests"

        wait_until(find_fault, self.limits.idle_s)

    def _failures(self) -> float:
        """Calls that the new version failed so far, as all routers count."""
        name, target = "hybrid_target_failures_total", self.canary.target
        total = 0.0
        for router in self.routers:
            gauges = Gauges(self.services, router)
            total += gauges.sum(name, target=target)
            total -= sum(gauges.sum(name, target=target, code=code) for code in _NO_FAULT)
        return total

    def _check_up(self) -> None:
        """
        Raises:
            SiteError: a router does not reach the new version.
        """
        for router in self.routers:
            if not Gauges(self.services, router).sum("hybrid_target_up", target=self.canary.target):
                raise SiteError(f"{self.canary.target} is down: {self.services.last_words(self.canary.service)}")

    def _artifact(self, edge: Edge) -> str:
        return read_artifact(edge.config)


def read_artifact(config: Path) -> str:
    """The model that an edge's configuration names.

    Raises:
        SiteError: it names none.
    """
    try:
        artifact = yaml.safe_load(config.read_bytes())["chat"]["artifact"]
    except (OSError, yaml.YAMLError, KeyError, TypeError) as exc:
        raise SiteError(f"{config}: names no chat.artifact ({exc}); `hybrid site check` tells what is wrong") from exc
    return str(artifact)


def set_artifact(config: Path, artifact: str) -> None:
    """Have an edge's configuration name another model; everything else in the file stays, comments too.

    Raises:
        SiteError: the file cannot be written, or names its model more than once.
    """
    old, text = read_artifact(config), config.read_text()
    if text.count(old) != 1:
        raise SiteError(f"{config}: names {old} {text.count(old)} times; name it once, as chat.artifact")
    write(config, text.replace(old, artifact).encode())


def write_share(file: Path, share: float) -> None:
    """In one small write of constant length: a file that is mounted by itself cannot be replaced under its container.

    Raises:
        SiteError: the file cannot be written.
    """
    try:
        descriptor = os.open(file, os.O_WRONLY | os.O_CREAT, 0o644)
        try:
            os.pwrite(descriptor, f"{share:.4f}\n".encode(), 0)
        finally:
            os.close(descriptor)
    except OSError as exc:
        raise SiteError(f"{file}: cannot be written ({exc.strerror})") from exc


def read_questions(file: Path) -> list[Question]:
    """A site's probe questions.

    Raises:
        SiteError: there are none.
    """
    try:
        return msgspec.yaml.decode(file.read_bytes(), type=Questions).questions
    except (OSError, msgspec.MsgspecError) as exc:
        raise SiteError(f"{file}: no probe questions ({exc}); write `questions`, a list of {{ask, expect}}") from exc
