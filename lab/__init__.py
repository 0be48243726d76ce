"""A scratch world for demo, tests and benchmarks: a network, a pool, real guests, Salt daemons.

* ``setup.sh``   installs what is needed (run first; everything else is Python from its venv)
* ``apart.sh``   runs a command beside other labs, with daemons and networks of its own
* ``common.py``  paths, running commands, printing what happens
* ``libvirtd.py`` a libvirt daemon: the one that runs, or one of our own
* ``image.py``   cached guest images: kernel, initramfs, Debian disk
* ``lab.py``     :class:`lab.lab.Lab`, the scratch world itself
* ``domain.py``  the XML of its base machines
* ``leftovers.py`` removes a lab, also one that crashed
* ``bridge.py``  :class:`lab.bridge.Bridge`, a plain bridge with a foreign DHCP server
* ``salt.py``    :class:`lab.salt.SaltWorld`, a master and a host minion in a scratch folder
* ``ear.py``     :class:`lab.ear.Ear`, records the events on a master's bus
* ``fleet.py``   :class:`lab.fleet.Fleet`, several hosts on this machine and their master
* ``demo.py``, ``demo_fleet.py`` what ``make demo`` and ``make demo-fleet`` show
"""
