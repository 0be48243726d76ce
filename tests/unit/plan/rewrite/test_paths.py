"""A path of the clone's own: in the same folder, and nobody else's."""

from __future__ import annotations

import os.path
import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from saltext.kvmclone.plan.rewrite import Identity, path_for, rewrite
from saltext.kvmclone.plan.rewrite.result import LONGEST_SOCKET

CLONES = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9.-]{0,30}", fullmatch=True)
BASES = st.one_of(
    st.text(min_size=1, max_size=12), st.sampled_from([".", "..", "/", "a/b", "../x"])
)
FILES = st.text(string.ascii_letters + string.digits + ".-_ ", min_size=0, max_size=40)


@pytest.mark.parametrize(
    ("path", "base", "name", "made"),
    [
        ("/log/web.log", "web", "web1", "/log/web1.log"),
        ("/log/web1.log", "web", "web1", "/log/web1-web1.log"),
        ("/log/web.log", "web1", "web", "/log/web-web.log"),
        ("/log/web-web.log", "web", "db", "/log/db-db.log"),
        ("/log/a.log", "a.log", "web", "/log/web"),
        ("/log/axlog", "a.log", "web", "/log/web-axlog"),
        ("/log/x(.*)y.log", "(.*)", "web", "/log/web-x(.*)y.log"),
        ("/log/(.*).log", "(.*)", r"\1", r"/log/\1.log"),
        ("/log/web.log", "web", "web", "/log/web-web.log"),
        ("/log/..", ".", "web", "/log/webweb"),
        ("/log/", "web", "db", "/log/db-"),
        ("/log/web.log", "", "db", "/log/db-web.log"),
        ("/log/web.log", "web", "../etc", "/log/..-etc.log"),
        ("/log/web", "web", "..", "/log/..-web"),
    ],
)
def test_the_name_is_replaced_as_a_word_or_put_in_front(
    path: str, base: str, name: str, made: str
) -> None:
    assert path_for(path, base, name) == made


UUID = "5eed0000-1111-4222-8333-444455556666"


@pytest.mark.parametrize(
    ("path", "made"),
    [
        (f"/nvram/{UUID}.fd", "/nvram/web1.fd"),
        (f"/nvram/{UUID.upper()}.fd", "/nvram/web1.fd"),
        (f"/run/{UUID.replace('-', '')}.sock", "/run/web1.sock"),
        (f"/run/web-{UUID}.agent", "/run/web-web1.agent"),
        (f"/{UUID}/console.log", f"/{UUID}/web1-console.log"),
        ("/log/web.log", "/log/web1.log"),
    ],
)
def test_a_file_that_is_called_after_the_bases_uuid_is_called_after_the_clone(
    path: str, made: str
) -> None:
    """As oVirt calls them."""
    for spelled in (UUID, UUID.upper(), UUID.replace("-", "")):
        assert path_for(path, "web", "web1", spelled) == made


@given(file=FILES, base=BASES, name=st.one_of(CLONES, BASES))
def test_a_path_never_leaves_its_folder_and_is_never_the_bases(
    file: str, base: str, name: str
) -> None:
    made = path_for(f"/srv/log/{file}", base, name)
    assert os.path.dirname(os.path.normpath(made)) == "/srv/log"
    assert made != f"/srv/log/{file}"


@given(file=FILES, base=BASES, names=st.tuples(CLONES, CLONES))
def test_two_clones_never_get_one_path(file: str, base: str, names: tuple[str, str]) -> None:
    first, second = (path_for(f"/srv/log/{file}", base, name) for name in names)
    assert (first == second) is (names[0] == names[1])


def serial(path: str, kind: str = "file") -> str:
    mode = " mode='bind'" if kind == "unix" else ""
    return f"<serial type='{kind}'><source{mode} path='{path}'/></serial>"


def made_of(*devices: str, name: str = "child") -> tuple[list[str], list[str]]:
    """The paths that a clone of a base with these devices writes, and reasons to refuse it."""
    xml = (
        "<domain type='kvm'><name>mother</name><memory>1024</memory><os><type>hvm</type></os>"
        f"<devices>{''.join(devices)}</devices></domain>"
    )
    rewritten = rewrite(xml, Identity(name, "aaaaaaaa-bbbb-4ccc-8ddd-eeeeeeeeeeee", ()), ())
    return list(rewritten.paths.values()), rewritten.conflicts


def test_two_files_of_the_base_stay_two() -> None:
    paths, _ = made_of(serial("/log/mother-a.log"), serial("/log/a.log"))
    assert paths == ["/log/child-a.log", "/log/child-a-2.log"]


def test_a_file_that_the_base_uses_is_not_given_to_the_clone() -> None:
    paths, _ = made_of(serial("/log/mother.log"), serial("/log/child.log"))
    assert not {"/log/mother.log", "/log/child.log"} & set(paths)


@pytest.mark.parametrize(
    ("path", "refused"),
    [("/dev/null", False), ("/dev/../dev/null", False), ("/dev/shm/mother.log", False),
     ("/dev/tty1", True), ("/srv/../dev/tty1", True), ("/proc/sysrq-trigger", True)],
)  # fmt: skip
def test_a_device_is_no_file_of_ones_own(path: str, refused: bool) -> None:
    _, conflicts = made_of(serial(path))
    assert bool(conflicts) is refused


def test_a_name_that_makes_a_socket_too_long_is_refused() -> None:
    long = "x" * (LONGEST_SOCKET - len("/run/.sock"))
    assert made_of(serial("/run/mother.sock", "unix"), name=long)[1] == []
    _, conflicts = made_of(serial("/run/mother.sock", "unix"), name=long + "x")
    assert f"{LONGEST_SOCKET + 1} bytes" in conflicts[0]
