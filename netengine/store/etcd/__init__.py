"""A client of etcd: small, asyncio, over HTTP and JSON. It knows nothing of what netengine keeps there."""

from netengine.store.etcd.client import Etcd
from netengine.store.etcd.records import Change, Compacted, Compare, Delete, Entry, Get, Member, Outcome, Put, Step

__all__ = ["Change", "Compacted", "Compare", "Delete", "Entry", "Etcd", "Get", "Member", "Outcome", "Put", "Step"]
