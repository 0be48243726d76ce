"""What salt-cloud's core asks of the driver, on hosts that stand in for two KVM hosts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import salt.config
import yaml

from saltext.kvmclone.errors import ConfigError, HostUnreachable, InvalidName, NotFound
from saltext.kvmclone.master.cloud_driver import CloudDriver
from saltext.kvmclone.master.fleet import Fleet
from saltext.kvmclone.model.clone import Clone
from saltext.kvmclone.reactor.intake import expect_highstate

PROVIDERS = {
    "kvm-a": {"driver": "libvirt", "url": "qemu+ssh://a/system"},
    "kvm-b": {"driver": "libvirt", "url": "qemu+ssh://b/system", "password": "of-the-host"},
}
PROFILES = {
    "on-a": {"provider": "kvm-a", "base_domain": "base"},
    "on-b": {"provider": "kvm-b", "base_domain": "base"},
}


class Host:
    """What is asked of a KVM host before anything is done to it."""

    def __init__(self, *clones: Clone, down: bool = False) -> None:
        self.clones = {clone.name: clone for clone in clones}
        self.down = down

    def list_clones(self) -> list[Clone]:
        if self.down:
            raise HostUnreachable("down")
        return list(self.clones.values())

    def show(self, name: str) -> Clone:
        if name not in self.clones:
            raise NotFound(name)
        return self.clones[name]


def clone(name: str, uuid: str, profile: str) -> Clone:
    return Clone(name, uuid, "host", "base", profile, "quick", "running", "addressed")


@pytest.fixture
def conf(tmp_path: Path) -> Path:
    """A configuration with two KVM hosts."""
    folders = {"root_dir": str(tmp_path), "pki_dir": str(tmp_path / "pki")}
    (tmp_path / "master").write_text(yaml.safe_dump(folders))
    (tmp_path / "cloud.providers").write_text(yaml.safe_dump(PROVIDERS))
    (tmp_path / "cloud.profiles").write_text(yaml.safe_dump(PROFILES))
    return tmp_path


def asked(conf: Path, alias: str = "kvm-a", **opts: Any) -> CloudDriver:
    providers = {name: {"libvirt": {**keys, "profiles": {}}} for name, keys in PROVIDERS.items()}
    known = {"conf_file": str(conf / "cloud"), "pki_dir": str(conf / "pki"), "providers": providers}
    return CloudDriver({**known, **opts}, expect_highstate, f"{alias}:libvirt")


@pytest.fixture
def hosts(monkeypatch: pytest.MonkeyPatch) -> dict[str, Host]:
    """The two hosts, by url; a test says what is on them."""
    found = {keys["url"]: Host() for keys in PROVIDERS.values()}
    monkeypatch.setattr(Fleet, "host", lambda self, minion, url: found[url])
    return found


# --- a hard map goes by names ---------------------------------------------------------


def test_a_hard_map_does_not_destroy_the_machine_of_that_name_on_another_host(
    conf: Path, hosts: dict[str, Host]
) -> None:
    """The core finds 'web1' on 'a' to be too much, and has both machines of that name destroyed."""
    hosts["qemu+ssh://a/system"] = Host(clone("web1", "1", "on-a"))
    hosts["qemu+ssh://b/system"] = Host(clone("web1", "2", "on-b"))
    for alias in PROVIDERS:
        with pytest.raises(ConfigError, match=r"'web1'.*kvm-a, kvm-b") as refused:
            asked(conf, alias, hard=True).destroy("web1")
        assert "kvm_clone.destroy web1" in refused.value.hint


def test_a_hard_map_does_not_destroy_what_is_called_like_a_provider(
    conf: Path, hosts: dict[str, Host]
) -> None:
    """Made by the runner, say: the core takes the provider's own name for that machine's."""
    hosts["qemu+ssh://a/system"] = Host(clone("kvm-b", "1", "on-a"))
    with pytest.raises(InvalidName, match="'kvm-b'") as refused:
        asked(conf, hard=True).destroy("kvm-b")
    assert "salt-run kvmclone.destroy kvm-b" in refused.value.hint


def test_a_host_that_is_down_does_not_stop_a_hard_map(
    conf: Path, hosts: dict[str, Host], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The core has no machine of it on its list, so it cannot mistake one."""
    hosts["qemu+ssh://a/system"] = Host(clone("web1", "1", "on-a"))
    hosts["qemu+ssh://b/system"] = Host(down=True)
    done: list[str] = []
    monkeypatch.setattr(
        "saltext.kvmclone.master.cloud_driver.destroy",
        lambda host, name: done.append(name) or host.show(name),
    )
    asked(conf, hard=True, sock_dir=str(conf), transport="zeromq").destroy("web1")
    assert done == ["web1"]


@pytest.mark.parametrize("hard", [True, False])
def test_a_map_indented_one_step_short_takes_no_machine_away(
    conf: Path, hosts: dict[str, Host], hard: bool
) -> None:
    """``-m MAP -H`` and ``-m MAP -d``: the core takes the key for the machine of that name."""
    (conf / "web.map").write_text("on-a:\n  - web1:\n    deploy: false\n")
    hosts["qemu+ssh://a/system"] = Host(clone("deploy", "1", "on-a"))
    renders = salt.config.master_config(str(conf / "master"))
    with pytest.raises(ConfigError, match="line 3: 'deploy' is level with 'web1'"):
        asked(conf, **{**renders, "map": str(conf / "web.map"), "hard": hard}).destroy("deploy")


# --- a machine without a profile ------------------------------------------------------


def test_a_machine_without_a_profile_is_made_where_its_provider_says(conf: Path) -> None:
    """``salt-run cloud.create``: the core merges nothing, and names the driver in its own way."""
    machine = {
        "name": "web1",
        "profile": None,
        "provider": "kvm-b:libvirt",
        "driver": "kvm-b:libvirt",
        "base_domain": "base",
        "priv_key": "x",
        "pub_key": "y",
    }
    request, secrets = asked(conf, "kvm-b")._resolved(machine)
    assert (request.url, request.provider) == ("qemu+ssh://b/system", "kvm-b")
    assert secrets.password == "of-the-host"


# --- the command line -----------------------------------------------------------------


@pytest.mark.parametrize(
    ("opts", "said"),
    [({"keep_tmp": True}, "--keep-tmp"), ({"location": "here"}, "--location")],
)
def test_a_word_of_the_command_line_that_does_nothing_is_said_to_do_nothing(
    conf: Path, opts: dict[str, Any], said: str, caplog: pytest.LogCaptureFixture
) -> None:
    machine = {"name": "web1", "profile": "on-a", "provider": "kvm-a:libvirt", **PROFILES["on-a"]}
    asked(conf, **opts)._resolved({**machine, "provider": "kvm-a:libvirt"})
    assert f"{said} is ignored" in caplog.text
    caplog.clear()
    asked(conf)._resolved({**machine, "provider": "kvm-a:libvirt"})
    assert "ignored" not in caplog.text
