"""
Download an image over http or https into a file, going on after a broken connection.

No URL is logged or put into a message but as :func:`.base_request.shown` gives it: user information
and query may be secrets, and so may whatever the libraries below say of an error.
"""

from __future__ import annotations

import contextlib
import io
import logging
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, BinaryIO
from urllib.parse import urljoin, urlsplit

from saltext.kvmclone import interrupts
from saltext.kvmclone.errors import DownloadFailed, PoolFull
from saltext.kvmclone.model.base_request import shown

#: Seconds until a server must have answered, and between two pieces of data.
CONNECT_TIMEOUT_S, READ_TIMEOUT_S = 20.0, 30.0

#: How often a download goes on after a failure without any progress in between, and the seconds
#: of the first pause; each is twice the one before.
ATTEMPTS, FIRST_PAUSE_S = 5, 1.0

MOST_REDIRECTS = 10

#: Bytes of a checksum file at most.
MOST_TEXT = 4 * 2**20

_PIECE = 2**18
_RANGE = re.compile(r"bytes (\d+)-\d+/(\d+)")

#: Answers that may be others a moment later.
_LATER = (408, 425, 429, 500, 502, 503, 504)

#: Loggers that write whole URLs.
_LOGGERS = ("requests", "urllib3", "urllib3.connectionpool", "urllib3.util.retry")

#: Called with the bytes that are there and the bytes that there will be (0: not known).
Progress = Callable[[int, int], None]


class _Broken(Exception):
    """The connection broke, or the server asks to come back later; its text says what, no URL."""


@dataclass
class _State:
    """
    A download under way.

    :param total: Bytes of the whole file; 0 where the server does not say.
    :param tag: What names this version of the file (``ETag`` or ``Last-Modified``).
    """

    done: int = 0
    total: int = 0
    tag: str = ""


def fetch(url: str, file: BinaryIO, most: int, told: Progress) -> None:
    """
    Download a file, and go on where a connection broke.

    :param url: ``http://`` or ``https://``.
    :param file: Open for writing, empty.
    :param most: Bytes that there is room for.
    :param told: Called after each piece; what it raises ends the download.
    :raises DownloadFailed: The server refuses, or the connection broke again and again.
    :raises PoolFull: It is larger than ``most``.
    """
    with _quiet():
        _Download(url, file, most, told).run()


def text(url: str) -> str:
    """
    Return a small text, such as a checksum file.

    :raises DownloadFailed: It cannot be downloaded, or is too long.
    """
    with io.BytesIO() as buffer:
        try:
            fetch(url, buffer, MOST_TEXT, lambda _done, _total: None)
        except PoolFull:
            raise DownloadFailed(
                f"'{shown(url)}' is no checksum file: it is longer than {MOST_TEXT >> 20} MiB.",
                "Give the URL of the vendor's checksum file, or the digest itself.",
            ) from None
        return buffer.getvalue().decode("utf-8", "replace")


class _Download:
    """One download under way; see :func:`fetch`."""

    def __init__(self, url: str, file: BinaryIO, most: int, told: Progress) -> None:
        import requests  # noqa: PLC0415 - it takes a tenth of a second, and few commands need it

        self.url, self.file, self.most, self.told = url, file, most, told
        self.state = _State()
        self.session = requests.Session()
        self.broken: tuple[type[Exception], ...] = (requests.RequestException, OSError)

    def run(self) -> None:
        failed = 0
        with self.session:
            while True:
                before = self.state.done
                try:
                    self._go_on()
                    return
                except _Broken as error:
                    failed = 0 if self.state.done > before else failed + 1
                    if failed >= ATTEMPTS:
                        raise self._failed(str(error)) from None
                interrupts.pause(FIRST_PAUSE_S * 2 ** max(0, failed - 1))

    def _go_on(self) -> None:
        """
        Receive the rest of the file.

        :raises _Broken: It may come with another attempt.
        """
        with contextlib.closing(self._answered()) as answer:
            self._position(answer)
            if self.state.total > self.most:
                raise self._too_large(self.state.total)
            try:
                for piece in answer.iter_content(_PIECE):
                    self._take(piece)
            except self.broken as error:
                raise self._why(error) from None
        if self.state.total and self.state.done < self.state.total:
            raise _Broken(f"the connection ended after {self.state.done} bytes")

    def _take(self, piece: bytes) -> None:
        interrupts.check()
        if self.state.done + len(piece) > self.most:
            raise self._too_large(self.state.done + len(piece))
        try:
            self.file.write(piece)
        except OSError as error:
            raise PoolFull(
                f"'{shown(self.url)}' cannot be written: {error.strerror}.",
                "Make room in the storage pool, then repeat the command.",
            ) from error
        self.state.done += len(piece)
        self.told(self.state.done, self.state.total)

    def _answered(self) -> Any:
        """
        Return the server's answer to a request for what is missing, redirects followed.

        :raises DownloadFailed: It refuses, or leads from https to http.
        """
        headers = {"Accept-Encoding": "identity"}
        if self.state.done and self.state.tag:  # without one, two versions could be mixed
            headers["Range"] = f"bytes={self.state.done}-"
            headers["If-Range"] = self.state.tag
        url = self.url
        for _ in range(MOST_REDIRECTS):
            try:
                answer = self.session.get(
                    url,
                    headers=headers,
                    stream=True,
                    timeout=(CONNECT_TIMEOUT_S, READ_TIMEOUT_S),
                    allow_redirects=False,
                )
            except self.broken as error:
                raise self._why(error) from None
            except ValueError:  # of a redirect, which requests takes apart although it stays here
                raise self._failed("it is redirected to something that is no URL") from None
            if not answer.is_redirect:
                return self._accepted(answer)
            answer.close()
            url = self._next(url, str(answer.headers["location"]))
        raise self._failed("it is redirected again and again")

    def _next(self, url: str, location: str) -> str:
        try:
            target = urljoin(url, location)
            scheme = urlsplit(target).scheme
        except ValueError:
            raise self._failed("it is redirected to something that is no URL") from None
        if scheme not in ("http", "https"):
            raise self._failed("it is redirected to something that is not http")
        if urlsplit(url).scheme == "https" and scheme != "https":
            raise self._failed(
                f"it is redirected from https to http ({shown(target)}), where anybody on the way "
                "can change it"
            )
        return target

    def _accepted(self, answer: Any) -> Any:
        status = answer.status_code
        encoding = answer.headers.get("content-encoding", "identity")
        if status in (200, 206) and encoding == "identity":
            return answer
        answer.close()
        if status in (200, 206):
            raise self._failed(f"the server sends it encoded ({encoding}) without being asked to")
        if status == 416 and self.state.done:
            self.state = _State()
            self._empty()
            raise _Broken("the file changed on the server")
        if status in _LATER:
            raise _Broken(f"the server answers {status}")
        raise self._failed(f"the server answers {status}")

    def _position(self, answer: Any) -> None:
        """Note how long the file is, and start anew where the server does not go on."""
        state = self.state
        tag = str(answer.headers.get("etag", ""))
        if not tag or tag.startswith("W/"):  # such a tag promises no equal bytes
            tag = str(answer.headers.get("last-modified", ""))
        if answer.status_code == 206:
            found = _RANGE.fullmatch(str(answer.headers.get("content-range", "")))
            goes_on = found and int(found[1]) == state.done
            if goes_on and found and int(found[2]) == (state.total or int(found[2])):
                state.total = int(found[2])
                return
            state.done = state.total = 0
            self._empty()
            raise _Broken("the file changed on the server")
        state.done, state.tag = 0, tag
        self._empty()
        length = str(answer.headers.get("content-length", ""))
        state.total = int(length) if length.isdigit() else 0

    def _empty(self) -> None:
        self.file.seek(0)
        self.file.truncate(0)

    def _why(self, error: BaseException) -> _Broken | DownloadFailed:
        """Return what to raise for an error of the libraries below, in words without a URL."""
        import requests  # noqa: PLC0415

        if isinstance(error, requests.exceptions.SSLError):
            return self._failed("its certificate cannot be verified")
        if isinstance(error, (requests.exceptions.InvalidURL, requests.exceptions.InvalidSchema)):
            return self._failed("it is no URL of a file")
        if isinstance(error, requests.Timeout):
            return _Broken("the server does not answer in time")
        return _Broken("the connection cannot be made, or broke")

    def _failed(self, why: str) -> DownloadFailed:
        return DownloadFailed(
            f"'{shown(self.url)}' cannot be downloaded: {why}.",
            "Try it by hand on the KVM host, with curl. A proxy, or a certificate authority of "
            "your own, stands in the environment of its salt-minion: https_proxy, "
            "REQUESTS_CA_BUNDLE.",
        )

    def _too_large(self, size: int) -> PoolFull:
        return PoolFull(
            f"'{shown(self.url)}' has {size >> 20} MiB or more, and there is room for "
            f"{self.most >> 20} MiB.",
            "Make room in the storage pool, or name another: pool=NAME",
        )


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep loggers that write whole URLs from doing so, whatever Salt's log level is."""
    loggers = [logging.getLogger(name) for name in _LOGGERS]
    before = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        for logger, level in zip(loggers, before, strict=True):
            logger.setLevel(level)
