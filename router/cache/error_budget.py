"""What semantic hits may get wrong: which are audited, and what follows. Pure: no I/O, the clock is given."""

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from itertools import islice
from typing import Final

from router.cache.evidence import Evidence, Interval, wilson
from router.config.cache import ErrorBudget as ErrorBudgetSection

__all__ = ["BudgetState", "ErrorBudget", "Gate", "Measure", "Step"]

_ALPHA: Final = 0.05
_CEILING: Final = 0.995
"""A similarity beyond which two texts hardly differ at all: nothing is left to tighten."""
_MARGIN: Final = 0.001
_CAUTION: Final = 2.0
_PROBE_S: Final = 60.0
_LOOKED_AT: Final = 64


class BudgetState(StrEnum):
    """What a partition may do."""

    OPEN = "open"
    TIGHTENED = "tightened"
    PAUSED = "paused"
    SHUT = "shut"


class Step(StrEnum):
    """What evidence led to."""

    TIGHTENED = "tightened"
    SHUT = "shut"


@dataclass(frozen=True, slots=True)
class Gate:
    """Whether a partition may be looked up, and above which similarity; `why` says in words what is against it."""

    state: BudgetState
    similarity: float
    why: str = ""

    @property
    def passable(self) -> bool:
        """Whether hits may be served."""
        return self.state in {BudgetState.OPEN, BudgetState.TIGHTENED}


@dataclass(frozen=True, slots=True)
class Measure:
    """What was done about a partition: worth keeping over a restart, and telling the other replicas."""

    partition: bytes
    step: Step
    similarity: float
    shut_until: float
    why: str


@dataclass(frozen=True, slots=True)
class BudgetStatistics:
    """All partitions remembered; `worst` is the false-hit rate of the one whose lower bound is highest."""

    audits: int
    wrong: int
    pooled: Interval
    worst: Interval
    states: dict[BudgetState, int]


@dataclass(slots=True)
class _Account:
    """One partition; `similarity` None: the configured one. What ends in `since` begins anew with each measure."""

    evidence: Evidence
    similarity: float | None = None
    hits_since: int = 0
    owed: float = 0.0
    unaudited: int = 0
    audits: int = 0
    wrong: int = 0
    worst_since: float = 0.0
    audits_since: int = 0
    wrong_since: int = 0
    shut_until: float = 0.0
    paused_since: float = 0.0
    why: str = ""


class ErrorBudget:
    """Every partition's account.

    A hit is audited when it is one of the first, or its share's turn has come. After `most_unaudited` hits without an
    audit the partition pauses until there is one. While something wrong weighs more than all that was right (evidence
    above 1), each hit is audited and waits for the audit of the one before: so however fast hits come, a partition that
    is wrong every time is closed within `most_unaudited` of them.

    Evidence at level .05 that more than `most_wrong` are wrong first raises the partition's similarity above all that
    was wrong; coming again, or with nothing left to raise, it shuts the partition for `shut_s`. The similarity stays
    raised after that.

    The accounts used least recently are dropped, those of shut partitions last.
    """

    def __init__(
        self, config: ErrorBudgetSection, *, similarity: float, clock: Callable[[], float], most_partitions: int
    ) -> None:
        """`similarity` is the calibrated one; `clock` gives Unix seconds."""
        self._config = config
        self._similarity = similarity
        self._clock = clock
        self._most_partitions = most_partitions
        self._accounts: OrderedDict[bytes, _Account] = OrderedDict()
        self._audits = 0
        self._wrong = 0

    def gate(self, partition: bytes) -> Gate:
        """What holds for a lookup now. A paused partition lets one hit a minute through, so that there is an audit."""
        account = self._accounts.get(partition)
        return Gate(BudgetState.OPEN, self._similarity) if account is None else self._judge(account, self._clock())

    def count_hit(self, partition: bytes) -> bool:
        """A hit was served; returns whether to have it audited."""
        account = self._open(partition)
        account.hits_since += 1
        account.unaudited += 1
        account.owed += self._config.share
        if self._lacks_audit(account):
            account.paused_since = self._clock()
            return True
        if account.hits_since <= self._config.first_hits:
            return True
        if account.owed < 1:
            return False
        account.owed -= 1
        return True

    def record(self, partition: bytes, similarity: float, *, right: bool) -> Measure | None:
        """An audit's verdict on a hit that was served with this similarity; returns what it led to."""
        self._audits += 1
        self._wrong += not right
        account = self._open(partition)
        account.audits += 1
        account.wrong += not right
        account.unaudited = 0
        if account.shut_until > self._clock() or similarity < self._threshold(account):
            return None  # evidence is about hits that could be served still
        account.evidence.observe(failed=not right)
        account.audits_since += 1
        if right:
            return None
        account.wrong_since += 1
        account.worst_since = max(account.worst_since, similarity)
        return self._act(partition, account) if account.evidence.value >= 1 / _ALPHA else None

    def learn(self, measure: Measure) -> None:
        """A measure taken earlier, or by another replica."""
        account = self._open(measure.partition)
        if measure.similarity > self._threshold(account):
            account.similarity = measure.similarity
            self._begin_anew(account)
        if measure.shut_until > max(self._clock(), account.shut_until):
            account.shut_until, account.why = measure.shut_until, measure.why

    def statistics(self) -> BudgetStatistics:
        """Totals since the start, and the partitions as they are now."""
        now = self._clock()
        states = dict.fromkeys(BudgetState, 0)
        worst = wilson(0, 0)
        for account in self._accounts.values():
            states[self._judge(account, now).state] += 1
            if account.audits:
                worst = max(worst, wilson(account.wrong, account.audits), key=lambda interval: interval.low)
        return BudgetStatistics(self._audits, self._wrong, wilson(self._wrong, self._audits), worst, states)

    def _open(self, partition: bytes) -> _Account:
        """The partition's account; a new one may cost the least recently used of those that are not shut."""
        account = self._accounts.get(partition)
        if account is None:
            account = self._accounts[partition] = _Account(Evidence(self._config.most_wrong))
            if len(self._accounts) > self._most_partitions:
                self._forget_one()
        self._accounts.move_to_end(partition)
        return account

    def _forget_one(self) -> None:
        now = self._clock()
        oldest = list(islice(self._accounts, _LOOKED_AT))
        chosen = next((one for one in oldest if self._accounts[one].shut_until <= now), oldest[0])
        del self._accounts[chosen]

    def _act(self, partition: bytes, account: _Account) -> Measure:
        counts = f"{account.wrong_since} of {account.audits_since} audited hits were wrong"
        found = f"{counts}, more than {self._config.most_wrong:.2%} for all that is known"
        # what is wrong reaches above the largest seen: were it spread evenly, by 1/n of its span (the German tank)
        reach = (account.worst_since - self._threshold(account)) / account.wrong_since
        similarity = account.worst_since + max(_MARGIN, _CAUTION * reach)
        if account.similarity is None and similarity <= _CEILING:
            step, why, until = Step.TIGHTENED, f"{found}; similarity raised to {similarity:.4f}", 0.0
            account.similarity = similarity
        else:
            left = "after the similarity had been raised" if account.similarity is not None else "at any similarity"
            step, why, until = Step.SHUT, f"{found}, {left}", self._clock() + self._config.shut_s
            account.shut_until, account.why = until, why
        self._begin_anew(account)
        return Measure(partition, step, self._threshold(account), until, why)

    def _begin_anew(self, account: _Account) -> None:
        account.evidence = Evidence(self._config.most_wrong)
        account.hits_since = account.audits_since = account.wrong_since = 0
        account.worst_since = 0.0

    def _judge(self, account: _Account, now: float) -> Gate:
        similarity = self._threshold(account)
        if account.shut_until > now:
            return Gate(BudgetState.SHUT, similarity, account.why)
        if self._lacks_audit(account) and now < account.paused_since + _PROBE_S:
            return Gate(BudgetState.PAUSED, similarity, f"{account.unaudited} hits since the last audit")
        return Gate(BudgetState.OPEN if account.similarity is None else BudgetState.TIGHTENED, similarity)

    def _lacks_audit(self, account: _Account) -> bool:
        return account.unaudited >= (1 if account.evidence.value > 1 else self._config.most_unaudited)

    def _threshold(self, account: _Account) -> float:
        return self._similarity if account.similarity is None else account.similarity
