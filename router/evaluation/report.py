"""An assessment as one HTML file that needs nothing else: no scripts, no fonts, no images from elsewhere."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import jinja2

from router.evaluation.assessment import SHARES, Assessment
from router.evaluation.chart import Dot, Plane, make_plane
from router.evaluation.metrics import Interval

_TEMPLATE = Path(__file__).with_name("report.html")
WIDTH, HEIGHT = 720, 400
_SMALL = 400


@dataclass(frozen=True, slots=True)
class Title:
    """What was evaluated on what; free text, escaped by the page."""

    artifact: str
    pair: str
    data: Sequence[str]
    made: str


@dataclass(frozen=True, slots=True)
class Line:
    """One curve of a chart."""

    name: str
    path: str
    style: str


def render_report(title: Title, assessment: Assessment) -> str:
    """The page."""
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters |= {"percent": _percent, "between": _between, "number": _number}
    template = environment.from_string(_TEMPLATE.read_text(encoding="utf-8"))
    share = _share_plane(assessment)
    reliability = make_plane(width=_SMALL, height=_SMALL, low=0.0, high=1.0)
    return template.render(
        title=title,
        a=assessment,
        share=share,
        share_lines=_share_lines(share, assessment),
        band=share.area(SHARES, assessment.curves.routed.low, assessment.curves.routed.high),
        reliability=reliability,
        dots=_reliability_dots(reliability, assessment),
        tenths=range(0, len(SHARES), 10),
        measures=_list_measures(assessment),
        width=WIDTH,
        height=HEIGHT,
        small=_SMALL,
    )


def _share_plane(assessment: Assessment) -> Plane:
    curves = assessment.curves
    values = [*curves.routed.low, *curves.routed.high, *curves.length, *curves.oracle, *curves.random]
    return make_plane(width=WIDTH, height=HEIGHT, low=min(values), high=max(values))


def _share_lines(plane: Plane, assessment: Assessment) -> list[Line]:
    curves = assessment.curves
    named = [
        ("oracle (knows every gain)", curves.oracle, "oracle"),
        ("random", curves.random, "random"),
        ("prompt length alone", curves.length, "length"),
        ("this artifact, with 95% band", curves.routed.value, "routed"),
    ]
    return [Line(name, plane.line(SHARES, values), style) for name, values, style in named]


def _reliability_dots(plane: Plane, assessment: Assessment) -> list[Dot]:
    bins = assessment.calibration.bins
    most = max(one.count for one in bins)
    return [
        Dot(
            plane.x.place(one.mean_score),
            plane.y.place(one.gained_share),
            round(3 + 11 * (one.count / most) ** 0.5, 1),
            f"{one.count} rows: score {one.mean_score:.3f}, the cloud gained on {one.gained_share:.3f}",
        )
        for one in bins
    ]


def _list_measures(assessment: Assessment) -> list[tuple[str, str, Interval, Interval]]:
    ours, length = assessment.quality, assessment.length_quality
    return [
        ("APGR", "area under the performance gap recovered; random 0.5", ours.apgr, length.apgr),
        ("NAPGR", "the same between random (0) and the oracle (1)", ours.napgr, length.napgr),
        ("CPT50", "cloud share that recovers half the gap; random 0.5", ours.cpt50, length.cpt50),
        ("CPT80", "cloud share that recovers 80% of the gap; random 0.8", ours.cpt80, length.cpt80),
        ("CALLS95", "cloud share that gives 95% of the cloud's quality", ours.calls95, length.calls95),
        ("AUROC", "ranking of rows on which the cloud gains; random 0.5", ours.auroc, length.auroc),
    ]


def _percent(value: float) -> str:
    return f"{100 * value:.1f}%"


def _number(value: float) -> str:
    return "n/a" if math.isnan(value) else f"{value:.3f}"


def _between(one: Interval) -> str:
    return f"[{_number(one.low)}, {_number(one.high)}]"
