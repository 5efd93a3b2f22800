"""Where a query goes, and why: rules first, then the score. Pure: no clock, no I/O."""

import math
from collections.abc import Collection, Sequence
from enum import StrEnum

from msgspec import Struct
from msgspec.structs import replace

from router.errors import ForbiddenError, UnavailableError, UnknownModelError, UnsupportedError
from router.query import Capability


class Tier(StrEnum):
    """The two kinds of place: on site, or elsewhere."""

    EDGE = "edge"
    CLOUD = "cloud"


class Reason(StrEnum):
    """Which rule decided. Header, log field and metric label alike."""

    EASY = "easy"
    HARD = "hard"
    MODEL = "model"
    WISH = "wish"
    LABEL = "label"
    KEY = "key"
    CAPABILITY = "capability"
    ONLY_TIER = "only-tier"
    EDGE_FIRST = "edge-first"
    CHECKED = "checked"
    ESCALATED = "escalated"
    BUDGET = "budget"
    FALLBACK = "fallback"


class Evidence(StrEnum):
    """The best that a score rests on."""

    NONE = "none"
    FEATURES = "features"
    EMBEDDING = "embedding"
    ANSWER = "answer"


class Score(Struct, frozen=True):
    """`value` is the probability in [0, 1] that the cloud's answer is better than the edge's."""

    value: float
    evidence: Evidence


class Label(StrEnum):
    """What a policy may say of a request's data."""

    EDGE_ONLY = "edge-only"


AUTO = "auto"
_SURE = 1e-12  # a probability of 0 or 1 is a rounding, not certainty


class Target(Struct, frozen=True):
    """A place that answers, as the decision sees it; one that is the canary of another gets a share of its work."""

    name: str
    tier: Tier
    supports: frozenset[Capability] = frozenset()
    canary_of: str | None = None


class Rules(Struct, frozen=True):
    """What the request and its key allow, before any score; None leaves it to the policy.

    `canaries` are the targets whose share of the work the request falls into.
    """

    model: str = AUTO
    wish: Tier | None = None
    labels: frozenset[Label] = frozenset()
    tiers: frozenset[Tier] = frozenset(Tier)
    needs: frozenset[Capability] = frozenset()
    threshold: float | None = None
    check: bool | None = None
    canaries: frozenset[str] = frozenset()


class Decision(Struct, frozen=True):
    """The target to call; `fallback` may answer instead if it fails before the first byte, and `reserve` if that does.

    While the edge's answer is on trial, `escalation` is who answers instead if it is found wanting. `shift` is how far
    load had moved the threshold, in log-odds.
    """

    target: Target
    reason: Reason
    threshold: float
    score: Score | None = None
    fallback: Target | None = None
    escalation: Target | None = None
    degraded: bool = False
    shift: float = 0.0
    reserve: Target | None = None

    @property
    def tier(self) -> Tier:
        """The target's tier."""
        return self.target.tier

    @property
    def on_trial(self) -> bool:
        """Whether the answer is to be judged before the client gets it."""
        return self.escalation is not None

    def judge(self, score: Score, threshold: float) -> "Decision":
        """The decision once the answer on trial is scored: to keep it, or to escalate.

        A check that had nothing to say leaves stage one's score, which then decides as if there were no check.
        """
        if self.escalation is None:
            raise ValueError("no answer is on trial")
        if is_hard(score, threshold):
            return Decision(self.escalation, Reason.ESCALATED, threshold, score, fallback=self.target)
        reason = Reason.CHECKED if score.evidence is Evidence.ANSWER else Reason.EASY
        return Decision(self.target, reason, threshold, score)

    def fall_back(self, reason: Reason = Reason.FALLBACK) -> "Decision | None":
        """The decision after this target failed or cannot be afforded; None when nothing else may answer."""
        if self.fallback is None:
            return None
        return replace(
            self,
            target=self.fallback,
            reason=reason,
            fallback=self.reserve,
            reserve=None,
            escalation=None,
            degraded=self.degraded or reason is Reason.FALLBACK,
        )


class Eligible(Struct, frozen=True):
    """The targets that no rule forbids, never empty, and the rule that narrowed them to one tier, if one did."""

    targets: Sequence[Target]
    narrowed_by: Reason | None

    @property
    def needs_score(self) -> bool:
        """Whether the score can change the decision."""
        return len({t.tier for t in self.targets}) > 1


def select_eligible(rules: Rules, targets: Sequence[Target]) -> Eligible:
    """Apply the hard rules, each one able to narrow the choice.

    Raises:
        UnknownModelError: `rules.model` names nothing.
        ForbiddenError: the key or a label leaves no target.
        UnsupportedError: no target left can honour a parameter.
    """
    left = _named(rules, targets)
    narrowed = Reason.MODEL if rules.model != AUTO else None
    if rules.wish is not None:
        left, narrowed = _keep(left, {rules.wish}, narrowed, Reason.WISH)
        if not left:
            raise ForbiddenError(f"x-route: {rules.wish} has no target for model {rules.model!r}.", param="x-route")
    if Label.EDGE_ONLY in rules.labels:
        left, narrowed = _keep(left, {Tier.EDGE}, narrowed, Reason.LABEL)
        if not left:
            raise ForbiddenError("Data labelled edge-only may not leave the site.", param="x-data-label")
    left, narrowed = _keep(left, rules.tiers, narrowed, Reason.KEY)
    if not left:
        raise ForbiddenError(f"This key may not use model {rules.model!r}.", param="model")
    able = [t for t in left if rules.needs <= t.supports]
    if not able:
        raise _unsupported(rules.needs, left)
    if len({t.tier for t in able}) < len({t.tier for t in left}):
        narrowed = narrowed or Reason.CAPABILITY
    return Eligible(able, narrowed)


def decide(
    eligible: Eligible, *, score: Score | None, threshold: float, up: Collection[str], band: float | None = None
) -> Decision:
    """Hard queries to the cloud, easy ones to the edge, either to the other tier when its own is down.

    Args:
        eligible: What the rules left.
        score: None when there is none to give.
        threshold: Scores from here up go to the cloud; from 1 up, none does.
        up: Names of the targets that are not known to be down.
        band: Scores no farther than this from the threshold, in log-odds, put the edge's answer on trial; None: no
            score does.

    Raises:
        UnavailableError: every eligible target is down.
    """
    wanted, reason = _choose(eligible, score, threshold)
    # sorted() is stable: inside a tier the configured order decides
    alive = sorted((t for t in eligible.targets if t.name in up), key=lambda t: t.tier is not wanted)
    if not alive:
        names = ", ".join(t.name for t in eligible.targets)
        raise UnavailableError(f"No target that may answer is up (tried: {names}).")
    if score is not None and band is not None and _log_odds_apart(score.value, threshold) <= band:
        edge = next((t for t in alive if t.tier is Tier.EDGE), None)
        cloud = next((t for t in alive if t.tier is Tier.CLOUD), None)
        if edge is not None and cloud is not None:
            fallback, reserve = _stand_ins(edge, [t for t in alive if t is cloud or t.name == edge.canary_of])
            return Decision(edge, Reason.CHECKED, threshold, score, fallback, escalation=cloud, reserve=reserve)
    target = alive[0]
    fallback, reserve = _stand_ins(target, alive[1:])
    if target.tier is wanted:
        return Decision(target, reason, threshold, score, fallback, reserve=reserve)
    return Decision(target, Reason.FALLBACK, threshold, score, fallback, degraded=True, reserve=reserve)


def log_odds(probability: float) -> float:
    """Finite, also of 0 and 1."""
    inside = min(max(probability, _SURE), 1.0 - _SURE)
    return math.log(inside / (1.0 - inside))


def is_hard(score: Score, threshold: float) -> bool:
    """Which side of the threshold a score is on."""
    return threshold < 1 and score.value >= threshold


def _choose(eligible: Eligible, score: Score | None, threshold: float) -> tuple[Tier, Reason]:
    """The tier that should answer if everything is up, and the rule that says so."""
    if not eligible.needs_score:
        return eligible.targets[0].tier, eligible.narrowed_by or Reason.ONLY_TIER
    if score is None:
        return Tier.EDGE, Reason.EDGE_FIRST
    if is_hard(score, threshold):
        return Tier.CLOUD, Reason.HARD
    return Tier.EDGE, Reason.EASY


def _log_odds_apart(score: float, threshold: float) -> float:
    """The distance between two probabilities; infinite to a threshold that no evidence can cross."""
    if not 0 < threshold < 1:
        return math.inf
    return abs(log_odds(score) - log_odds(threshold))


def _stand_ins(target: Target, others: Sequence[Target]) -> tuple[Target | None, Target | None]:
    """Who answers if the target fails, and if that one fails too: a canary may not cost a query its second chance."""
    fallback, reserve = (*others, None, None)[:2]
    return fallback, reserve if target.canary_of is not None else None


def _named(rules: Rules, targets: Sequence[Target]) -> list[Target]:
    """Those that `model` means; a canary is meant with the target that it is one of, by the queries drawn for it."""
    left = [t for t in targets if t.name == rules.model or _is_meant(t, rules)]
    if not left:
        raise UnknownModelError(f"The model `{rules.model}` does not exist or you do not have access to it.")
    return left


def _is_meant(target: Target, rules: Rules) -> bool:
    if target.canary_of is None:
        return rules.model in (AUTO, target.tier)
    return target.name in rules.canaries and rules.model in (AUTO, target.tier, target.canary_of)


def _keep(
    targets: list[Target], tiers: Collection[Tier], narrowed: Reason | None, rule: Reason
) -> tuple[list[Target], Reason | None]:
    left = [t for t in targets if t.tier in tiers]
    return left, narrowed if len(left) == len(targets) else narrowed or rule


def _unsupported(needs: frozenset[Capability], targets: Sequence[Target]) -> UnsupportedError:
    # the parameter that the fewest targets can honour is the one to name
    worst = min(sorted(needs), key=lambda need: sum(need in t.supports for t in targets))
    names = ", ".join(t.name for t in targets)
    return UnsupportedError(f"Unsupported parameter: '{worst}' is not supported by {names}.", param=worst.param)
