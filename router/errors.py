"""
Every error a client can see, with its HTTP status and OpenAI's `type`:

* RouterError                    500  server_error
  - RequestError                 400  invalid_request_error
    + AuthenticationError        401
    + ForbiddenError             403
    + UnknownModelError          404
    + UnknownUrlError            404
    + MethodError                405
    + BodyTooLargeError          413
    + UnsupportedError           400
  - NotCachedError               504  invalid_request_error
  - OverloadedError              429  rate_limit_error
    + BudgetError                429
    + QuotaError                 429
    + FullError                  429
  - BackendError                 502  server_error
    + UnavailableError           503
      ~ DrainingError            503
    + DeadlineError              504
    + RefusedError               400  invalid_request_error   (the target blamed the caller)

`code` is a closed set: the class attributes below and those that `router.api.failures` gives to a `RequestError`.
"""

from typing import ClassVar


class RouterError(Exception):
    """The root: something of ours failed."""

    status: ClassVar[int] = 500
    type: ClassVar[str] = "server_error"
    code: str | None = "internal_error"
    param: str | None = None

    def __init__(self, message: str, *, param: str | None = None, code: str | None = None) -> None:
        super().__init__(message)
        if param is not None:
            self.param = param
        if code is not None:
            self.code = code


class RequestError(RouterError):
    """The caller asked for something that cannot be."""

    status = 400
    type = "invalid_request_error"
    code: str | None = None


class AuthenticationError(RequestError):
    """No key, or one that we do not know."""

    status = 401
    code = "invalid_api_key"


class ForbiddenError(RequestError):
    """A known key that may not do this."""

    status = 403
    code = "not_allowed"


class UnknownModelError(RequestError):
    """`model` names neither `auto`, a tier, nor a target."""

    status = 404
    code = "model_not_found"
    param = "model"


class UnknownUrlError(RequestError):
    """No route has this path."""

    status = 404
    code = "unknown_url"


class MethodError(RequestError):
    """The path exists, with another method."""

    status = 405
    code = "method_not_supported"


class BodyTooLargeError(RequestError):
    """The body is over `limits.body_bytes`."""

    status = 413
    code = "body_too_large"


class UnsupportedError(RequestError):
    """No target that may answer can honour this parameter."""

    code = "unsupported_parameter"


class NotCachedError(RouterError):
    """Nothing stored may serve a request that wants nothing else (RFC 9111, only-if-cached)."""

    status = 504
    type = "invalid_request_error"
    code = "not_cached"


class OverloadedError(RouterError):
    """Refused before any work: there is no room.

    After `retry_after_s` seconds there should be; None: nobody knows, or never.
    """

    status = 429
    type = "rate_limit_error"
    code = "overloaded"

    def __init__(
        self,
        message: str,
        *,
        param: str | None = None,
        code: str | None = None,
        retry_after_s: float | None = None,
    ) -> None:
        super().__init__(message, param=param, code=code)
        self.retry_after_s = retry_after_s


class BudgetError(OverloadedError):
    """The target cannot be afforded now, and no other may answer."""

    code = "budget_exhausted"


class QuotaError(OverloadedError):
    """The tenant asked for more than its quota; the code is OpenAI's."""

    code = "rate_limit_exceeded"


class FullError(OverloadedError):
    """A lane has no room, and its work may not go elsewhere."""


class BackendError(RouterError):
    """A target failed, or sent what we cannot read."""

    status = 502
    code = "backend_failed"


class UnavailableError(BackendError):
    """No target that may answer can be reached."""

    status = 503
    code = "backend_unavailable"


class DrainingError(UnavailableError):
    """The router is stopping and takes no new work."""

    code = "draining"


class DeadlineError(BackendError):
    """The target did not answer within the request's deadline."""

    status = 504
    code = "deadline_exceeded"


class RefusedError(BackendError):
    """The target understood the request and refused it as the caller's mistake."""

    status = 400
    type = "invalid_request_error"
    code = "refused_by_target"
