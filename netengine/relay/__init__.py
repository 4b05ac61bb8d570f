"""The relay: carries what comes to a published port on an IPv6 address of the host and cannot be translated by the kernel.

That is: connections to ::1 (the kernel has no way back for them), from link-local addresses (never forwarded), and all that
goes to a container without IPv6. One process for all ports, without privileges, a session of its own: what flows through it
outlives the daemon. The daemon binds the sockets and passes them over.
"""
