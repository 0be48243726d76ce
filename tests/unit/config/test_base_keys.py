"""What a base_from is given becomes a request, or is refused by name with all its faults."""

from __future__ import annotations

from typing import Any

import pytest

from saltext.kvmclone.config import base_keys
from saltext.kvmclone.config.catalogue import Catalogue
from saltext.kvmclone.errors import ConfigError, InvalidName, SecretInArgument
from saltext.kvmclone.model.base_request import BaseRequest, Origin, file_name
from tests.support.catalogues import catalogue_of

HTTPS = "https://cloud.example.com/latest/debian-12.qcow2"
HTTP = "http://cloud.example.com/debian-12.qcow2"
DIGEST = "ab" * 32
CANARY = "canary-19d"


def asked(
    source: Any = HTTPS, name: Any = "debian12", here: str = "", catalogue: Any = None, **given: Any
) -> tuple[BaseRequest, Origin]:
    return base_keys.request(catalogue or Catalogue(), source, name, given, here)


def refused(*words: Any, **given: Any) -> str:
    with pytest.raises(ConfigError) as told:
        asked(*words, **given)
    return str(told.value)


def test_an_image_and_a_name_are_enough() -> None:
    request, origin = asked()
    assert request == BaseRequest("debian12", HTTPS, url="qemu:///system")
    assert origin == Origin(HTTPS)
    assert origin.is_url
    assert not asked("/srv/d.qcow2")[1].is_url


def test_every_key_reaches_the_request() -> None:
    request, _origin = asked(
        sha256=DIGEST,
        salt="/srv/salt",
        packages="/srv/packages",
        firmware="efi",
        domain_type="qemu",
        timeout="30m",
        pool="fast",
        networks=[{"bridge": "br0"}],
        cpus=1,
        memory="512MiB",
        disks={"vda": {"size": "20GiB"}},
        description="Debian",
        validate_xml=False,
        here="kvm01",
    )
    assert request == BaseRequest(
        name="debian12",
        source=HTTPS,
        digest=f"sha256:{DIGEST}",
        salt="/srv/salt",
        packages="/srv/packages",
        firmware="efi",
        domain_type="qemu",
        pool="fast",
        bridge="br0",
        cpus=1,
        memory=2**29,
        size=20 * 2**30,
        description="Debian",
        timeout=1800.0,
        validate_xml=False,
        url="qemu:///system",
        host="kvm01",
    )


def test_a_profile_gives_host_and_machine_and_arguments_win() -> None:
    keys = {"cpus": 4, "memory": "4GiB", "networks": [{"network": "lan", "model": "e1000"}]}
    keys |= {"disks": {"vda": {"size": "9GiB"}, "vdb": {"size": "1GiB"}}, "ssh_username": "root"}
    provider = {"driver": "libvirt", "host": "kvm01", "pool": "fast"}
    catalogue = catalogue_of(keys, provider)
    request, _origin = asked(catalogue=catalogue, profile="small", cpus=1)
    assert (request.cpus, request.memory, request.pool) == (1, 2**32, "fast")
    assert (request.host, request.network, request.size) == ("kvm01", "lan", 9 * 2**30)
    assert asked(catalogue=catalogue, provider="local-kvm")[0].host == "kvm01"
    cards = [{"network": "lan", "portgroup": "blue"}, {"bridge": "br0"}, {"network": "lan"}]
    request, _origin = asked(catalogue=catalogue_of({"networks": cards}), profile="small")
    assert (request.network, request.portgroup, request.bridge) == ("lan", "blue", "")
    assert request.further_cards == 2
    assert "no profile 'smal'" in refused(catalogue=catalogue, profile="smal")
    assert "belongs on the KVM host 'kvm01'" in refused(
        catalogue=catalogue, profile="small", here="kvm02"
    )


@pytest.mark.parametrize(("hosts", "first"), [(["kvm01", "kvm02"], "kvm01"), ("kvm*", "MINION")])
def test_of_several_hosts_one_has_to_be_named(hosts: Any, first: str) -> None:
    catalogue = catalogue_of({}, {"driver": "libvirt", "hosts": hosts})
    for given in ({"profile": "small"}, {"provider": "local-kvm"}):
        with pytest.raises(ConfigError, match="may be on several hosts: kvm") as told:
            asked(catalogue=catalogue, **given)
        assert told.value.hint == f"Name one: host={first}"
        assert asked(catalogue=catalogue, host="kvm02", **given)[0].host == "kvm02"
    assert asked(catalogue=catalogue, profile="small", here="kvm09")[0].host == "kvm09"


# --- the source ---------------------------------------------------------------------------------


def test_user_information_and_query_are_nowhere_but_in_the_origin() -> None:
    url = f"https://user:{CANARY}@cloud.example.com:8443/d.qcow2?token={CANARY}#x"
    sums = f"https://user:{CANARY}@cloud.example.com/SUMS?token={CANARY}"
    request, origin = asked(url, sha256=sums)
    assert request.source == "https://cloud.example.com:8443/d.qcow2"
    assert request.checksums == "https://cloud.example.com/SUMS"
    assert CANARY not in repr(request) + repr(origin)
    assert (origin.image, origin.checksums) == (url, sums)
    for words in ({"source": url.replace("https", "http")}, {"source": url, "cpus": "many"}):
        assert CANARY not in refused(**words)


@pytest.mark.parametrize(
    "source",
    [
        f"ftp://user:{CANARY}@h/x?token={CANARY}",
        f" ftp://user:{CANARY}@h/x#{CANARY}",
        f"user:{CANARY}@h/x?token={CANARY}",
        f"://user:{CANARY}@h/x",
        f"https://user:{CANARY}@ex℀mple.com/x",
        f"https://user:{CANARY}@[h/x",
        f"https://user:{CANARY}#@h/x",
        f"HTTP://h/a.qcow2?token={CANARY}",
        f"  https://user:{CANARY}@h/?token={CANARY}",
    ],
)
def test_a_source_that_is_refused_is_quoted_without_its_secrets(source: str) -> None:
    assert CANARY not in refused(source)


@pytest.mark.parametrize("start", ["HTTPS://", " https://"])
def test_however_a_url_is_written_its_query_is_in_no_file_name(start: str) -> None:
    request, origin = asked(f"{start}h/a.qcow2?token={CANARY}")
    assert request.source == "https://h/a.qcow2"
    assert origin.is_url
    assert file_name(origin.image) == file_name(f"{start}h/a.qcow2?x") == "a.qcow2"


@pytest.mark.parametrize(
    "sha256",
    [f"https://u:{CANARY}@h\n/x", f"https://u:{CANARY}@ex℀mple.com/x", f"https://[{CANARY}"],
)
def test_what_was_given_as_sha256_is_not_quoted(sha256: str) -> None:
    assert CANARY not in refused(sha256=sha256)


def test_plain_http_needs_a_digest() -> None:
    assert "plain http" in refused(HTTP)
    assert asked(HTTP, sha256=DIGEST)[0].digest == f"sha256:{DIGEST}"
    assert asked(HTTP, sha256="https://x.example/SUMS")[1].checksums == "https://x.example/SUMS"


@pytest.mark.parametrize(
    "sha256", ["http://cloud.example.com/SUMS", "ab" * 31, "md5", "https://", "sha512:" + DIGEST]
)
def test_what_is_no_digest_and_no_https_url_proves_nothing(sha256: str) -> None:
    assert "sha256 is neither a digest" in refused(sha256=sha256)


def test_a_digest_that_became_a_number_is_told_to_be_quoted() -> None:
    assert "in quotes" in refused(sha256=int("1" * 64))


@pytest.mark.parametrize(
    "source",
    ["debian.qcow2", "ftp://x/d.qcow2", "file:///etc/passwd", "https://", "https://x/", ""],
)
def test_what_is_no_source_is_refused(source: str) -> None:
    assert "For example: https://cloud.debian.org" in refused(source)
    assert "no URL or path" in refused(12)
    assert "no URL or path" in refused("/srv/\x1bx")


# --- keys that a base does not take -------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "word"),
    [
        ({"base_domain": "x"}, "base_domain: a base does not take it; it takes sha256"),
        ({"ttl": "12h"}, "ttl: a base does not take it"),
        ({"tags": ["x"]}, "tags: a base does not take it"),
        ({"sha265": DIGEST}, "did you mean 'sha256'?"),
        ({"firmwear": "efi"}, "did you mean 'firmware'?"),
        ({"unheard": 1}, "unheard: there is no such key"),
        ({"firmware": "uefi"}, "'uefi' is not one of auto, bios, efi"),
        ({"domain_type": "xen"}, "'xen' is not one of auto, kvm, qemu"),
        ({"timeout": "soon"}, "'soon' is not a time"),
        ({"salt": "yes"}, "none, repository, or the absolute path of a folder"),
        ({"packages": "srv"}, "the absolute path of a folder"),
        ({"disks": {"vdb": {"size": "1GiB"}}}, "a base has the disk of its image"),
        ({"disks": {"vda": {"pool": "x"}}}, "a base has the disk of its image"),
        ({"networks": []}, "a base has one card"),
        ({"networks": [{"network": "a"}, {"network": "b"}]}, "a base has one card"),
        ({"networks": [{"network": "a", "mac": "52:54:00:12:34:56"}]}, "a base has one card"),
        ({"memory": "much"}, "'much' is not a size"),
    ],
)
def test_no_key_is_passed_over_in_silence(given: dict[str, Any], word: str) -> None:
    assert word in refused(**given)


def test_all_that_is_wrong_is_told_at_once() -> None:
    told = refused(firmware="uefi", timeout="soon")
    assert "firmware" in told
    assert "timeout" in told


def test_a_name_is_one_that_a_machine_can_have() -> None:
    with pytest.raises(InvalidName):
        asked(name="../x")


def test_a_secret_is_refused_before_all_else() -> None:
    with pytest.raises(SecretInArgument):
        asked(password=CANARY, firmware="uefi", source="x")


def test_a_repeated_request_is_known_by_its_fingerprint() -> None:
    one = asked(cpus=1)[0]
    assert one.fingerprint() == asked(cpus=1, here="kvm01")[0].fingerprint()
    assert one.fingerprint() != asked(cpus=2)[0].fingerprint()
