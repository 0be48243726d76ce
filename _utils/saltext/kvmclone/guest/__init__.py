"""
Inside the guest: how to reach it (ssh, agent) and what to do there (identity, minion).

Pure of salt and of libvirt: the agent channel is handed a callable that speaks to
libvirt, and every step uses only the :class:`~saltext.kvmclone.guest.channel.Channel`.
"""
