"""A small server on loopback that speaks what huggingface_hub asks of a hub: revision, HEAD and ranged GET of files."""

import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

COMMIT = hashlib.sha1(b"the only commit", usedforsecurity=False).hexdigest()


@dataclass
class Hub:
    """Serves the files of `folders[repo]` at `COMMIT`; waits for `go` after `stall_after` bytes of the file `stall`."""

    folders: dict[str, Path]
    url: str = ""
    stall: str = ""
    stall_after: int = 0
    stalled: threading.Event = field(default_factory=threading.Event)
    go: threading.Event = field(default_factory=threading.Event)
    requests: list[tuple[str, str, str | None]] = field(default_factory=list)

    def ranges(self) -> list[str]:
        return [asked for _, _, asked in self.requests if asked]


@contextmanager
def serving(hub: Hub) -> Iterator[Hub]:
    class Handler(_HubHandler):
        served = hub

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        hub.url = f"http://127.0.0.1:{server.server_address[1]}"
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            yield hub
        finally:
            hub.go.set()
            server.shutdown()
            thread.join()


class _HubHandler(BaseHTTPRequestHandler):
    served: Hub
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: object) -> None:
        """The tests read `Hub.requests` instead."""

    def do_HEAD(self) -> None:
        self._answer()

    def do_GET(self) -> None:
        self._answer()

    def _answer(self) -> None:
        self.served.requests.append((self.command, self.path, self.headers.get("Range")))
        parts = self.path.split("?")[0].strip("/").split("/")
        match parts:
            case ["api", "models", owner, name, "revision", _]:
                self._revision(f"{owner}/{name}")
            case [owner, name, "resolve", _, *path]:
                self._file(f"{owner}/{name}", "/".join(path))
            case _:
                self._fail("EntryNotFound")

    def _revision(self, repo: str) -> None:
        if repo not in self.served.folders:
            return self._fail("RepoNotFound")
        names = sorted(path.name for path in self.served.folders[repo].iterdir())
        body = {
            "_id": "1",
            "id": repo,
            "sha": COMMIT,
            "tags": ["license:apache-2.0"],
            "siblings": [{"rfilename": name} for name in names],
        }
        return self._send(HTTPStatus.OK, json.dumps(body).encode(), {"Content-Type": "application/json"})

    def _file(self, repo: str, name: str) -> None:
        path = self.served.folders.get(repo, Path("absent")) / name
        if not path.is_file():
            return self._fail("EntryNotFound")
        content = path.read_bytes()
        headers = {"ETag": f'"{hashlib.sha256(content).hexdigest()}"', "Accept-Ranges": "bytes"}
        asked = self.headers.get("Range")
        if asked is None:
            return self._send(HTTPStatus.OK, content, headers, name)
        start = int(asked.removeprefix("bytes=").partition("-")[0])
        if start >= len(content):
            return self._send(HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE, b"", {})
        headers["Content-Range"] = f"bytes {start}-{len(content) - 1}/{len(content)}"
        return self._send(HTTPStatus.PARTIAL_CONTENT, content[start:], headers, name)

    def _fail(self, code: str) -> None:
        self._send(HTTPStatus.NOT_FOUND, b"{}", {"X-Error-Code": code})

    def _send(self, status: HTTPStatus, body: bytes, headers: dict[str, str], name: str = "") -> None:
        self.send_response(status)
        for key, value in {**headers, "X-Repo-Commit": COMMIT, "Content-Length": str(len(body))}.items():
            self.send_header(key, value)
        self.end_headers()
        if self.command == "HEAD":
            return
        if name and name == self.served.stall and not self.served.go.is_set():
            self.wfile.write(body[: self.served.stall_after])
            self.wfile.flush()
            self.served.stalled.set()
            self.served.go.wait(60)
            body = body[self.served.stall_after :]
        try:
            self.wfile.write(body)
        except (BrokenPipeError, ConnectionResetError):
            self.close_connection = True
