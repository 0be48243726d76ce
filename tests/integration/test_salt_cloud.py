"""``salt-cloud`` and everything that its command line can ask of a driver, on tiny guests."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator

import pytest

from lab.lab import Lab, connection
from tests.support.cloud_world import ALIAS, CloudWorld, cloud_world

pytestmark = pytest.mark.guest


@pytest.fixture(scope="module")
def made(lab: Lab) -> Iterator[CloudWorld]:
    with cloud_world(lab, "sc") as world:
        yield world


@pytest.fixture
def world(made: CloudWorld) -> Iterator[CloudWorld]:
    yield made
    made.tidy()


def test_a_machine_lives_through_every_action_of_salt_cloud(world: CloudWorld) -> None:
    before = world.left()
    name = world.name("life")
    made = world.cloud("-p", "tiny", name)
    assert made.retcode == 0, made
    clone = made.data[name]
    assert clone["stage"] == "addressed"
    assert clone["deployed"] is False
    assert clone["address"]

    assert world.listed()[name] == {
        "id": clone["uuid"],
        "image": world.base,
        "size": "",
        "state": "running",
        "private_ips": [],
        "public_ips": [clone["address"]],
    }
    full = world.listed("-F")[name]
    assert (full["base"], full["stage"], full["state"]) == (world.base, "addressed", "running")

    shown = world.cloud("-a", "show_instance", "-y", name)
    assert shown.data[ALIAS]["libvirt"][name]["uuid"] == clone["uuid"]
    stopped = world.cloud("-a", "stop", "-y", name)
    assert stopped.data[ALIAS]["libvirt"][name]["state"] == "stopped"
    assert world.state(name) == "off"
    assert world.listed()[name]["state"] == "stopped"
    started = world.cloud("-a", "start", "-y", name)
    assert started.data[ALIAS]["libvirt"][name]["state"] == "running"
    rebooted = world.cloud("-a", "reboot", "-y", name)
    assert rebooted.retcode == 0, rebooted
    assert world.state(name) == "running"

    command = world.salt.command("salt-cloud", "--out=quiet", "-l", "error", "-d", name)
    for answer, kept in (("n", True), ("y", False)):
        asked = subprocess.run(
            command,
            input=f"{answer}\n",
            capture_output=True,
            text=True,
            env=world.salt.environment("command"),
            check=False,
        )
        assert name in asked.stdout, "what will be destroyed is shown before"
        assert (name in world.domains()) is kept
    assert world.left() == before


def test_functions_and_lists_know_bases_and_clones_apart(world: CloudWorld) -> None:
    name = world.name("one")
    assert world.cloud("-p", "tiny", name).retcode == 0
    world.settings(**{"query.selection": ["state", "public_ips"]})
    assert set(world.listed("-S")[name]) == {"state", "public_ips"}
    images = world.cloud("--list-images", ALIAS).data[ALIAS]["libvirt"]
    assert images[world.base]["state"] == "shutoff"
    assert images[world.base]["disks"][0]["format"] == "qcow2"
    assert name not in images
    sizes = world.cloud("--list-sizes", ALIAS).data[ALIAS]["libvirt"]
    assert sizes[world.base] == {"name": world.base, "cpus": 1, "memory": 128 * 2**20}
    places = world.cloud("--list-locations", ALIAS).data[ALIAS]["libvirt"]
    assert places["qemu:///system"]["url"] == "qemu:///system"
    for function in ("list_nodes", "list_nodes_full", "list_nodes_select"):
        told = world.cloud("-f", function, ALIAS)
        assert set(world.ours(told.data[ALIAS]["libvirt"])) == {name}, told
    assert world.base in world.cloud("-f", "avail_images", ALIAS).data[ALIAS]["libvirt"]
    assert world.cloud("--list-providers").data == {ALIAS: {"libvirt": {}}}
    assert "tiny" in world.cloud("--list-profiles", ALIAS).data


@pytest.mark.parametrize("parallel", [(), ("-P",)], ids=["in turn", "at once"])
def test_a_map_makes_what_is_missing_and_takes_it_away_again(
    world: CloudWorld, parallel: tuple[str, ...]
) -> None:
    before = world.left()
    names = [world.name("web1"), world.name("web2")]
    path = world.map_file(
        "webs", {"tiny": [names[0], {names[1]: {"cpus": 2, "requires": [names[0]]}}]}
    )
    made = world.cloud("-m", path, "-y", *parallel)
    assert made.retcode == 0, made
    assert {made.data[name]["stage"] for name in names} == {"addressed"}
    assert set(world.listed()) == set(names)
    again = world.cloud("-m", path, "-y", *parallel)
    assert again.retcode == 0, again
    assert {again.data[name]["Message"] for name in names} == {"Already running."}
    stopped = world.cloud("-m", path, "-a", "stop", "-y")
    assert stopped.retcode == 0, stopped
    assert [world.state(name) for name in names] == ["off", "off"]
    started = world.cloud("-m", path, "-a", "start", "-y")
    assert [world.state(name) for name in names] == ["running", "running"], started
    gone = world.cloud("-m", path, "-d", "-y", *parallel)
    assert gone.retcode == 0, gone
    assert world.left() == before


# --- keys ---------------------------------------------------------------------------------------


def test_the_key_of_a_minion_that_lives_is_put_back_and_nothing_is_cloned(
    world: CloudWorld,
) -> None:
    world.profile("deploys", password="never used")
    taken = [world.name(word) for word in ("single", "map", "parallel1", "parallel2")]
    live = {name: world.accept(name, f"the key of {name}\n") for name in taken}
    before = world.left()
    asked = [
        world.cloud("-p", "deploys", taken[0]),
        world.cloud("-m", world.map_file("one", {"deploys": [taken[1]]}), "-y"),
        world.cloud("-m", world.map_file("two", {"deploys": taken[2:]}), "-y", "-P"),
    ]
    assert asked[0].retcode == 1
    assert "KeyConflict" in asked[0].stderr
    assert "KeyConflict" in asked[1].data[taken[1]]["Error"]
    for name in taken[2:]:
        assert "KeyConflict" in asked[2].data[name]["Error"]
    for name, path in live.items():
        assert path.read_text() == f"the key of {name}\n"
    assert world.left() == before


def test_a_pending_key_of_that_id_stops_the_create_as_well(world: CloudWorld) -> None:
    world.profile("deploys", password="never used")
    name = world.name("pending")
    path = world.salt.folder / "pki/master/minions_pre" / name
    path.write_text("somebody knocks\n")
    before = world.left()
    refused = world.cloud("-p", "deploys", name)
    assert refused.retcode == 1
    assert "KeyConflict" in refused.stderr
    assert world.left() == before
    assert path.read_text() == "somebody knocks\n"


@pytest.mark.parametrize(
    "keys",
    [
        {"base_domain": "there-is-none"},
        {"append_domain": "example.com", "base_domain": "there-is-none"},
        {"minion": {"id": "sc-other"}, "base_domain": "there-is-none"},
        {"script": "no-such-script"},
        {"base_domain": None},
    ],
    ids=["no base", "append_domain", "minion id", "no script", "base not named"],
)
def test_a_create_that_cannot_begin_leaves_no_key(world: CloudWorld, keys: dict[str, str]) -> None:
    world.profile("wrong", password="never used", **keys)
    before = world.left()
    refused = world.cloud("-p", "wrong", world.name("never"))
    assert refused.retcode == 1, refused
    assert "KeyError" not in refused.stderr
    assert " Hint: " in refused.stderr
    assert world.left() == before


def test_the_key_goes_with_the_machine_and_stays_with_one_that_stays(world: CloudWorld) -> None:
    name, above = world.name("below"), world.name("above")
    assert world.cloud("-p", "tiny", name).retcode == 0
    assert world.cloud("-a", "stop", "-y", name).retcode == 0
    world.profile("on-it", base_domain=name, deploy=False)
    assert world.cloud("-p", "on-it", above).retcode == 0
    key = world.accept(name, "accepted by hand\n")
    for parallel in ((), ("-P",)):
        refused = world.cloud("-d", "-y", *parallel, name)
        assert refused.retcode != 0, refused
        assert above in refused.stderr
        assert name in world.domains()
        assert key.read_text() == "accepted by hand\n"
    assert world.cloud("-d", "-y", above).retcode == 0
    gone = world.cloud("-d", "-y", name)
    assert gone.retcode == 0, gone
    assert gone.data[ALIAS]["libvirt"][name]["name"] == name
    assert name not in world.domains()
    assert not key.exists()


def test_a_minion_whose_id_begins_like_the_machine_keeps_its_key(world: CloudWorld) -> None:
    name = world.name("short")
    assert world.cloud("-p", "tiny", name).retcode == 0
    other = world.accept(f"{name}.example.com", "another minion\n")
    gone = world.salt.execute(world.salt.command("salt-cloud", "-l", "warning", "-d", "-y", name))
    assert gone.retcode == 0, gone
    assert name not in world.domains()
    assert other.read_text() == "another minion\n"
    assert f"{name}.example.com" in gone.stderr


# --- whose machines -----------------------------------------------------------------------------


def test_a_hard_map_takes_clones_only(world: CloudWorld) -> None:
    # A second name for the same daemon must not make the map's own machines strangers.
    world.provider("a-twin")
    extra, kept = world.name("extra"), world.name("kept")
    foreign = world.lab.tiny_base(world.name("foreign"))
    assert world.cloud("-p", "tiny", extra, kept).retcode == 0
    chosen = world.map_file("hard", {"tiny": [kept]})
    forbidden = world.cloud("-m", chosen, "-H", "-y")
    assert forbidden.retcode != 0
    assert {extra, kept} <= world.domains()
    if set(world.cloud("-Q").data[ALIAS]["libvirt"]) != {extra, kept}:
        pytest.skip("somebody else's clones are here, and a hard map would take them")
    world.settings(enable_hard_maps=True)
    told = world.salt.execute(
        world.salt.command("salt-cloud", "-l", "error", "-m", chosen, "-H", "-y")
    )
    left = {name for name in world.domains() if name.startswith("sc-")}
    assert left == {kept, foreign, world.base}, told


def test_a_host_that_is_down_is_named_and_the_others_list(world: CloudWorld) -> None:
    name = world.name("up")
    assert world.cloud("-p", "tiny", name).retcode == 0
    world.provider("dead-kvm", url="qemu+tcp://127.0.0.1:1/system")
    for query in ("-Q", "-F"):
        told = world.cloud(query)
        assert told.retcode == 0
        assert set(told.data) == {ALIAS}
        assert set(world.ours(told.data[ALIAS]["libvirt"])) == {name}
        assert "dead-kvm" in told.stderr
    assert world.cloud("-d", "-y", name).retcode == 0
    assert name not in world.domains()


def test_a_machine_of_somebody_else_is_neither_listed_nor_touched(world: CloudWorld) -> None:
    assert world.base not in world.listed()
    missing = world.cloud("-d", "-y", world.base)
    assert world.base in world.domains()
    assert "No machines were found" in missing.stdout
    taken = world.cloud("-p", "tiny", world.base)
    assert taken.retcode == 1
    assert world.base in taken.stderr
    assert world.state(world.base) == "off"


def test_a_paused_machine_is_listed_as_such(world: CloudWorld) -> None:
    name = world.name("paused")
    assert world.cloud("-p", "tiny", name).retcode == 0
    with connection() as conn:
        conn.lookupByName(name).suspend()
    assert world.listed()[name]["state"] == "paused"


def test_a_clone_of_salts_own_driver_is_adopted(world: CloudWorld) -> None:
    name = world.name("old")
    world.lab.tiny_base(name)
    with connection() as conn:
        text = conn.lookupByName(name).XMLDesc()
        conn.defineXML(
            text.replace("</name>", f"</name><description>Cloned from {world.base}</description>")
        )
    assert name not in world.listed()
    adopted = world.cloud("-f", "adopt", ALIAS, f"name={name}")
    assert adopted.retcode == 0, adopted
    assert world.listed()[name]["image"] == world.base
    gone = world.cloud("-d", "-y", name)
    assert gone.retcode == 0, gone
    assert name not in world.domains()


# --- what is asked for --------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["sc_x", "../sc-x", "sc/x", "-sc", "local-kvm", "libvirt"])
def test_a_name_that_cannot_be_is_refused_before_anything_is_made(
    world: CloudWorld, name: str
) -> None:
    world.profile("deploys", password="never used")
    before = world.left()
    path = world.map_file("names", {"deploys": [name]})
    asked = world.cloud("-m", path, "-y")
    assert asked.retcode != 0 or "Error" in asked.data[name], asked
    assert world.left() == before
    assert not list((world.salt.folder / "pki/master").glob("*sc-x*"))


def test_a_slip_in_a_map_is_an_error_not_a_different_machine(world: CloudWorld) -> None:
    name = world.name("slip")
    path = world.map_file("slip", {"tiny": [{name: {"clone_strategi": "full"}}]})
    asked = world.cloud("-m", path, "-y")
    assert "clone_strategy" in asked.data[name]["Error"]
    assert name not in world.domains()


def test_a_map_indented_one_step_short_makes_no_machine_of_the_key(world: CloudWorld) -> None:
    before = world.left()
    name = world.name("short")
    path = world.salt.write_cloud("maps", "short.map", f"tiny:\n  - {name}:\n    deploy: false\n")
    asked = world.cloud("-m", path, "-y")
    for machine in (name, "deploy"):
        assert "line 3: 'deploy' is level with" in asked.data[machine]["Error"]
    assert not {name, "deploy"} & world.domains()
    assert world.left() == before


def test_without_deploy_by_word_of_the_command_line_no_key_is_made(world: CloudWorld) -> None:
    world.profile("deploys", password="never used", ip_source="ip-learning")
    name = world.name("bare")
    made = world.cloud("-p", "deploys", "--no-deploy", name)
    assert made.retcode == 0, made
    assert made.data[name]["stage"] == "addressed"
    assert not world.key(name).exists()


def test_salt_clouds_own_cache_is_kept_where_it_is_asked_for(world: CloudWorld) -> None:
    world.settings(update_cachedir=True, cachedir=str(world.salt.folder / "cloud-cache"))
    name = world.name("cached")
    cached = world.salt.folder / "cloud-cache/active/libvirt" / ALIAS / f"{name}.p"
    assert world.cloud("-p", "tiny", name).retcode == 0
    assert cached.exists()
    cached.unlink()
    assert name in world.listed("-F")
    assert cached.exists()
    assert world.cloud("-d", "-y", name).retcode == 0
    assert not cached.exists()


#: What Salt's own functions, states and runner called ``cloud`` do.
CLIENT = """
import json, sys, salt.cloud
conf, provider, name = sys.argv[1:]
client = salt.cloud.CloudClient(path=conf)
made = client.create(provider, [name], grains={"a": "b"})
listed = client.query()
stopped = client.action("stop", names=[name])
gone = client.destroy([name])
print("ANSWER", json.dumps([made, listed, stopped, gone], default=str))
"""


def test_what_calls_salt_cloud_as_a_library_needs_no_profile(world: CloudWorld) -> None:
    """The core merges no provider then; its keys, with the url, count all the same."""
    world.provider("kept", base_domain=world.base, deploy=False, ip_source="ip-learning")
    before = world.left()
    name = world.name("library")
    told = subprocess.run(
        [
            str(world.salt.venv / "bin/python"),
            "-c",
            CLIENT,
            str(world.salt.conf / "cloud"),
            "kept",
            name,
        ],
        capture_output=True,
        text=True,
        env=world.salt.environment("command"),
        check=False,
    )
    (answer,) = [line for line in told.stdout.splitlines() if line.startswith("ANSWER")] or [""]
    assert answer, told
    made, listed, stopped, gone = json.loads(answer.partition(" ")[2])
    assert made[name]["stage"] == "addressed", made
    (alias,) = [alias for alias, drivers in listed.items() if name in drivers["libvirt"]]
    assert stopped[alias]["libvirt"][name]["state"] == "stopped"
    assert gone[alias]["libvirt"][name]["name"] == name
    assert world.left() == before
