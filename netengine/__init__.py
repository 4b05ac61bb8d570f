"""netengine: container networking straight on the Linux kernel.

Only the version lives here. Packages and the direction of their imports are described in docs/architecture.md.
"""

__version__ = "0.5.0"
