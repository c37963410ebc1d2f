"""A web server on this machine that breaks off, stalls or refuses as a test asks."""

import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Server(ThreadingHTTPServer):
    """Serves `files` by their paths, or `content` under every other, and notes each Range header.

    Attributes:
        files: what is served instead of `content`, by path.
        status: what every request is answered with, other than 200 or 206.
        knows_ranges: answers 206 and 416; otherwise the whole file, whatever was asked.
        breaks: after how many bytes the next connections break, one number each.
        waits: an answer stops in the middle of the content until `goes_on` is set.
    """

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.content = b""
        self.files: dict[str, bytes] = {}
        self.status = 200
        self.knows_ranges = True
        self.breaks: list[int] = []
        self.waits = False
        self.goes_on = threading.Event()
        self.ranges: list[str | None] = []
        self.requests: list[BaseHTTPRequestHandler] = []

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        server, asked = self.server, self.headers["Range"]
        content = server.files.get(self.path, server.content)
        server.requests.append(self)
        server.ranges.append(asked)
        start = int(asked.removeprefix("bytes=").removesuffix("-")) if asked else 0
        if server.status != 200:
            self._head(server.status, b"")
        elif not server.knows_ranges or not asked:
            self._answer(200, content)
        elif start >= len(content):
            self._head(416, b"")
        else:
            self._answer(206, content[start:])

    def _answer(self, status: int, body: bytes) -> None:
        self._head(status, body)
        sent = body[: self.server.breaks.pop(0)] if self.server.breaks else body
        half = len(sent) // 2
        self.wfile.write(sent[:half])
        if self.server.waits:
            self.server.goes_on.wait(30)
        self.wfile.write(sent[half:])

    def _head(self, status: int, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        pass
