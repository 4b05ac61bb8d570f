"""Network drivers: pure functions from the model to the kernel resources that make it real.

A driver validates a network's options before anything happens and renders networks and endpoints to resources. It touches no
kernel, no store and no clock: what it needs to know about the host is handed to it. One file a driver.
"""

from netengine.drivers.base import Driver, EndpointContext
from netengine.drivers.bridge import BridgeDriver
from netengine.drivers.host import HostDriver
from netengine.drivers.ipvlan import IpvlanDriver
from netengine.drivers.macvlan import MacvlanDriver
from netengine.drivers.null import NullDriver
from netengine.drivers.overlay import OverlayDriver

DRIVERS: dict[str, Driver] = {
    driver.name: driver
    for driver in (BridgeDriver(), HostDriver(), NullDriver(), MacvlanDriver(), IpvlanDriver(), OverlayDriver())
}
"""By the name that `docker network create -d` takes."""

__all__ = [
    "DRIVERS",
    "BridgeDriver",
    "Driver",
    "EndpointContext",
    "HostDriver",
    "IpvlanDriver",
    "MacvlanDriver",
    "NullDriver",
    "OverlayDriver",
]
