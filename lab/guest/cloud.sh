#!/bin/sh
# Runs in the Debian root that got cloud-init: what a cloud's image has otherwise than the base.
set -eu

# cloud-init makes the network, or nobody does: it is bound to the card that it saw.
rm -f /etc/systemd/network/80-dhcp.network

# Sources on this machine alone: a search of the network would take minutes.
echo 'datasource_list: [NoCloud, ConfigDrive, None]' >/etc/cloud/cloud.cfg.d/90_dpkg.cfg

# Nothing that needs a network, or seconds of emulation, and that nobody looks at: of the modules
# those that give a machine its identity, grow its disk or run what a seed says, and of the host keys
# those that are made quickly.
cat >/etc/cloud/cloud.cfg.d/10-lab.cfg <<'END'
disable_root: false
ssh_genkeytypes: [ecdsa, ed25519]
cloud_init_modules:
  [bootcmd, write-files, growpart, resizefs, set_hostname, update_hostname, update_etc_hosts,
   users-groups, ssh]
cloud_config_modules: [set-passwords, runcmd]
cloud_final_modules:
  [scripts-vendor, scripts-per-once, scripts-per-boot, scripts-per-instance, scripts-user,
   final-message, power-state-change]
END
systemctl -q mask cloud-init-hotplugd.socket systemd-networkd-wait-online.service 2>/dev/null || true
systemctl -q enable cloud-init-local.service cloud-init.service cloud-config.service \
    cloud-final.service 2>/dev/null || true
python3 -m compileall -q -j 2 /usr/lib/python3/dist-packages >/dev/null || true
apt-get clean
rm -rf /usr/share/doc/* /usr/share/locale/* /usr/share/i18n/*
