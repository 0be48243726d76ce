"""
Reach a guest (by ssh or its agent) and work in it (identity, minion).

Pure of salt and of libvirt: the agent channel is given a callable that speaks to libvirt, and
every step uses only the :class:`~saltext.kvmclone.guest.channel.Channel`.
"""
