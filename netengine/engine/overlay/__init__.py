"""Overlay networks on this host: what the cluster's store says becomes part of the model and the kernel, and what happens
here is told to the store.

    overlay.py     the whole, as the engine and this host's membership use it
    fabric.py      what the model knows of the other hosts, and what it is in the kernel
    following.py   changes of the store taken in, batch by batch
    peers.py       which records of other hosts are believed
    uplink.py      the link that the host's address in the cluster is on, as it changes
    suspicion.py   which words of the kernel healing should look into
    claims.py      addresses got and endpoints published, before an operation; withdrawn after it
    creation.py    what a new network is made of
    encryption.py  the host's end of WireGuard
    views.py       what inspect shows of the other hosts
    gateway.py     docker_gwbridge, the way out

Nothing here waits for the network while it holds the writer lock.
"""
