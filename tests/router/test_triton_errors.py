"""What Triton's errors become; the server itself answers in `tests/site` and `tests/cloud`."""

import time

import grpc
import pytest
from tritonclient.utils import InferenceServerException

from cloud.wire import QUEUE_FULL_TEXT, TIMEOUT_TEXT, ErrorCode, encode_error
from router.backends.triton import triton_errors
from router.errors import BackendError, DeadlineError, OverloadedError, RefusedError, RouterError, UnavailableError

PEER = 'UNKNOWN:Error received from peer  {grpc_message:"x", grpc_status:14}'


def status(code: grpc.StatusCode, message: str, *, from_peer: bool) -> InferenceServerException:
    """A unary call's failure, as tritonclient raises it."""
    return InferenceServerException(message, str(code), PEER if from_peer else "failed to connect to all addresses")


@pytest.mark.parametrize(
    ("foreign", "ours"),
    [
        (InferenceServerException(encode_error(ErrorCode.INVALID_ARGUMENT, "n: 0")), RefusedError),
        (InferenceServerException(encode_error(ErrorCode.RESOURCE_EXHAUSTED, "full")), OverloadedError),
        (InferenceServerException(encode_error(ErrorCode.DEADLINE_EXCEEDED, "late")), DeadlineError),
        (InferenceServerException(encode_error(ErrorCode.UNAVAILABLE, "stopping")), BackendError),
        (InferenceServerException("the stock backend says anything"), BackendError),
        (status(grpc.StatusCode.UNAVAILABLE, "", from_peer=False), UnavailableError),
        (status(grpc.StatusCode.UNAVAILABLE, QUEUE_FULL_TEXT, from_peer=True), OverloadedError),
        (status(grpc.StatusCode.UNAVAILABLE, "embed is stopping", from_peer=True), BackendError),
        (status(grpc.StatusCode.DEADLINE_EXCEEDED, "", from_peer=False), DeadlineError),
        (status(grpc.StatusCode.NOT_FOUND, "no such model", from_peer=True), BackendError),
        (TimeoutError(), DeadlineError),
        (ValueError("not a number"), BackendError),
    ],
)
def test_each_foreign_error_becomes_one_of_ours(foreign: Exception, ours: type[RouterError]) -> None:
    with pytest.raises(RouterError) as caught, triton_errors("h100"):
        raise foreign

    assert type(caught.value) is ours
    assert str(caught.value).startswith("h100 ")


@pytest.mark.parametrize(("left_s", "ours"), [(-0.1, DeadlineError), (60, OverloadedError), (None, OverloadedError)])
def test_a_wait_that_triton_ends_before_the_deadline_is_an_overload(
    left_s: float | None, ours: type[RouterError]
) -> None:
    deadline = None if left_s is None else time.monotonic() + left_s

    with pytest.raises(RouterError) as caught, triton_errors("h100", deadline):
        raise status(grpc.StatusCode.UNAVAILABLE, TIMEOUT_TEXT, from_peer=True)

    assert type(caught.value) is ours
