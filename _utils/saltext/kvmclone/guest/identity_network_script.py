"""
Clear DHCP clients' state and the base's MAC addresses: a part of the reset script.

Shell functions for :mod:`.identity_script`, whose helpers (``skip``, ``clear``, ``any`` …) they
use.
"""

from __future__ import annotations

FUNCTIONS = r"""
dhcp_state() {
    clear dhcp_state "no client has left any" \
        "$R"/var/lib/dhcp/*.lease* "$R"/var/lib/dhclient/*.lease* \
        "$R"/var/lib/dhcpcd/*.lease* "$R"/var/lib/dhcpcd/duid "$R"/var/lib/dhcpcd/secret \
        "$R"/etc/dhcpcd.duid "$R"/etc/dhcpcd.secret "$R"/var/db/dhcpcd/* \
        "$R"/var/lib/NetworkManager/*.lease "$R"/var/lib/NetworkManager/secret_key \
        "$R"/var/lib/dhcpv6/dhcp6c_duid "$R"/var/lib/wicked/* "$R"/run/systemd/netif/leases/*
    same_client "$R"/etc/dhcp/dhclient*.conf "$R"/etc/dhclient*.conf "$R"/etc/dhcpcd.conf \
        "$R"/etc/systemd/network/* "$R"/etc/systemd/networkd.conf \
        "$R"/etc/NetworkManager/system-connections/* "$R"/etc/network/interfaces
}

# same_client FILE…: a DHCP client that somebody named there, which every clone then is.
same_client() {
    if ! any "$@"; then return; fi
    line=$(
        grep -hs -e '^[[:space:]]*send[[:space:]].*dhcp-client-identifier' -e '^DUIDRawData=' \
            -e '^dhcp-client-id=' -e '^[[:space:]]*client[[:space:]]' -e '^clientid' "$@" |
            grep -vE 'hardware|=(mac|perm-mac|duid|ipv6-duid|stable|none)$|clientid[[:space:]]*$' |
            head -n 1
    )
    if [ -n "$line" ]; then
        skip dhcp_same_client "'${line#"${line%%[![:space:]]*}"}' gives all its clones one address"
    fi
}

# What ties the guest's network to the cards of its base. Rules that only name a card go; a
# configuration that speaks of one card, where there is one, is told of this one.
network_cards() {
    bound=$(grep -ls '^HWADDR=' "$R"/etc/sysconfig/network-scripts/ifcfg-*) found=$bound
    set -- "$R"/etc/udev/rules.d/*-persistent-net.rules
    if any "$@"; then found=1; fi
    drop "$@" || { fail network_cards "the udev rules cannot be removed"; return; }
    for file in $bound; do
        sed -i '/^HWADDR=/d' "$file" || { fail network_cards "$file cannot be written"; return; }
    done
    set -- "$R"/etc/NetworkManager/system-connections/* "$R"/etc/netplan/*.yaml \
        "$R"/etc/systemd/network/* "$R"/etc/network/interfaces "$R"/etc/network/interfaces.d/*
    if any "$@" && ! named_cards "$@"; then
        fail network_cards "$file cannot be written"
    elif [ -n "$found" ]; then done_ network_cards
    else skip network_cards "nothing names the cards of the base"; fi
}

# named_cards FILE…: those that name a card which is not here; sets `found`, and fails at `file`
named_cards() {
    ours=' ' two='[0-9A-Fa-f][0-9A-Fa-f]'
    for card in "$R"/sys/class/net/*; do
        if [ -e "$card/device" ] && read -r address <"$card/address"; then ours="$ours$address "; fi
    done
    others=
    # Not within an IPv6 address, which has more of such pairs.
    some="(^|[^0-9A-Fa-f:])$two(:$two){5}([^0-9A-Fa-f:]|\$)"
    if ! grep -qsE "$some" "$@"; then return 0; fi
    for address in $(grep -hosE "$some" "$@" | tr -cd '0-9A-Fa-f:\n' |
        tr A-F a-f | sort -u); do
        case $ours in *" $address "*) ;; *) others="$others $address" ;; esac
    done
    if [ -z "$others" ]; then return 0; fi
    case "${others# }/${ours# }" in
    *' '*/*|*/*' '*' '|*/)
        skip network_other_cards "its network is configured for cards that it does not have:$others"
        return 0 ;;
    esac
    ours=${ours# }
    for file; do  # "Wired connection 1.nmconnection" is one of them
        if grep -qisF "${others# }" "$file"; then
            sed -i "s/${others# }/${ours% }/gI" "$file" || return
            found=1
        fi
    done
    # netplan writes the configuration of others, at boot or when it is told to.
    if any "$R"/etc/netplan/*.yaml && [ -z "$R" ] && command -v netplan >/dev/null; then
        netplan generate || :
    fi
    return 0
}
"""
