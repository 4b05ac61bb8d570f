"""`netengine swarm ...`: begin a cluster, join one, its tokens and settings, leave it."""

from __future__ import annotations

from netengine.cli.flags import Command, Invocation, many, number, switch, text
from netengine.errors import Invalid

TYPE_CHECKING = False
if TYPE_CHECKING:
    from netengine.cli.engine import Engine, Json

_UNITS = {"h": 3600.0, "m": 60.0, "s": 1.0, "ms": 0.001}
_ROLES = ("worker", "manager")


def _nanoseconds(words: str, flag: str) -> int:
    """A duration such as 2160h or 1m30s."""
    import re

    parts = re.findall(r"([0-9]+(?:\.[0-9]+)?)(h|ms|m|s)", words)
    if not parts or "".join(value + unit for value, unit in parts) != words:
        raise Invalid(f"invalid value {words!r} for --{flag}: give a duration such as 48h or 1m30s")
    return int(sum(float(value) * _UNITS[unit] for value, unit in parts) * 1_000_000_000)


def _spec(call: Invocation, spec: Json) -> Json:
    """The specification with what the flags change."""
    options = call.options
    if options.given("cert-expiry"):
        spec.setdefault("CAConfig", {})["NodeCertExpiry"] = _nanoseconds(options.text("cert-expiry"), "cert-expiry")
    if options.given("dispatcher-heartbeat"):
        period = _nanoseconds(options.text("dispatcher-heartbeat"), "dispatcher-heartbeat")
        spec.setdefault("Dispatcher", {})["HeartbeatPeriod"] = period
    return spec


def _places(call: Invocation) -> Json:
    options = call.options
    return {
        "ListenAddr": options.text("listen-addr"),
        "AdvertiseAddr": options.text("advertise-addr"),
        "DataPathAddr": options.text("data-path-addr"),
        "Availability": options.text("availability"),
    }


def _init(call: Invocation) -> int:
    options = call.options
    body = {
        **_places(call),
        "DataPathPort": options.number("data-path-port") or 0,
        "DefaultAddrPool": options.many("default-addr-pool"),
        "SubnetSize": options.number("default-addr-pool-mask-length") or 0,
        "ForceNewCluster": options.switch("force-new-cluster"),
        "Spec": _spec(call, {}),
    }
    node = call.engine.post("/swarm/init", body=body)
    print(f"This host (node {node}) is the first manager of a new cluster. A worker joins with:\n")
    print(f"    {_join_command(call.engine, 'worker')}\n")
    print("and a manager as netengine swarm join-token manager says.")
    return 0


def _join(call: Invocation) -> int:
    token = call.options.text("token")
    if not token:
        raise Invalid("give the --token that netengine swarm join-token worker shows on a manager")
    call.engine.post("/swarm/join", body={**_places(call), "RemoteAddrs": call.arguments, "JoinToken": token})
    role = "manager" if call.engine.get("/info")["Swarm"]["ControlAvailable"] else "worker"
    print(f"This host has joined the cluster as a {role}.")
    return 0


def _join_command(engine: Engine, role: str) -> str:
    token = engine.get("/swarm")["JoinTokens"][role.capitalize()]
    address = engine.get("/nodes/self")["ManagerStatus"]["Addr"]
    return f"netengine swarm join --token {token} {address}"


def _join_token(call: Invocation) -> int:
    (role,) = call.arguments
    if role not in _ROLES:
        raise Invalid(f"unknown role {role!r}: it is worker or manager")
    if call.options.switch("rotate"):
        found = call.engine.get("/swarm")
        query = {"version": found["Version"]["Index"], f"rotate{role.capitalize()}Token": True}
        call.engine.post("/swarm/update", query, found["Spec"])
    if call.options.switch("quiet"):
        print(call.engine.get("/swarm")["JoinTokens"][role.capitalize()])
    else:
        print(_join_command(call.engine, role))
    return 0


def _leave(call: Invocation) -> int:
    call.engine.post("/swarm/leave", {"force": call.options.switch("force")})
    print("This host has left the cluster.")
    return 0


def _update(call: Invocation) -> int:
    found = call.engine.get("/swarm")
    call.engine.post("/swarm/update", {"version": found["Version"]["Index"]}, _spec(call, found["Spec"]))
    print("The cluster's settings are changed.")
    return 0


def _ca(call: Invocation) -> int:
    import time

    if call.options.switch("rotate"):
        found = call.engine.get("/swarm")
        ca = found["Spec"].setdefault("CAConfig", {})
        for name, key in (("ca-cert", "SigningCACert"), ("ca-key", "SigningCAKey")):
            if call.options.given(name):
                ca[key] = _content(call.options.text(name))
        if "SigningCACert" not in ca:
            ca["ForceRotate"] = ca.get("ForceRotate", 0) + 1
        call.engine.post("/swarm/update", {"version": found["Version"]["Index"]}, found["Spec"])
        while (
            not call.options.switch("detach") and call.engine.get("/info")["Swarm"]["Cluster"]["RootRotationInProgress"]
        ):
            time.sleep(0.2)
    print(call.engine.get("/info")["Swarm"]["Cluster"]["TLSInfo"]["TrustRoot"], end="")
    return 0


def _content(path: str) -> str:
    try:
        with open(path) as file:
            return file.read()
    except (OSError, UnicodeDecodeError) as error:
        raise Invalid(f"{path} cannot be read: {error}") from None


_ADDRESSES = (
    text("advertise-addr", "IP|LINK", "Where the other nodes reach this one (default: the only address that there is)"),
    text("listen-addr", "IP|LINK", "Where the control service listens (default: everywhere)"),
    text("data-path-addr", "IP|LINK", "Where the tunnels of overlay networks end (default: the advertised address)"),
    text("availability", "WORD", "active (default), pause or drain"),
)
_SETTINGS = (
    text("cert-expiry", "DURATION", "How long the certificates of nodes are valid (default 2160h)"),
    text("dispatcher-heartbeat", "DURATION", "A node is down after three of these without a sign of life (default 5s)"),
)

INIT = Command(
    "swarm init",
    "Begin a cluster with this host as its manager",
    _init,
    flags=(
        *_ADDRESSES,
        number("data-path-port", "PORT", "UDP port of the tunnels, 1024 to 49151 (default 4789)"),
        many("default-addr-pool", "CIDR", "Where subnets of overlay networks are taken from (default 10.0.0.0/8)"),
        number("default-addr-pool-mask-length", "BITS", "Prefix length of such a subnet (default 24)"),
        switch(
            "force-new-cluster",
            "On the last manager, when a majority is lost for good: go on alone; in an etcd of your own, when all managers "
            "are lost: become one",
        ),
        *_SETTINGS,
    ),
    examples=(("netengine swarm init --advertise-addr eth0", "by the address of a link"),),
)
JOIN = Command(
    "swarm join",
    "Make this host a node of a cluster",
    _join,
    arguments="MANAGER [MANAGER...]",
    flags=(text("token", "TOKEN", "What netengine swarm join-token shows on a manager"), *_ADDRESSES),
    notes="MANAGER is an address, with :PORT where it is not 2377. The first one that answers lets the host in.",
    examples=(("netengine swarm join --token SWMTKN-1-... 192.0.2.1", ""),),
)
JOIN_TOKEN = Command(
    "swarm join-token",
    "Show the command by which a host joins as a worker or a manager",
    _join_token,
    arguments="worker|manager",
    flags=(
        switch("q quiet", "The token alone"),
        switch("rotate", "Make another token; the old one is worth nothing then"),
    ),
    examples=(("netengine swarm join-token --rotate worker", ""),),
)
LEAVE = Command(
    "swarm leave",
    "Take this host out of its cluster",
    _leave,
    flags=(switch("f force", "A manager too, and the last one, with which the cluster's state goes"),),
    examples=(("netengine swarm leave", "on a worker"),),
)
UPDATE = Command(
    "swarm update",
    "Change the cluster's settings",
    _update,
    flags=_SETTINGS,
    examples=(("netengine swarm update --cert-expiry 720h", "certificates for 30 days, from the next renewal on"),),
)
CA = Command(
    "swarm ca",
    "Show the cluster's root certificate, or change to another",
    _ca,
    flags=(
        switch("rotate", "Change to another root: every node gets a new certificate"),
        text("ca-cert", "FILE", "With --rotate: a root that you bring (PEM)"),
        text("ca-key", "FILE", "and its key (PEM)"),
        switch("d detach", "With --rotate: do not wait for the nodes"),
    ),
    examples=(("netengine swarm ca", "as PEM"), ("netengine swarm ca --rotate", "")),
)
