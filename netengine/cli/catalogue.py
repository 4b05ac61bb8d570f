"""Every command of `netengine`: its words, the module and the name under which its `Command` lives, and one line of help.

A table, and nothing imported: `netengine --help` and dispatch need no command module but the one that runs. A test holds the
table and the modules together.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from netengine.cli.flags import Command

GROUPS: tuple[tuple[str, tuple[tuple[str, str, str], ...]], ...] = (
    (
        "Networks",
        (
            ("network create", "network:CREATE", "Create a network"),
            ("network ls", "network:LS", "List networks"),
            ("network inspect", "network:INSPECT", "Display detailed information on one or more networks"),
            ("network connect", "network:CONNECT", "Connect a container to a network"),
            ("network disconnect", "network:DISCONNECT", "Disconnect a container from a network"),
            ("network rm", "network:RM", "Remove one or more networks"),
            ("network prune", "network:PRUNE", "Remove all unused networks"),
            ("policy add", "policy:ADD", "Allow or deny connections between containers or networks"),
            ("policy ls", "policy:LS", "List policies"),
            ("policy inspect", "policy:INSPECT", "Display policies with their nftables elements"),
            ("policy rm", "policy:RM", "Remove one or more policies"),
            ("explain", "explain:EXPLAIN", "Print the ip, nft and sysctl commands behind a network or container"),
            ("dns query", "dns:QUERY", "Ask a name as a container would, and show which server answered what, and why"),
            (
                "dns stats",
                "dns:STATS",
                "Show what each container asked the name server, and how fast it was answered",
            ),
        ),
    ),
    (
        "Containers",
        (
            ("run", "run:RUN", "Create and run a new container from an image"),
            ("create", "run:CREATE", "Create a new container"),
            ("start", "run:START", "Start one or more stopped containers"),
            ("stop", "containers:STOP", "Stop one or more running containers"),
            ("restart", "containers:RESTART", "Restart one or more containers"),
            ("kill", "containers:KILL", "Kill one or more running containers"),
            ("ps", "containers:PS", "List containers"),
            ("exec", "execute:EXEC", "Execute a command in a running container"),
            ("attach", "run:ATTACH", "Attach the terminal to a running container"),
            ("logs", "logs:LOGS", "Fetch the logs of a container"),
            ("port", "containers:PORT", "List port mappings of a container"),
            ("publish", "publish:PUBLISH", "Publish ports of a container, while it runs"),
            ("unpublish", "publish:UNPUBLISH", "Withdraw published ports of a container, while it runs"),
            ("top", "containers:TOP", "Display the running processes of a container"),
            ("wait", "containers:WAIT", "Block until containers stop, then print their exit codes"),
            ("rename", "containers:RENAME", "Rename a container"),
            ("rm", "containers:RM", "Remove one or more containers"),
            ("container prune", "containers:PRUNE", "Remove all stopped containers"),
        ),
    ),
    (
        "Images",
        (
            ("images", "images:LS", "List images"),
            ("import", "images:IMPORT", "Create an image from a root file system in a tar archive"),
            ("tag", "images:TAG", "Give an image another name"),
            ("rmi", "images:RM", "Remove one or more images"),
        ),
    ),
    (
        "Cluster",
        (
            ("swarm init", "swarm:INIT", "Begin a cluster with this host as its manager"),
            ("swarm join", "swarm:JOIN", "Make this host a node of a cluster"),
            ("swarm join-token", "swarm:JOIN_TOKEN", "Show the command by which a host joins as a worker or a manager"),
            ("swarm update", "swarm:UPDATE", "Change the cluster's settings"),
            ("swarm ca", "swarm:CA", "Show the cluster's root certificate, or change to another"),
            ("swarm leave", "swarm:LEAVE", "Take this host out of its cluster"),
            ("node ls", "node:LS", "List the nodes of the cluster"),
            ("node inspect", "node:INSPECT", "Display detailed information on one or more nodes"),
            ("node update", "node:UPDATE", "Change a node's labels, availability or role"),
            ("node promote", "node:PROMOTE", "Make one or more nodes managers"),
            ("node demote", "node:DEMOTE", "Make one or more managers workers"),
            ("node rm", "node:RM", "Forget one or more nodes that are down"),
        ),
    ),
    (
        "Lab",
        (
            ("lab up", "lab:UP", "Start virtual hosts on this machine, each with a daemon, on a switch of their own"),
            ("lab status", "lab:STATUS", "Show the hosts of the lab, their daemons, and who is cut off from whom"),
            ("lab exec", "lab:EXEC", "Run a command on a host of the lab"),
            ("lab partition", "lab:PARTITION", "Cut two hosts of the lab off from each other"),
            ("lab heal", "lab:HEAL", "Join two hosts of the lab again, or all"),
            ("lab down", "lab:DOWN", "End the lab and all that runs in it; nothing is left"),
        ),
    ),
    (
        "System",
        (
            ("inspect", "inspect:INSPECT", "Return low-level information on containers, networks or images"),
            ("doctor", "doctor:DOCTOR", "Find what is not as it should be in the kernel, and mend it"),
            ("events", "system:EVENTS", "Get real time events from the daemon"),
            ("info", "system:INFO", "Display system-wide information"),
            ("version", "system:VERSION", "Show the version of client and daemon"),
            ("completion", "completion:COMPLETION", "Print the bash completion script"),
        ),
    ),
)

CONTAINER_VERBS = (
    *("run", "create", "start", "stop", "restart", "kill", "exec", "attach", "logs"),
    *("port", "publish", "unpublish", "top", "wait", "rename", "rm"),
)

ALIASES: dict[str, str] = {
    **{f"container {verb}": verb for verb in CONTAINER_VERBS},
    "container ls": "ps",
    "container list": "ps",
    "container ps": "ps",
    "container remove": "rm",
    "network list": "network ls",
    "network remove": "network rm",
    "policy list": "policy ls",
    "policy remove": "policy rm",
    "node list": "node ls",
    "node remove": "node rm",
    "image ls": "images",
    "image list": "images",
    "image import": "import",
    "image tag": "tag",
    "image rm": "rmi",
    "image remove": "rmi",
    "system info": "info",
    "system events": "events",
}
"""Docker's other spellings, and the command each one is."""

HIDDEN: dict[str, str] = {
    "container inspect": "inspect:CONTAINER_INSPECT",
    "image inspect": "inspect:IMAGE_INSPECT",
    "__complete": "completion:COMPLETE",
}
"""Commands that work and that the front page leaves out."""

GROUP_WORDS = {
    "network": "Create, look at and remove networks",
    "policy": "Say who may talk to whom",
    "dns": "Look at the name server of containers",
    "container": "The container commands under Docker's longer names",
    "image": "List, import, tag and remove images",
    "swarm": "Begin, join, change and leave a cluster of hosts",
    "node": "Look at and change the nodes of a cluster",
    "lab": "Virtual hosts on this machine, to study and to test with",
    "system": "Look at the daemon",
}
"""First words that need a second."""

PLACES: dict[str, str] = {name: place for _, rows in GROUPS for name, place, _ in rows} | HIDDEN


def find(words: list[str]) -> tuple[str, list[str]] | None:
    """The longest command that `words` begin with, by its own name, and the words left over."""
    for count in (2, 1):
        name = " ".join(words[:count])
        name = ALIASES.get(name, name)
        if len(words) >= count and name in PLACES:
            return name, words[count:]
    return None


def spellings() -> dict[str, str]:
    """Every accepted spelling -> its one-line summary: what help lists and completion offers."""
    own = {name: summary for _, rows in GROUPS for name, _, summary in rows}
    inspects = {name: own["inspect"] for name in HIDDEN if name.endswith(" inspect")}
    return own | inspects | {alias: own[name] for alias, name in ALIASES.items()}


def load(name: str) -> Command:
    """Import the one module that holds the command."""
    module, _, attribute = PLACES[name].partition(":")
    # __import__ and not importlib: the package importlib costs more than the module it would load.
    command: Command = getattr(__import__(f"netengine.cli.{module}", fromlist=[attribute]), attribute)
    return command
