"""The kernel layer: the only code that changes or reads the kernel's networking state.

`resources` says what can exist, `plan` orders a difference, `host.Kernel` carries it out and reads the kernel back. This is the
only package that imports pyroute2 and nftables; nothing here knows of containers, networks or the Docker API.
"""
