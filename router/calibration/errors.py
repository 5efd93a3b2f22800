"""
What can end a calibration, each with one line for the person who ran it:
* CalibrationError     stop; the journal keeps what was paid for
  - UnjudgedError      one prompt cannot be judged: it is skipped, the others go on
  - UnansweredError    one prompt is refused by a target: it is skipped too
"""

from router.evaluation.errors import EvaluationError


class CalibrationError(EvaluationError):
    """The run cannot go on; the message says why and what to do."""


class UnjudgedError(CalibrationError):
    """The judge has no opinion on a prompt."""


class UnansweredError(CalibrationError):
    """A target refuses a prompt for good, for instance because it is too long."""
