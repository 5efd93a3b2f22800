"""The one door out for errors: ours, Litestar's and msgspec's become OpenAI's `{"error": {...}}`."""

import logging
import re
from typing import Any

import msgspec
from litestar import Request, Response
from litestar.exceptions import HTTPException

from edge.wire import ErrorBody, ErrorDetail
from router.errors import (
    BodyTooLargeError,
    MethodError,
    RequestError,
    RouterError,
    UnknownUrlError,
)

_logger = logging.getLogger("router")
_AT = re.compile(r"^(?P<said>.*?)(?: - at `(?:key in )?\$\.?(?P<path>.*)`)?$", re.DOTALL)
_MISSING = re.compile(r"^Object missing required field `(?P<field>.+)`$")
_TYPE = re.compile(r"^Expected `(?P<wanted>[^`]+)`, got `(?P<got>[^`]+)`$")
_NUMBER = re.compile(r"^Expected `(?P<kind>int|float)` (?P<sign><=|>=|<|>) (?P<limit>\S+)$")
_LENGTH = re.compile(r"^Expected `(?P<kind>str|array)` of length (?P<sign><=|>=) (?P<limit>\d+)$")
_KINDS = {
    "int": "an integer",
    "float": "a number",
    "str": "a string",
    "bool": "a boolean",
    "array": "an array",
    "object": "an object",
    "null": "null",
}


def error_body(error: RouterError) -> bytes:
    """OpenAI's error object."""
    return msgspec.json.encode(ErrorBody(ErrorDetail(str(error), error.type, error.param, error.code)))


def as_error_response(request: Request[Any, Any, Any], exc: Exception) -> Response[bytes]:
    """Registered once for everything that leaves a handler."""
    error = exc if isinstance(exc, RouterError) else describe_http(request, exc)
    return Response(error_body(error), status_code=error.status, media_type="application/json")


def describe_invalid(exc: msgspec.MsgspecError) -> RequestError:
    """msgspec's complaint in the words, `param` and `code` of OpenAI's."""
    if not isinstance(exc, msgspec.ValidationError):
        return RequestError(f"We could not parse the JSON body of your request: {exc}.", code="invalid_json")
    said, path = _split(str(exc))
    if missing := _MISSING.match(said):
        name = f"{path}.{missing['field']}" if path else missing["field"]
        return RequestError(f"Missing required parameter: '{name}'.", param=name, code="missing_required_parameter")
    name = f"'{path}'" if path else "the body"
    for pattern, describe in _DESCRIPTIONS:
        if match := pattern.match(said):
            message, code = describe(name, match)
            return RequestError(message, param=path or None, code=code)
    return RequestError(f"Invalid value for {name}: {said}.", param=path or None, code="invalid_value")


def _split(complaint: str) -> tuple[str, str]:
    """What is wrong, and the JSON path where."""
    at = _AT.match(complaint)
    return (at["said"], at["path"] or "") if at else (complaint, "")


def _describe_type(name: str, wrong: re.Match[str]) -> tuple[str, str]:
    wanted = " or ".join(_KINDS.get(kind, kind) for kind in wrong["wanted"].split(" | ") if kind != "null")
    got = _KINDS.get(wrong["got"], wrong["got"])
    return f"Invalid type for {name}: expected {wanted}, but got {got} instead.", "invalid_type"


def _describe_number(name: str, number: re.Match[str]) -> tuple[str, str]:
    below = number["sign"] in {">=", ">"}
    kind = "integer" if number["kind"] == "int" else "decimal"
    message = (
        f"Invalid {name}: {kind} {'below minimum' if below else 'above maximum'} value. "
        f"Expected a value {number['sign']} {number['limit']}."
    )
    return message, f"{kind}_{'below_min' if below else 'above_max'}_value"


def _describe_length(name: str, length: re.Match[str]) -> tuple[str, str]:
    kind, an = ("string", "a string") if length["kind"] == "str" else ("array", "an array")
    short = length["sign"] == ">="
    if short and length["limit"] == "1":
        text, code = f"empty {kind}", f"empty_{kind}"
    else:
        text = f"{kind} too {'short' if short else 'long'}"
        code = f"{kind}_{'below_min' if short else 'above_max'}_length"
    bound = "minimum" if short else "maximum"
    return f"Invalid {name}: {text}. Expected {an} with {bound} length {length['limit']}.", code


_DESCRIPTIONS = ((_TYPE, _describe_type), (_NUMBER, _describe_number), (_LENGTH, _describe_length))


def too_large_error() -> RouterError:
    """However it was found out."""
    return BodyTooLargeError("The request's body is over this router's limit (limits.body_bytes).")


def describe_http(request: Request[Any, Any, Any], exc: Exception) -> RouterError:
    """Litestar's own refusals (unknown path, method, size); anything else is a failure of ours, logged."""
    match exc:
        case HTTPException(status_code=404):
            return UnknownUrlError(f"Invalid URL ({request.method} {request.url.path}).")
        case HTTPException(status_code=405):
            return MethodError(f"Not allowed to {request.method} on {request.url.path}.")
        case HTTPException(status_code=413):
            return too_large_error()
        case HTTPException(status_code=status) if status < RouterError.status:
            return RequestError(exc.detail)
        case _:
            _logger.error("Unexpected failure on %s", request.url.path, exc_info=exc)
            return RouterError("The router failed on this request; its log says why.")
