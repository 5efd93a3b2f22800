"""
What the engine can refuse or fail at:

* EngineError
  - ArtifactError      a model's files are missing or not what their manifest says (`edge.engine.artifact`)
  - ModelError         the files are right, but this machine or this engine cannot run them
  - RequestError       the caller asked for something that cannot be
    + ContextError     prompt and answer do not fit the model's context
    + GrammarError     the JSON Schema cannot be followed
  - OverloadedError    the waiting list is full: refused before any work
  - ExpiredError       the deadline passed before the answer was complete
  - StoppedError       the generator is stopping
  - CrashedError       the model failed while this generation ran
"""


class EngineError(Exception):
    """The root. The message is one line for the person who can act on it."""


class ModelError(EngineError):
    """The model cannot run here."""


class RequestError(EngineError):
    """The request cannot be served as it is; `param` names its guilty part."""

    param: str = "prompt"


class ContextError(RequestError):
    """Prompt and answer are longer than the model's context."""

    def __init__(self, message: str, param: str = "prompt") -> None:
        super().__init__(message)
        self.param = param


class GrammarError(RequestError):
    """The schema is broken or asks for what the grammar engine cannot do."""

    param = "response_format"


class OverloadedError(EngineError):
    """No room in the waiting list."""


class ExpiredError(EngineError):
    """The deadline passed."""


class StoppedError(EngineError):
    """The generator stopped before the work was done."""


class CrashedError(EngineError):
    """The model failed under this work."""
