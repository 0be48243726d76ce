"""A scratch world for demo, tests and benchmarks: a network, a pool, real guests, Salt daemons.

Every piece has a file of its own:

* ``setup.sh``   what must be installed (run first; everything else is Python from its venv)
* ``common.py``  where things are, running commands, saying what happens
* ``libvirtd.py`` a libvirt daemon: the one that runs, or one of our own
* ``image.py``   cached guest images: kernel, initramfs, Debian disk
* ``lab.py``     :class:`lab.lab.Lab`, the scratch world itself
* ``salt.py``    :class:`lab.salt.SaltWorld`, a master and a host minion in a scratch folder
* ``demo.py``    what ``make demo`` shows
"""
