"""A clone's interface takes nothing along that only its base may have."""

from __future__ import annotations

import pytest
from lxml import etree

from saltext.kvmclone.plan.rewrite import Identity, NewInterface, Rewritten, rewrite

MAC = "52:54:00:00:00:01"


def rewritten(interfaces: str, *cards: NewInterface) -> Rewritten:
    xml = (
        "<domain type='qemu'><name>base</name><uuid>11111111-2222-3333-4444-555555555555</uuid>"
        f"<memory>1024</memory><vcpu>1</vcpu><devices>{interfaces}</devices></domain>"
    )
    identity = Identity("web1", "aaaaaaaa-bbbb-4ccc-8ddd-eeeeeeeeeeee", (MAC,))
    return rewrite(xml, identity, (), cards=cards or (NewInterface(MAC),))


def interface(kind: str, inside: str = "", **attributes: str) -> str:
    more = "".join(f" {name}='{value}'" for name, value in attributes.items())
    return f"<interface type='{kind}'{more}><mac address='52:54:00:aa:bb:cc'/>{inside}</interface>"


REFUSED = {
    "hostdev": ("", "hostdev"),
    "vhostuser": ("<source type='unix' path='/run/s' mode='client'/>", "vhostuser"),
    "vdpa": ("<source dev='/dev/vhost-vdpa-0'/>", "vdpa"),
    "vds": ("<source switchid='x'/>", "vds"),
    "server": ("<source address='127.0.0.1' port='5555'/>", "server"),
    "client": ("<source address='127.0.0.1' port='5555'/>", "client"),
    "udp": ("<source address='127.0.0.1' port='5555'/>", "udp"),
    "direct": ("<source dev='eth0' mode='passthrough'/>", "passthrough"),
    "bridge": (
        "<source bridge='br0'/><virtualport type='midonet'>"
        "<parameters interfaceid='0b2d64da-3d0e-431e-afdd-804415d6ebbb'/></virtualport>",
        "MidoNet",
    ),
    "ethernet": ("<target dev='mytap0' managed='no'/>", "mytap0"),
    "user": (
        "<backend type='passt'/><portForward proto='tcp'><range start='2022' to='22'/>"
        "</portForward>",
        "2022",
    ),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_a_connection_that_only_one_machine_can_have_is_refused(kind: str) -> None:
    inside, word = REFUSED[kind]
    (conflict,) = rewritten(interface(kind, inside)).conflicts
    assert word in conflict
    assert (
        "networks: [{network: default}], or leave it out of the clone: leave_out: [interface0]"
        in (conflict)
    )


def test_a_card_leaves_its_team_when_its_partner_is_connected_elsewhere() -> None:
    pair = interface(
        "network",
        "<source network='lan'/><teaming type='persistent'/><alias name='ua-standby'/>",
    ) + interface(
        "network",
        "<source network='fast'/><teaming type='transient' persistent='ua-standby'/>",
    )
    together = rewritten(pair, NewInterface(MAC), NewInterface(MAC))
    assert together.xml.count("<teaming") == 2
    apart = rewritten(pair, NewInterface(MAC, network="other"), NewInterface(MAC))
    assert "<teaming" not in apart.xml
    assert apart.changes["interface 1 teaming"] == {"old": "ua-standby", "new": None}


@pytest.mark.parametrize("kind", REFUSED)
def test_the_same_base_can_be_cloned_onto_another_network(kind: str) -> None:
    inside, word = REFUSED[kind]
    made = rewritten(interface(kind, inside, managed="yes"), NewInterface(MAC, network="lan"))
    assert made.conflicts == []
    assert '<source network="lan"/>' in made.xml
    assert word not in made.xml.partition("<interface")[2] or word == "user"
    assert "managed" not in made.xml


def test_a_fixed_address_on_the_hosts_side_is_refused() -> None:
    inside = "<source><ip address='10.0.0.1' prefix='24'/></source>"
    assert "fixed address" in rewritten(interface("ethernet", inside)).conflicts[0]


@pytest.mark.parametrize(
    ("kind", "inside"),
    [
        ("network", "<source network='default'/>"),
        ("bridge", "<source bridge='br0'/>"),
        ("user", ""),
        ("user", "<backend type='passt' logFile='/var/log/base-passt.log'/>"),
        ("direct", "<source dev='eth0' mode='bridge'/>"),
        ("internal", "<source name='x'/>"),
        ("mcast", "<source address='230.0.0.1' port='5555'/>"),
        ("ethernet", "<target dev='vnet7'/>"),
        ("null", ""),
    ],
)
def test_a_connection_that_many_can_have_is_kept(kind: str, inside: str) -> None:
    made = rewritten(interface(kind, inside))
    assert made.conflicts == []
    assert f'type="{kind}"' in made.xml
    for stale in ("aa:bb:cc", "vnet7", "base-passt"):
        assert stale not in made.xml


def test_a_filter_is_kept_without_the_addresses_of_the_base() -> None:
    inside = (
        "<source network='default'/><filterref filter='clean-traffic'>"
        "<parameter name='IP' value='10.9.8.7'/><parameter name='MAC' value='52:54:00:aa:bb:cc'/>"
        "<parameter name='CTRL_IP_LEARNING' value='dhcp'/></filterref>"
    )
    made = rewritten(interface("network", inside))
    assert made.conflicts == []
    assert "10.9.8.7" not in made.xml
    assert "CTRL_IP_LEARNING" in made.xml
    assert made.changes["interface 0 filter IP"] == {"old": "10.9.8.7", "new": None}


def test_an_address_in_a_filter_of_ones_own_is_kept_and_told() -> None:
    inside = (
        "<source network='default'/><filterref filter='ours'>"
        "<parameter name='IP_ALIAS' value='10.9.8.7'/>"
        "<parameter name='DHCPSERVER' value='10.9.8.1'/></filterref>"
    )
    made = rewritten(interface("network", inside))
    assert made.conflicts == []
    assert made.warnings == [
        "The filter of interface 0 keeps IP_ALIAS='10.9.8.7', as the base has it. If that is for "
        "one machine, take it out of the base's definition."
    ]


def test_a_guest_is_not_told_to_be_called_like_its_base() -> None:
    inside = "<backend type='passt' hostname='base' fqdn='base.test'/>"
    made = rewritten(interface("user", inside))
    assert made.conflicts == []
    assert "base" not in made.xml.partition("<devices>")[2]
    assert made.changes["interface 0 fqdn"] == {"old": "<hidden>", "new": None}


@pytest.mark.parametrize(
    "said",
    [
        "52:54:00:AA:BB:CC",
        "52-54-00-aa-bb-cc",
        "525400aabbcc",
        "5254.00aa.bbcc",
        "01-52-54-00-aa-bb-cc",
    ],
)
def test_an_address_that_the_kernel_is_told_is_renewed_however_it_is_written(said: str) -> None:
    card = interface("network", "<source network='default'/>")
    xml = (
        "<domain type='qemu'><name>base</name><uuid>11111111-2222-3333-4444-555555555555</uuid>"
        "<memory>1024</memory><vcpu>1</vcpu><os><type>hvm</type>"
        f"<cmdline>root=/dev/vda BOOTIF={said} quiet</cmdline></os>"
        f"<devices>{card}</devices></domain>"
    )
    identity = Identity("web1", "aaaaaaaa-bbbb-4ccc-8ddd-eeeeeeeeeeee", (MAC,))
    made = rewrite(xml, identity, (), cards=(NewInterface(MAC),))
    assert made.conflicts == []
    words = etree.fromstring(made.xml).findtext("./os/cmdline").split()
    told = words[1].removeprefix("BOOTIF=")
    assert [char for char in told if not char.isalnum()] == [c for c in said if not c.isalnum()]
    assert "".join(filter(str.isalnum, told)).lower().endswith(MAC.replace(":", ""))


@pytest.mark.parametrize("said", ["52:54:00:AA:BB:CC", "525400aabbcc", "01-52-54-00-aa-bb-cc"])
def test_an_address_of_the_base_is_found_however_it_is_written(said: str) -> None:
    card = interface("network", "<source network='default'/>")
    xml = (
        "<domain type='qemu'><name>base</name><uuid>11111111-2222-3333-4444-555555555555</uuid>"
        f"<memory>1024</memory><vcpu>1</vcpu><os><type>hvm</type><init>/x-{said}</init></os>"
        f"<devices>{card}</devices></domain>"
    )
    identity = Identity("web1", "aaaaaaaa-bbbb-4ccc-8ddd-eeeeeeeeeeee", (MAC,))
    (conflict,) = rewrite(xml, identity, (), cards=(NewInterface(MAC),)).conflicts
    assert "a MAC address of the base" in conflict


def test_what_the_guest_sees_of_a_card_stays_when_it_is_connected_anew() -> None:
    inside = (
        "<source bridge='br0'/><virtualport type='openvswitch'/><vlan><tag id='7'/></vlan>"
        "<target dev='tap7'/><model type='e1000'/><boot order='2'/><alias name='ua-lan'/>"
        "<address type='pci' domain='0x0000' bus='0x01' slot='0x00' function='0x0'/>"
    )
    card = NewInterface(MAC, network="lan", cannot=frozenset(["vlan"]))
    made = rewritten(interface("bridge", inside), card)
    for kept in ('<model type="e1000"/>', "<boot", "ua-lan", 'bus="0x01"'):
        assert kept in made.xml
    for stale in ("br0", "openvswitch", "vlan", "tap7"):
        assert stale not in made.xml
    dropped = {key: change["old"] for key, change in made.changes.items() if "interface" in key}
    del dropped["interface 0 mac"]
    assert dropped == {
        "interface 0": "bridge br0",
        "interface 0 virtualport": "openvswitch",
        "interface 0 vlan": "tag 7",
        "interface 0 target": "tap7",
    }
    (warning,) = made.warnings
    assert "without its <vlan> (tag 7), which network lan cannot give it" in warning


#: Whatever an interface may have beside where it is connected.
EVERYTHING = (
    "<virtualport type='openvswitch'/><vlan trunk='yes'><tag id='100'/><tag id='200'/></vlan>"
    "<bandwidth><inbound average='1000' peak='5000' burst='1024'/><outbound average='1000'/>"
    "</bandwidth><filterref filter='clean-traffic'/><mtu size='9000'/><port isolated='yes'/>"
    "<link state='down'/><model type='virtio'/><driver name='vhost' queues='4'/><boot order='2'/>"
    "<rom bar='off'/><coalesce><rx><frames max='7'/></rx></coalesce><tune><sndbuf>0</sndbuf></tune>"
    "<backend tap='/dev/net/tun' vhost='/dev/vhost-net'/><alias name='ua-lan'/>"
    "<address type='pci' domain='0x0000' bus='0x01' slot='0x00' function='0x0'/>"
)


def inside_of(made: Rewritten) -> dict[str, str]:
    """Every child of the interface by its name, but for its MAC address."""
    (element,) = etree.fromstring(made.xml).findall("./devices/interface")
    return {
        str(child.tag): etree.tostring(child, encoding="unicode")
        for child in element
        if child.tag != "mac"
    }


@pytest.mark.parametrize(
    ("kind", "source", "card"),
    [
        (
            "network",
            "<source network='lan' portgroup='vlan-03'/>",
            NewInterface(MAC, network="lan"),
        ),
        ("bridge", "<source bridge='ovs'/>", NewInterface(MAC, bridge="ovs")),
        ("bridge", "<source bridge='ovs'/>", NewInterface(MAC)),
    ],
)
def test_everything_of_a_card_is_kept_where_it_is(
    kind: str, source: str, card: NewInterface
) -> None:
    untouched = rewritten(interface(kind, source + EVERYTHING))
    made = rewritten(interface(kind, source + EVERYTHING), card)
    assert made.conflicts == made.warnings == []
    assert inside_of(made) == inside_of(untouched)
    assert len(inside_of(made)) == 17
    assert {key for key in made.changes if "interface" in key} == {"interface 0 mac"}


def test_what_keeps_a_guest_in_its_place_is_kept_anywhere() -> None:
    base = interface("network", "<source network='lan' portgroup='vlan-03'/>" + EVERYTHING)
    made = rewritten(base, NewInterface(MAC, bridge="br0"))
    gone = {"virtualport": "openvswitch", "mtu": "9000", "portgroup": "vlan-03"}
    assert {tag: made.changes[f"interface 0 {tag}"]["old"] for tag in gone} == gone
    assert made.changes["interface 0 backend"]["new"] is None
    kept = set(inside_of(rewritten(base))) - {"virtualport", "mtu", "backend"}
    assert set(inside_of(made)) == kept
    for tag in ("vlan", "bandwidth", "filterref", "port", "link", "driver", "boot", "rom"):
        assert inside_of(made)[tag] == inside_of(rewritten(base))[tag]


def test_a_share_of_the_old_networks_bandwidth_is_no_share_of_the_new_one() -> None:
    for limits, left in (
        ("<inbound average='1000' floor='200'/>", '<inbound average="1000"/>'),
        ("<inbound floor='200'/>", "<bandwidth/>"),
    ):
        base = interface("network", f"<source network='a'/><bandwidth>{limits}</bandwidth>")
        made = rewritten(base, NewInterface(MAC, network="b"))
        assert left in made.xml
        assert "floor" not in made.xml
        assert made.changes["interface 0 bandwidth floor"] == {"old": "200", "new": None}
        assert "floor" in rewritten(base, NewInterface(MAC, network="a")).xml


def test_a_portgroup_is_left_where_it_is_without_a_wish_and_goes_where_none_is_wanted() -> None:
    base = interface("network", "<source network='ovs-network' portgroup='vlan-03'/>")
    for wish in (NewInterface(MAC), NewInterface(MAC, network="ovs-network")):
        made = rewritten(base, wish)
        assert 'portgroup="vlan-03"' in made.xml
        assert "interface 0 portgroup" not in made.changes
    for wish in (NewInterface(MAC, portgroup=""), NewInterface(MAC, network="lan")):
        made = rewritten(base, wish)
        assert "portgroup" not in made.xml
        assert made.changes["interface 0 portgroup"] == {"old": "vlan-03", "new": None}


def test_a_portgroup_is_chosen() -> None:
    base = interface("network", "<source network='lan' portgroup='red'/>")
    for card, old in (
        (NewInterface(MAC, portgroup="blue"), "lan"),
        (NewInterface(MAC, network="lan", portgroup="blue"), "lan"),
        (NewInterface(MAC, network="wan", portgroup="blue"), "wan"),
    ):
        made = rewritten(base, card)
        assert f'<source network="{old}" portgroup="blue"/>' in made.xml
        assert made.changes["interface 0 portgroup"] == {"old": "red", "new": "blue"}


def test_what_another_model_cannot_take_over_is_shown() -> None:
    made = rewritten(
        interface("network", "<source network='lan'/>" + EVERYTHING),
        NewInterface(MAC, model="e1000e"),
    )
    gone = {key: made.changes[f"interface 0 {key}"]["old"] for key in ("driver", "rom", "address")}
    assert gone["driver"] == "name=vhost, queues=4"
    assert gone["rom"] == "off"
    assert "bus=0x01" in gone["address"]
    for kept in ("filterref", "vlan", "bandwidth", "mtu", "virtualport", "boot", "alias"):
        assert kept in inside_of(made)


def test_a_filter_that_holds_the_address_of_a_card_holds_that_of_the_clones() -> None:
    inside = (
        "<source network='default'/><filterref filter='ours'>"
        "<parameter name='MY_MAC' value='52:54:00:AA:BB:CC'/></filterref>"
    )
    made = rewritten(interface("network", inside))
    assert made.conflicts == []
    assert f'<parameter name="MY_MAC" value="{MAC}"/>' in made.xml
    assert made.changes["interface 0 filter MY_MAC"]["new"] == MAC


@pytest.mark.parametrize(
    ("learning", "now", "word"),
    [
        ("", "", "the first that it uses"),
        ("<parameter name='CTRL_IP_LEARNING' value='dhcp'/>", "dhcp", "its DHCP lease"),
        ("<parameter name='CTRL_IP_LEARNING' value='none'/>", "dhcp", "its DHCP lease"),
    ],
)
@pytest.mark.parametrize("card", [NewInterface(MAC), NewInterface(MAC, network="other")])
def test_a_filter_does_not_bind_the_clone_to_the_address_of_its_base(
    learning: str, now: str, word: str, card: NewInterface
) -> None:
    inside = (
        "<source network='default'/><filterref filter='clean-traffic'>"
        f"<parameter name='IP' value='10.9.8.7'/><parameter name='IP' value='10.9.8.8'/>{learning}"
        "</filterref>"
    )
    made = rewritten(interface("network", inside), card)
    assert made.conflicts == []
    assert "10.9.8" not in made.xml
    assert (f'name="CTRL_IP_LEARNING" value="{now}"' in made.xml) is bool(now)
    assert made.changes["interface 0 filter IP"] == {"old": "10.9.8.7, 10.9.8.8", "new": None}
    (warning,) = made.warnings
    assert word in warning


def test_another_model_gets_a_place_and_options_of_its_own() -> None:
    inside = (
        "<source network='a'/><model type='virtio'/><driver name='vhost' queues='4'/>"
        "<address type='pci' domain='0x0000' bus='0x01' slot='0x00' function='0x0'/>"
    )
    made = rewritten(interface("network", inside), NewInterface(MAC, network="a", model="e1000e"))
    assert "queues" not in made.xml
    assert "<address" not in made.xml
    assert '<model type="e1000e"/>' in made.xml


def test_a_card_is_added_even_to_a_base_without_one() -> None:
    made = rewritten("", NewInterface(MAC, bridge="br0"))
    assert (
        f'<interface type="bridge"><mac address="{MAC}"/><source bridge="br0"/>'
        '<model type="virtio"/></interface>'
    ) in made.xml
