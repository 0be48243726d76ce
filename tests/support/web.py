"""A web server for tests, which serves files as badly as it is told to."""

from __future__ import annotations

import contextlib
import ssl
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any


@dataclass
class Site:
    """
    What is served, and how.

    :param files: Content, or the file that has it, by path.
    :param redirects: Where a path leads.
    :param statuses: Answers that come first for a path, each once.
    :param cuts: After how many bytes the connection breaks, for a path, each once.
    :param ranges: Whether it goes on in the middle of a file.
    :param tag: Names the version of all files; empty for none.
    :param modified: When all files were changed, as a header has it; empty for nothing.
    :param asked: Path, query included, and range of each request.
    """

    files: dict[str, bytes | Path] = field(default_factory=dict)
    redirects: dict[str, str] = field(default_factory=dict)
    statuses: dict[str, list[int]] = field(default_factory=dict)
    cuts: dict[str, list[int]] = field(default_factory=dict)
    ranges: bool = True
    tag: str = '"1"'
    modified: str = ""
    asked: list[tuple[str, str]] = field(default_factory=list)
    #: Called before each answer.
    before: Callable[[], None] = lambda: None
    headers: dict[str, str] = field(default_factory=dict)
    url: str = ""


@contextlib.contextmanager
def served(site: Site, certificate: Path | None = None, key: Path | None = None) -> Iterator[str]:
    """Serve a site at the loopback address; yields its URL."""

    class Handler(_Handler):
        pass

    Handler.site = site
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    scheme = "http"
    if certificate is not None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate, key)
        server.socket = context.wrap_socket(server.socket, server_side=True)
        scheme = "https"
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    site.url = f"{scheme}://127.0.0.1:{server.server_port}"
    try:
        yield site.url
    finally:
        server.shutdown()
        server.server_close()


class _Handler(BaseHTTPRequestHandler):
    site: Site
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        site, path = self.site, self.path.partition("?")[0]
        site.asked.append((self.path, self.headers.get("Range", "")))
        site.before()
        if statuses := site.statuses.get(path):
            self._short(statuses.pop(0))
        elif path in site.redirects:
            self._short(302, {"Location": site.redirects[path]})
        elif path not in site.files:
            self._short(404)
        else:
            self._file(path, site.files[path])

    def _short(self, status: int, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def _file(self, path: str, content: bytes | Path) -> None:
        data = content if isinstance(content, bytes) else content.read_bytes()
        site, wanted = self.site, self.headers.get("Range", "")
        same = self.headers.get("If-Range", site.tag) in (site.tag, site.modified)
        first = int(wanted.removeprefix("bytes=").rstrip("-")) if wanted else 0
        if wanted and self.site.ranges and same:
            if first >= len(data):
                self._short(416)
                return
            self.send_response(206)
            self.send_header("Content-Range", f"bytes {first}-{len(data) - 1}/{len(data)}")
        else:
            first = 0
            self.send_response(200)
        self.send_header("Content-Length", str(len(data) - first))
        for name, value in (("ETag", site.tag), ("Last-Modified", site.modified)):
            if value:
                self.send_header(name, value)
        for name, value in self.site.headers.items():
            self.send_header(name, value)
        self.end_headers()
        cuts = self.site.cuts.get(path)
        end = min(len(data), first + cuts.pop(0)) if cuts else len(data)
        with contextlib.suppress(OSError):
            self.wfile.write(data[first:end])
        if end < len(data):
            self.close_connection = True
            with contextlib.suppress(OSError):
                self.wfile.flush()
                self.connection.shutdown(2)

    def log_message(self, *_arguments: Any) -> None:
        pass
