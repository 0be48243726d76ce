"""Checksum files of the vendors are read as they are written, and one other byte is noticed."""

from __future__ import annotations

import hashlib
import io

import pytest

from saltext.kvmclone.errors import ChecksumMismatch, ConfigError
from saltext.kvmclone.model import digests
from saltext.kvmclone.system import checksums

A, B = "a" * 64, "b" * 128
NAME = "debian-12-generic-amd64.qcow2"

DEBIAN = f"{'c' * 128}  debian-12-generic-amd64.json\n{B}  {NAME}\n"
UBUNTU = f"{'c' * 64} *jammy-server-cloudimg-amd64.ova\n{A} *{NAME}\n"
FEDORA = f"# {NAME}: 12 bytes\nSHA256 ({NAME}) = {A.upper()}\n"
ALMA = f"{A}  ./images/{NAME}\n"


@pytest.mark.parametrize(
    ("text", "found"),
    [(DEBIAN, f"sha512:{B}"), (UBUNTU, f"sha256:{A}"), (FEDORA, f"sha256:{A}")]
    + [(ALMA, f"sha256:{A}")],
)
def test_the_line_of_the_image_is_found_in_every_vendors_file(text: str, found: str) -> None:
    assert checksums.find(text, NAME, "https://x/SUMS") == found


@pytest.mark.parametrize("text", ["", "<html></html>", f"{A}  other.qcow2\n", f"{A[:-1]}  {NAME}"])
def test_a_file_without_the_image_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match=r"'https://x/SUMS' has no digest of 'debian-12"):
        checksums.find(text, NAME, "https://x/SUMS")


def test_two_digests_of_one_image_are_refused() -> None:
    with pytest.raises(ConfigError, match="several digests"):
        checksums.find(f"{A}  {NAME}\n{'d' * 64}  {NAME}\n", NAME, "https://x/SUMS")


@pytest.mark.parametrize("algorithm", ["sha256", "sha512"])
def test_a_file_has_the_digest_that_others_compute(algorithm: str) -> None:
    data = b"image" * 10**6
    file = io.BytesIO(data)
    file.read(7)
    assert (
        checksums.of(file, algorithm) == f"{algorithm}:{hashlib.new(algorithm, data).hexdigest()}"
    )


def test_another_digest_is_an_error_and_the_right_one_or_none_is_not() -> None:
    checksums.require("", f"sha256:{A}", "x")
    checksums.require(f"sha256:{A}", f"sha256:{A}", "x")
    with pytest.raises(ChecksumMismatch, match=r"'x' is not the image.*must be sha256:bbb"):
        checksums.require(f"sha256:{'b' * 64}", f"sha256:{A}", "x")


@pytest.mark.parametrize(
    ("given", "written"),
    [
        (A.upper(), f"sha256:{A}"),
        (f" sha256:{A} ", f"sha256:{A}"),
        (f"SHA512:{B}", f"sha512:{B}"),
        (f"sha512:{A}", ""),
        (f"md5:{A}", ""),
        ("g" * 64, ""),
        (A[:-1], ""),
        ("https://x/SUMS", ""),
        ("", ""),
    ],
)
def test_a_digest_is_recorded_in_one_form(given: str, written: str) -> None:
    assert digests.written(given) == written
