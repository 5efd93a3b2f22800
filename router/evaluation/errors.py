"""What these commands refuse."""


class EvaluationError(Exception):
    """The labels do not allow what was asked; one line says why and what to do."""
