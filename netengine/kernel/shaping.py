"""Token buckets: the queueing discipline tbf at the root of a link, so that no more leaves by it than a rate allows. How they
are made, removed and read back.

Ours have a handle of their own number, as our links have a group: `tc qdisc show handle 6e65:`. What would be a burst of more
than 10 ms waits up to 200 ms in a queue and is dropped after that. Both have a floor, because a TCP sender hands over up to
64 KiB at a time, and of that a smaller bucket and queue lose the most (measured: at 10 Mbit/s every second segment).

Source: net/sched/sch_tbf.c, include/uapi/linux/pkt_sched.h.
"""

from __future__ import annotations

import errno
import socket
import struct
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from pyroute2.netlink import NLM_F_CREATE, NLM_F_REPLACE, nlmsg
from pyroute2.netlink.rtnl import RTM_DELQDISC, RTM_GETQDISC, RTM_NEWQDISC

from netengine.errors import KernelRefused
from netengine.kernel.attributes import attributes, packed
from netengine.kernel.netlink import NetlinkError
from netengine.kernel.resources import MARK_GROUP, Resource, TokenBucket

if TYPE_CHECKING:
    from netengine.kernel.host import Kernel

HANDLE = MARK_GROUP << 16
"""6e65:0, the mark of a token bucket of ours."""

_ROOT = 0xFFFFFFFF  # TC_H_ROOT
KIND = "tbf"
_RATE = struct.Struct("=BBHhHI")  # struct tc_ratespec: cell_log, linklayer, overhead, cell_align, mpu, rate in bytes/s
_LIMITS = struct.Struct("=III")  # the end of struct tc_tbf_qopt: limit, buffer, mtu
_ETHERNET = 1  # TC_LINKLAYER_ETHERNET
_MOST_32 = 0xFFFFFFFF

_BURST_SECONDS, _LEAST_BURST = 0.01, 64 << 10
_QUEUE_SECONDS, _LEAST_QUEUE = 0.2, 128 << 10


class _Qdisc(nlmsg):  # type: ignore[misc]  # pyroute2's tcmsg loads and tries every discipline there is
    """struct tcmsg."""

    fields = (("family", "B"), ("pad", "3x"), ("index", "i"), ("handle", "I"), ("parent", "I"), ("info", "I"))
    nla_map = (("TCA_UNSPEC", "none"), ("TCA_KIND", "asciiz"), ("TCA_OPTIONS", "cdata"))


_PARMS, _RATE64, _BURST = 1, 4, 6  # TCA_TBF_*


def sizes(rate: int) -> tuple[int, int]:
    """Bytes that may go at once, and bytes that may wait and go (tc's `burst` and `limit`) at a rate in bits per second."""
    per_second = rate // 8
    burst = max(int(per_second * _BURST_SECONDS), _LEAST_BURST)
    return burst, burst + max(int(per_second * _QUEUE_SECONDS), _LEAST_QUEUE)


def _options(rate: int) -> bytes:
    """The content of TCA_OPTIONS for a rate in bits per second."""
    per_second = rate // 8
    burst, limit = sizes(rate)
    ratespec = _RATE.pack(0, _ETHERNET, 0, 0, 0, min(per_second, _MOST_32))
    parms = ratespec + bytes(_RATE.size) + _LIMITS.pack(min(limit, _MOST_32), 0, 0)
    out = packed(_PARMS, parms) + packed(_BURST, struct.pack("=I", min(burst, _MOST_32)))
    if per_second > _MOST_32:
        out += packed(_RATE64, struct.pack("=Q", per_second))
    return out


def _rate(options: bytes) -> int:
    """Bits per second, from the content of TCA_OPTIONS."""
    per_second = 0
    for kind, value in attributes(options):
        if kind == _PARMS:
            per_second = max(per_second, _RATE.unpack_from(value)[5])
        elif kind == _RATE64:
            per_second = struct.unpack_from("=Q", value)[0]
    return per_second * 8


def _message(kind: int, flags: int = 0, index: int = 0) -> Any:
    message = _Qdisc()
    message["header"]["type"] = kind
    message["header"]["flags"] = flags
    message["family"] = socket.AF_UNSPEC
    message["index"] = index
    return message


def create(kernel: Kernel, resources: list[TokenBucket], made: list[Resource]) -> None:
    """Set token buckets, in place of whatever discipline the links have."""
    for r in resources:
        message = _message(RTM_NEWQDISC, NLM_F_CREATE | NLM_F_REPLACE, kernel.index(r.ns, r.link))
        message["handle"], message["parent"] = HANDLE, _ROOT
        message["attrs"] = [("TCA_KIND", KIND), ("TCA_OPTIONS", _options(r.rate))]
        (error,) = kernel.socket_in(r.ns).execute([(f"limit {r.link} to {r.rate} bit/s", message)])
        if error is not None and error.errno == errno.ENOENT:
            raise KernelRefused(
                f"cannot limit the rate of {r.link}: this kernel has no token bucket (module sch_tbf, CONFIG_NET_SCH_TBF)"
            )
        if error is None or error.lost:
            made.append(r)
        if error is not None:
            raise error


def remove(kernel: Kernel, resources: list[TokenBucket]) -> None:
    for r in resources:
        try:
            message = _message(RTM_DELQDISC, index=kernel.index(r.ns, r.link))
        except OSError:
            continue  # gone with its link
        message["handle"], message["parent"] = HANDLE, _ROOT
        kernel.remove(r.ns, [(f"take the limit of {r.link} away", message)])


def observe(kernel: Kernel, ns: str, names: dict[int, str]) -> Iterable[TokenBucket]:
    """The token buckets of ours on links of a namespace, given by index."""
    try:
        found = kernel.socket_in(ns).dump(_message(RTM_GETQDISC))
    except NetlinkError as e:
        if e.errno == errno.EOPNOTSUPP:  # a kernel without queueing disciplines
            return
        raise
    for q in found:
        if q["handle"] == HANDLE and q.get_attr("TCA_KIND") == KIND and q["index"] in names:
            yield TokenBucket(ns, names[q["index"]], _rate(bytes(q.get_attr("TCA_OPTIONS") or b"")))
