"""The lab: virtual hosts on one machine, a daemon on each, wired to a switch that plays the physical network.

A host is a set of namespaces (network, mount, PID, UTS, IPC); the switch is a network namespace with a bridge. Nothing in the
machine's own network namespace is configured, and everything of a lab is below one directory, so that `down` leaves nothing.

    init.py      process 1 of a host
    hosts.py     starting, entering and ending hosts
    switch.py    cables and partitions
    record.py    what is remembered of a lab, in its directory
    lab.py       up, down, status, partition, heal

Standard library only, and no import of the rest of netengine but its errors: it stands outside of every daemon.
"""
