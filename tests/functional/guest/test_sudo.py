"""Commands and files through a real sudo."""

from __future__ import annotations

import re

import pytest

from saltext.kvmclone import errors
from tests.support.sshd import PASSWORD, USER

pytestmark = pytest.mark.slow

pytest.importorskip("paramiko")


# --- sudo -------------------------------------------------------------------------------

RULES = {
    "nopasswd": f"{USER} ALL=(ALL) NOPASSWD: ALL\n",
    "password": f"{USER} ALL=(ALL) ALL\nDefaults:{USER} timestamp_timeout=0\n",
    "remembered": f"{USER} ALL=(ALL) ALL\nDefaults:{USER} timestamp_type=global\n",
}
TERMINALS = {
    "plain": "",
    "use_pty": f"Defaults:{USER} use_pty\n",
    "requiretty": f"Defaults:{USER} requiretty\n",
}


@pytest.mark.parametrize("terminal", TERMINALS)
@pytest.mark.parametrize("tty", [True, False], ids=["tty", "notty"])
@pytest.mark.parametrize("rule", RULES)
def test_sudo_runs_commands_and_moves_files(sshd, enter, sudoers, tmp_path, rule, tty, terminal):
    if terminal == "requiretty" and not tty:
        pytest.skip("has a test of its own")
    sudoers(RULES[rule] + TERMINALS[terminal])
    sshd.start()
    with enter(sudo=True, tty=tty) as channel:
        assert channel.run("id -u", timeout=20).output == "0\n"
        assert channel.run("id -un", timeout=20, as_root=False).output == f"{USER}\n"
        assert channel.run("cat; exit 7", timeout=20).status == 7
        # Bytes that a terminal would echo, cut or take as a command.
        data = bytes(range(256)) * 40 + b"x" * 300_000 + b"\x03\x04\r\n"
        path = tmp_path / "file"
        channel.write(str(path), data, 0o600)
        assert path.read_bytes() == data
        assert path.stat().st_uid == 0
        assert channel.read(str(path)) == data
        result = channel.run("cat; echo after", timeout=20, stdin=b"line one\nline two\n")
        assert result.output == "line one\nline two\nafter\n"


@pytest.mark.parametrize("tty", [True, False], ids=["tty", "notty"])
@pytest.mark.parametrize("rule", RULES)
def test_the_sudo_password_shows_nowhere(sshd, enter, sudoers, rule, tty):
    sudoers(RULES[rule])
    sshd.start()
    with enter(sudo=True, tty=tty) as channel:
        result = channel.run(
            "cat; env; cat /proc/[0-9]*/cmdline | tr '\\0' ' '", timeout=20, stdin=b"payload\n"
        )
    assert result.output.startswith("payload\n")
    assert PASSWORD not in result.output + result.error + sshd.log


def test_a_sudo_password_of_its_own_is_used(sshd, enter, sudoers):
    sudoers(RULES["password"])
    sshd.start()
    with (
        enter(sudo=True, tty=False, sudo_password="wrong canary") as channel,
        pytest.raises(errors.LoginFailed, match="refused the password") as caught,
    ):
        channel.run("true", timeout=20)
    assert "canary" not in str(caught.value)


@pytest.mark.parametrize("tty", [True, False], ids=["tty", "notty"])
def test_sudo_that_is_not_allowed_says_so(sshd, enter, sudoers, tty):
    sudoers("# nothing\n")
    sshd.start()
    with enter(sudo=True, tty=tty) as channel, pytest.raises(errors.LoginFailed) as caught:
        channel.run("true", timeout=20)
    assert "sudo" in caught.value.message


def test_requiretty_without_a_terminal_names_the_way_out(sshd, enter, sudoers):
    sudoers(RULES["nopasswd"] + TERMINALS["requiretty"])
    sshd.start()
    with enter(sudo=True, tty=False) as channel, pytest.raises(errors.LoginFailed) as caught:
        channel.run("true", timeout=20)
    assert re.search("tty: true", caught.value.hint)
