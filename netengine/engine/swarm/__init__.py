"""The cluster that this host is in: how it comes to be, who is in it, and what each host does about it.

    swarm.py       the whole, as the API uses it
    membership.py  this host as a node, from joining or the daemon's start until it leaves
    founding.py    a cluster begins: its root, its first node, its store
    registrar.py   who is let in and as what, and which certificate a node gets
    nodes.py       the nodes as a manager sees and changes them
    settings.py    changes of the specification, the tokens, the root
    oversight.py   what managers see to by themselves
    ledger.py      what managers keep in etcd beside what all nodes see
    addresses.py   where a host listens, and as what the others know it
    specs.py       what a cluster may be asked to be
    requests.py    what the API asks
    views.py       what the API shows
    events.py      what happens to nodes, as events

How hosts prove who they are, and how etcd is run, is netengine/cluster's.
"""
