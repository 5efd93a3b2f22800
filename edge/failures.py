"""The one door out for errors: the engine's, Litestar's and msgspec's become OpenAI's `{"error": {...}}`."""

import logging
import re
from typing import Any

import msgspec
from litestar import Request, Response
from litestar.exceptions import HTTPException

from edge.engine import errors
from edge.engine.template import TemplateError
from edge.wire import ErrorBody, ErrorDetail

_logger = logging.getLogger("edge")
_INVALID = "invalid_request_error"
_AT = re.compile(r"^(?P<said>.*?)(?: - at `(?:key in )?\$\.?(?P<path>.*)`)?$", re.DOTALL)
_MISSING = re.compile(r"^Object missing required field `(?P<field>.+)`$")


class ApiError(Exception):
    """An answer that is no success: an HTTP status and OpenAI's error object."""

    def __init__(
        self, status: int, message: str, *, kind: str, param: str | None = None, code: str | None = None
    ) -> None:
        super().__init__(message)
        self.status = status
        self.detail = ErrorDetail(message, kind, param, code)

    def body(self) -> bytes:
        """The error object as JSON."""
        return msgspec.json.encode(ErrorBody(self.detail))

    def headers(self) -> dict[str, str]:
        """Who may come again is told when."""
        return {"retry-after": "1"} if self.status in {429, 503} else {}


def refuse(message: str, *, param: str | None = None, code: str | None = None) -> ApiError:
    """The caller's mistake."""
    return ApiError(400, message, kind=_INVALID, param=param, code=code)


def unknown_model(name: str) -> ApiError:
    """No model of this name does this."""
    message = f"The model `{name}` does not exist here, or not for this."
    return ApiError(404, message, kind=_INVALID, param="model", code="model_not_found")


def draining() -> ApiError:
    """The server is stopping."""
    return ApiError(503, "This server is stopping; send the request again.", kind="server_error", code="draining")


def as_failure(exc: Exception) -> ApiError:
    """What a client is told of any error."""
    match exc:
        case ApiError():
            return exc
        case errors.ContextError():
            return refuse(str(exc), param=exc.param, code="context_length_exceeded")
        case errors.RequestError():
            return refuse(str(exc), param=exc.param, code="invalid_value")
        case TemplateError():
            return refuse(str(exc), param="messages", code="invalid_value")
        case errors.OverloadedError():
            return ApiError(429, str(exc), kind="rate_limit_error", code="overloaded")
        case errors.ExpiredError():
            return ApiError(504, str(exc), kind="server_error", code="deadline_exceeded")
        case errors.StoppedError():
            return draining()
        case msgspec.MsgspecError():
            return describe_invalid(exc)
        case HTTPException():
            return _describe_http(exc)
        case _:
            _logger.error("Unexpected failure", exc_info=exc)
            return ApiError(500, "The server failed on this request; its log says why.", kind="server_error")


def describe_invalid(exc: msgspec.MsgspecError) -> ApiError:
    """msgspec's complaint with OpenAI's `param` and `code`."""
    if not isinstance(exc, msgspec.ValidationError):
        return refuse(f"We could not parse the JSON body of your request: {exc}.", code="invalid_json")
    at = _AT.match(str(exc))
    said, path = (at["said"], at["path"] or "") if at else (str(exc), "")
    if missing := _MISSING.match(said):
        name = f"{path}.{missing['field']}" if path else missing["field"]
        return refuse(f"Missing required parameter: '{name}'.", param=name, code="missing_required_parameter")
    where = f"'{path}'" if path else "the body"
    return refuse(f"Invalid {where}: {said}.", param=path or None, code="invalid_value")


def answer_failure(request: Request[Any, Any, Any], exc: Exception) -> Response[bytes]:
    """Registered once for everything that leaves a handler."""
    failure = as_failure(exc)
    return Response(
        failure.body(), status_code=failure.status, headers=failure.headers(), media_type="application/json"
    )


def _describe_http(exc: HTTPException) -> ApiError:
    match exc.status_code:
        case 404:
            return ApiError(404, "There is nothing at this URL.", kind=_INVALID, code="unknown_url")
        case 405:
            return ApiError(405, "This URL does not take this method.", kind=_INVALID, code="method_not_supported")
        case 413:
            message = "The request's body is over this server's limit (limits.body_bytes)."
            return ApiError(413, message, kind=_INVALID, code="body_too_large")
        case status:
            return ApiError(status, exc.detail, kind=_INVALID)
