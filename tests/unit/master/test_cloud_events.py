"""What is said below ``salt/cloud/NAME/``: what reactors know, and nothing secret."""

from __future__ import annotations

from typing import Any

from saltext.kvmclone.config import resolve
from saltext.kvmclone.master.cloud_events import CloudEvents, deploy_kwargs
from saltext.kvmclone.model.clone import Clone
from saltext.kvmclone.model.redacted_text import HIDDEN
from saltext.kvmclone.model.request import Request

CLONE = Clone(
    "web1", "u", "kvm01", "base", "small", "quick", "running", "addressed", address="192.0.2.7"
)
MACHINE: dict[str, Any] = {
    "name": "web1",
    "profile": "small",
    "provider": "local-kvm:libvirt",
    "driver": "libvirt",
    "base_domain": "base",
    "password": "canary-password",
    "sudo_password": "canary-sudo",
    "private_key": "-----BEGIN PRIVATE KEY----- canary",
    "priv_key": "canary-minion-key",
    "master_pem": "canary-master-key",
    "script_env": {"TOKEN": "canary-token"},
    "grains": {"role": "web"},
    "cpus": 2,
}


#: What Salt 3006's own driver put into ``deploying``, as bench/against_salt_cloud.py hears it.
FIELDS = """
cloud_grains conf_file display_ssh_output file_map force_minion_config has_ssh_agent host
inline_script keep_tmp key_filename known_hosts_file make_minion master_sign_pub_file maxtries
minion_conf name parallel port preflight_cmds preseed_minion_keys salt_host script script_args
script_env sock_dir start_action sudo tmp_dir tty username vm_
"""


class Heard(CloudEvents):
    """Keeps what would be said."""

    def __init__(self, opts: dict[str, Any]) -> None:
        super().__init__(opts, MACHINE)
        self.said: list[tuple[str, dict[str, Any]]] = []

    def _fire(self, word: str, message: str, data: Any) -> None:
        self.said.append((word, dict(data)))


def request() -> Request:
    keys = {name: MACHINE[name] for name in ("base_domain", "password", "script_env", "grains")}
    made, _secrets = resolve.request_and_secrets("web1", keys, "small", "local-kvm", str)
    return made


def told(**filters: Any) -> dict[str, dict[str, Any]]:
    heard = Heard({"filter_events": filters})
    heard.creating()
    heard.requesting(request())
    heard.deploying(deploy_kwargs({}, MACHINE, request(), CLONE))
    heard.deploy_script(CLONE)
    heard.created()
    return dict(heard.said)


def test_nothing_secret_is_said() -> None:
    everything = [
        "password",
        "sudo_password",
        "private_key",
        "priv_key",
        "master_pem",
        "script_env",
    ]
    said = str(told(creating={"keys": everything}, created={"keys": everything}))
    assert "canary" not in said


def test_a_reactor_finds_what_it_always_found() -> None:
    said = told()
    about = {key: MACHINE[key] for key in ("name", "profile", "provider", "driver")}
    assert said["creating"] == about == said["created"]
    assert said["requesting"] == {"kwargs": {"name": "web1", "base_domain": "base"}}
    assert said["deploy_script"] == {"name": "web1", "host": "192.0.2.7"}
    kwargs = said["deploying"]["kwargs"]
    assert set(kwargs) == set(FIELDS.split())
    assert (kwargs["host"], kwargs["salt_host"]) == ("192.0.2.7", "192.0.2.7")
    assert kwargs["vm_"]["cpus"] == 2
    assert kwargs["minion_conf"]["id"] == "web1"


def test_fields_are_added_and_left_out_as_the_cloud_file_says() -> None:
    said = told(creating={"keys": ["cpus"]}, created={"keys": ["name"], "use_defaults": False})
    assert said["creating"]["cpus"] == 2
    assert said["creating"]["name"] == "web1"
    assert said["created"] == {"name": "web1"}


class Bus:
    """Keeps what goes onto the bus."""

    def __init__(self) -> None:
        self.fired: list[tuple[dict[str, Any], str]] = []

    def fire_event(self, data: dict[str, Any], tag: str) -> bool:
        self.fired.append((data, tag))
        return True


def test_what_came_out_of_a_store_is_not_said_wherever_it_stands() -> None:
    events = CloudEvents({"filter_events": {"creating": {"keys": ["inline_script"]}}}, MACHINE)
    events.machine = {**MACHINE, "inline_script": ["echo canary-script"]}
    events.stored = ("canary-script", "1234", "it's a canary")
    bus = events._bus = Bus()
    deep = {"minion_conf": {"deep": [{"pin": 1234}], "port": 4506}, "args": "-x it's a canary"}
    events.creating()
    events.deploying(deep)
    (creating, _), (deploying, tag) = bus.fired
    assert "canary" not in str(creating)
    assert (creating["name"], creating["profile"]) == ("web1", "small")
    assert tag == "salt/cloud/web1/deploying"
    conf = {"deep": [{"pin": HIDDEN}], "port": 4506}
    assert deploying["kwargs"] == {"minion_conf": conf, "args": "-x <hidden>"}
