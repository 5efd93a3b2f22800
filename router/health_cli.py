"""
`python -m router.health_cli URL`: exit status 0 if it answers with success, else 1 and the reason in one line.

The images' health check. It runs every few seconds, so it loads nothing beyond the standard library's HTTP client.
"""

import http.client
import sys
from typing import Final
from urllib.parse import urlsplit

TIMEOUT_S: Final = 3.0


def find_fault(url: str) -> str | None:
    """What is wrong with a plain HTTP URL; None if it answers with success."""
    at = urlsplit(url)
    connection = http.client.HTTPConnection(at.netloc, timeout=TIMEOUT_S)
    try:
        connection.request("GET", at.path)
        status = connection.getresponse().status
    except (OSError, http.client.HTTPException) as exc:
        return f"{url} does not answer: {exc}"
    finally:
        connection.close()
    return None if status == http.HTTPStatus.OK else f"{url} answered {status}"


if __name__ == "__main__":
    sys.exit(find_fault(sys.argv[1]))
