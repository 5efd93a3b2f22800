"""An assessment as lines of text."""

from router.evaluation.assessment import Assessment, Suggestion


def describe_assessment(found: Assessment) -> list[str]:
    """What a terminal shows."""
    quality, calibration = found.quality, found.calibration
    evidence = ", ".join(f"{kind} {count}" for kind, count in found.evidence.items())
    return [
        f"rows            {found.rows} ({evidence})",
        f"edge / cloud    {found.edge:.3f} / {found.cloud:.3f}",
        f"at {found.threshold:.3f}        {found.routed:.3f} with {found.share:.1%} to the cloud",
        f"APGR            {quality.apgr}   (random 0.5, prompt length {found.length_quality.apgr.value:.3f})",
        f"above length    {found.above_length}   (paired)",
        f"NAPGR           {quality.napgr}   (within domains {found.within_domains})",
        f"CPT50 / CPT80   {quality.cpt50} / {quality.cpt80}",
        f"AUROC           {quality.auroc}",
        f"Brier skill     {calibration.skill}",
        f"ECE             {calibration.ece:.3f}   (a perfect predictor {calibration.ece_of_perfect})",
        *map(describe_suggestion, found.suggestions),
    ]


def describe_suggestion(one: Suggestion) -> str:
    """What a threshold does."""
    return (
        f"threshold {one.threshold:.3f} for {one.wanted}: {one.share:.1%} to the cloud, quality {one.quality:.3f} "
        f"({one.of_cloud:.1%} of the cloud's)"
    )
