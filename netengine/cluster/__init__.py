"""A cluster of hosts: who belongs to it, how they prove it, and what they share, on etcd.

    keys.py       where in etcd each thing is
    records.py    what is kept there
    mirror.py     the shared part of it in memory, followed by one watch
    ranges.py     how subnets are cut into blocks
    blocks.py     which node gives away which addresses
    networks.py   overlay networks made and removed
    session.py    a host's life in the cluster: its lease, its mirror, its way to the managers

Nothing here knows the kernel or the engine; nothing outside writes to etcd but through `session.etcd` with keys of keys.py.
"""
