"""How a cluster begins: its root, its first node, its store, and what must be in that before anybody may read it."""

from __future__ import annotations

import errno
import socket
from dataclasses import dataclass
from ipaddress import ip_address
from typing import TYPE_CHECKING

import msgspec

from netengine import failpoints
from netengine.cluster import keys, tokens, users
from netengine.cluster.access import Outside
from netengine.cluster.etcdprocess import EtcdProcess
from netengine.cluster.identity import Files, Identity
from netengine.cluster.member import EtcdMember, urls_of
from netengine.cluster.records import CONTROL_PORT, MANAGER, NO_MEMBER, ClusterRecord, NodeRecord
from netengine.cluster.tls import MANAGER_NAME, client_context
from netengine.engine.core import now
from netengine.engine.swarm import ledger, outside
from netengine.engine.swarm.addresses import Whereabouts, with_port
from netengine.engine.swarm.requests import JsonDict
from netengine.errors import Conflict, Invalid, Unavailable
from netengine.store.etcd import Compare, Etcd, Put

if TYPE_CHECKING:
    from netengine.cluster.certificates import Authority


@dataclass(frozen=True, slots=True)
class Plan:
    """What was asked for, all of it checked. `root` is a certificate and key that the user brings, or two empty texts."""

    where: Whereabouts
    name: str
    availability: str
    spec: JsonDict
    pools: list[str]
    subnet_size: int
    data_path_port: int
    root: tuple[str, str]
    outside: Outside | None = None
    """An etcd of the user's own, when one is to be used."""


def check_control_port(where: Whereabouts) -> None:
    """Before anything is made. Raises Conflict, naming the port that somebody else has."""
    _try(socket.SOCK_STREAM, where.listen, CONTROL_PORT, "the control service")


def check_data_path(where: Whereabouts, data_path_port: int) -> None:
    """The same for the tunnels of overlay networks."""
    _try(socket.SOCK_DGRAM, "0.0.0.0" if ip_address(where.data_path).version == 4 else "::", data_path_port, "VXLAN")


def _try(kind: socket.SocketKind, address: str, port: int, what: str) -> None:
    family = socket.AF_INET6 if ip_address(address).version == 6 else socket.AF_INET
    with socket.socket(family, kind) as trial:
        trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, int(kind == socket.SOCK_STREAM))
        if family == socket.AF_INET6:
            trial.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        try:
            trial.bind((address, port))
            if kind == socket.SOCK_STREAM:
                trial.listen(1)
        except OSError as e:
            protocol = "tcp" if kind == socket.SOCK_STREAM else "udp"
            if e.errno == errno.EADDRINUSE:
                raise Conflict(
                    f"port {port}/{protocol} of this host is in use, and {what} needs it: see who has it with "
                    f"ss -{'lt' if protocol == 'tcp' else 'lu'}np 'sport = :{port}'"
                ) from e
            raise Invalid(f"{what} cannot listen on {with_port(address, port)}: {e.strerror}") from e


async def found(plan: Plan, files: Files, process: EtcdProcess) -> Identity:
    """Begin the cluster; when this returns the host is its first node, by what is on disk. The caller takes back a failure."""
    from netengine.cluster import certificates

    cluster_id, node_id = ledger.new_id(), ledger.new_id()
    if any(plan.root):
        if not all(plan.root):
            raise Invalid("a CA certificate and its key are given together: --ca-cert and --ca-key")
        authority = certificates.adopt_authority(*plan.root)
    else:
        authority = certificates.create_authority(cluster_id)
    at, theirs = now(), plan.outside
    cluster = ClusterRecord(
        id=cluster_id,
        created=at,
        updated=at,
        spec=plan.spec,
        trust=authority.trust,
        data_path_port=plan.data_path_port,
        pools=plan.pools,
        subnet_size=plan.subnet_size,
        store=list(theirs.urls) if theirs else [],
        store_roots=theirs.roots() if theirs else "",
    )
    address = plan.where.advertise
    record = NodeRecord(
        id=node_id,
        name=plan.name,
        role=MANAGER,
        availability=plan.availability,
        address=address,
        member=NO_MEMBER if theirs else "",
        created=at,
        updated=at,
    )
    if theirs:
        cluster.store_users = await outside.look(theirs, record)
    key = certificates.make_key()
    certificate = ledger.issue(authority, cluster, record, certificates.make_request(key), [address])
    files.replace_trust(authority.trust)
    files.replace_certificate(key, certificate)
    failpoints.reach("swarm: certificate written")

    identity = identity_of(plan, node_id, cluster, users.make_password() if cluster.store_users else "")
    if theirs:
        async with outside.place(theirs, cluster, record, _beginning(cluster, record, authority), identity.password):
            files.update(identity)
        return identity
    await _own(files, process, cluster, record, authority, identity.password)
    failpoints.reach("swarm: store filled")
    files.update(identity)
    failpoints.reach("swarm: identity saved")
    return identity


def identity_of(plan: Plan, node: str, cluster: ClusterRecord, password: str) -> Identity:
    """Of a manager that no other has let in."""
    address, theirs = plan.where.advertise, plan.outside
    return Identity(
        node=node,
        cluster=cluster.id,
        role=MANAGER,
        name=plan.name,
        advertise_address=address,
        listen_address=plan.where.listen,
        data_path_address=plan.where.data_path,
        data_path_port=cluster.data_path_port,
        managers=(with_port(address, CONTROL_PORT),),
        endpoints=theirs.urls if theirs else (urls_of(address).client,),
        external_store=bool(cluster.store),
        store_prefix=theirs.prefix if theirs else "",
        store_roots=(theirs.roots() if theirs else "") or cluster.store_roots,
        user=users.user_of(node) if cluster.store_users else "",
        password=password,
    )


def _beginning(cluster: ClusterRecord, record: NodeRecord, authority: Authority) -> list[Put]:
    """What a store must hold before anybody can join."""
    secrets = ledger.Tokens(worker=tokens.make_secret(), manager=tokens.make_secret())
    return [
        Put(ledger.AUTHORITY, msgspec.json.encode(authority)),
        Put(ledger.TOKENS, msgspec.json.encode(secrets)),
        Put(keys.CLUSTER, msgspec.json.encode(cluster)),
        Put(keys.node(record.id), msgspec.json.encode(record)),
    ]


async def _own(
    files: Files,
    process: EtcdProcess,
    cluster: ClusterRecord,
    record: NodeRecord,
    authority: Authority,
    password: str,
) -> None:
    """An etcd of one member, on this host."""
    member = EtcdMember(files, process, record.id, record.address)
    await member.create()
    failpoints.reach("swarm: etcd started")
    async with Etcd([member.urls.client], client_context(files), server_name=MANAGER_NAME) as etcd:
        record.member = f"{(await etcd.members())[0].id:x}"
        outcome = await etcd.transact([Compare(keys.CLUSTER, "VERSION", 0)], _beginning(cluster, record, authority))
        if not outcome.succeeded:
            raise Unavailable("the new store is not empty: another cluster's is in its place")
        await users.begin(etcd, record.id, password)
    await member.close()  # the membership looks after it
