"""The store: what the daemon must remember over a restart, in SQLite (WAL) under the data root.

Objects are kept as JSON by kind and id; leases in a table of their own, whose key makes a second owner of an address
impossible; intents say which operation was under way, so that a crash leaves something to roll back. Of each object there is a
record in the run directory too (records.py), for when the database is damaged or gone.
"""

from netengine.store.sqlite import Intent, Store, Transaction

__all__ = ["Intent", "Store", "Transaction"]
