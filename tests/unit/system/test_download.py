"""A download arrives whole or not at all, and its URL is shown to nobody."""

from __future__ import annotations

import io
import logging
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from saltext.kvmclone.errors import DownloadFailed, PoolFull
from saltext.kvmclone.system import download
from tests.support.web import Site, served

DATA = os.urandom(3 * 2**20 + 17)
CANARY = "canary-7f3a"


@pytest.fixture
def site(monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    monkeypatch.setattr(download, "FIRST_PAUSE_S", 0.01)
    made = Site({"/image": DATA})
    with served(made):
        yield made


def fetched(url: str, most: int = 2**30) -> bytes:
    file = io.BytesIO()
    download.fetch(url, file, most, lambda _done, _total: None)
    return file.getvalue()


def test_a_file_arrives_whole(site: Site) -> None:
    assert fetched(f"{site.url}/image") == DATA
    assert site.asked == [("/image", "")]


def test_a_connection_that_breaks_is_gone_on_with(site: Site) -> None:
    site.cuts["/image"] = [2**20, 2**18, 2**20]
    assert fetched(f"{site.url}/image") == DATA
    assert [wanted for _path, wanted in site.asked][1:] == [
        f"bytes={2**20}-", f"bytes={2**20 + 2**18}-", f"bytes={2**21 + 2**18}-",
    ]  # fmt: skip


def test_a_server_that_cannot_go_on_begins_anew(site: Site) -> None:
    site.ranges, site.cuts["/image"] = False, [2**20]
    assert fetched(f"{site.url}/image") == DATA


def test_a_file_that_changes_in_the_middle_is_not_patched_together(site: Site) -> None:
    site.cuts["/image"] = [2**20]
    later = os.urandom(2**21)

    def change() -> None:
        if len(site.asked) == 2:
            site.files["/image"], site.tag = later, '"2"'

    site.before = change
    assert fetched(f"{site.url}/image") == later


@pytest.mark.parametrize("tag", ['W/"1"', ""])
@pytest.mark.parametrize("modified", ["Mon, 02 Nov 2026 10:00:00 GMT", ""])
def test_without_a_strong_tag_the_date_counts_and_without_a_date_it_begins_anew(
    site: Site, tag: str, modified: str
) -> None:
    site.tag, site.modified, site.cuts["/image"] = tag, modified, [2**20]
    later = os.urandom(2**21)

    def change() -> None:
        if len(site.asked) == 2:
            site.files["/image"] = later
            site.modified = modified.replace("10:00", "11:00")

    site.before = change
    assert fetched(f"{site.url}/image") == later
    assert site.asked[1][1] == (f"bytes={2**20}-" if modified else "")


def test_a_server_that_is_busy_is_asked_again(site: Site) -> None:
    site.statuses["/image"] = [503, 429, 502]
    assert fetched(f"{site.url}/image") == DATA


def test_a_connection_that_breaks_again_and_again_is_given_up(site: Site) -> None:
    site.statuses["/image"] = [503] * 50
    with pytest.raises(DownloadFailed, match="the server answers 503"):
        fetched(f"{site.url}/image")
    assert len(site.asked) == download.ATTEMPTS


@pytest.mark.parametrize("status", [401, 403, 404, 410])
def test_a_refusal_is_not_asked_again(site: Site, status: int) -> None:
    site.statuses["/image"] = [status]
    with pytest.raises(DownloadFailed, match=f"the server answers {status}") as told:
        fetched(f"{site.url}/image")
    assert "curl" in told.value.hint
    assert len(site.asked) == 1


def test_nobody_there_is_an_error_without_a_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(download, "FIRST_PAUSE_S", 0.01)
    with pytest.raises(DownloadFailed, match="cannot be made, or broke"):
        fetched("http://127.0.0.1:9/image")


@pytest.mark.parametrize("told", [True, False])
def test_a_file_that_is_too_large_ends_early(site: Site, told: bool) -> None:
    site.headers = {} if told else {"Transfer-Encoding": "identity"}
    with pytest.raises(PoolFull, match="there is room for 1 MiB"):
        fetched(f"{site.url}/image", 2**20)


def test_redirects_are_followed_to_an_end(site: Site) -> None:
    site.redirects = {"/latest": "/image", "/round": "/round"}
    assert fetched(f"{site.url}/latest") == DATA
    with pytest.raises(DownloadFailed, match="again and again"):
        fetched(f"{site.url}/round")
    site.redirects["/file"] = "file:///etc/passwd"
    with pytest.raises(DownloadFailed, match="not http"):
        fetched(f"{site.url}/file")


@pytest.mark.parametrize("location", [f"http://u:{CANARY}@[x", f"http://h:{CANARY}/"])
def test_a_redirect_to_no_url_is_an_error_that_does_not_quote_it(site: Site, location: str) -> None:
    site.redirects = {"/latest": location}
    with pytest.raises(DownloadFailed) as told:
        fetched(f"{site.url}/latest")
    assert CANARY not in str(told.value)
    assert told.value.__suppress_context__


def test_neither_login_nor_query_is_in_a_message_or_a_log(
    site: Site, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    logging.getLogger("urllib3.connectionpool").setLevel(logging.DEBUG)
    address = site.url.removeprefix("http://")
    for end in ("image", "gone"):
        url = f"http://user:{CANARY}@{address}/{end}?token={CANARY}#{CANARY}"
        if end == "image":
            assert fetched(url) == DATA
            assert CANARY in site.asked[0][0]
            continue
        with pytest.raises(DownloadFailed) as told:
            fetched(url)
        assert CANARY not in str(told.value)
        assert f"'http://{address}/gone'" in str(told.value)
    assert CANARY not in caplog.text


# --- https --------------------------------------------------------------------------------------


@pytest.fixture
def secure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    monkeypatch.setattr(download, "FIRST_PAUSE_S", 0.01)
    key, certificate = tmp_path / "key.pem", tmp_path / "certificate.pem"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2"]
        + ["-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1"]
        + ["-keyout", str(key), "-out", str(certificate)],
        check=True,
        capture_output=True,
    )
    site = Site({"/image": DATA, "/SUMS": b"text"})
    with served(site, certificate, key):
        yield site


def test_https_needs_a_certificate_of_a_known_authority(
    secure: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(DownloadFailed, match="certificate cannot be verified"):
        fetched(f"{secure.url}/image")
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(tmp_path / "certificate.pem"))
    assert fetched(f"{secure.url}/image") == DATA
    assert download.text(f"{secure.url}/SUMS") == "text"


def test_https_does_not_lead_to_http(
    secure: Site, site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(tmp_path / "certificate.pem"))
    secure.redirects = {"/latest": f"{site.url}/image?token={CANARY}"}
    with pytest.raises(DownloadFailed, match="from https to http") as told:
        fetched(f"{secure.url}/latest")
    assert CANARY not in str(told.value)
    assert site.asked == []


def test_a_checksum_file_is_short(
    secure: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(tmp_path / "certificate.pem"))
    monkeypatch.setattr(download, "MOST_TEXT", 2**20)
    with pytest.raises(DownloadFailed, match="longer than 1 MiB"):
        download.text(f"{secure.url}/image")
