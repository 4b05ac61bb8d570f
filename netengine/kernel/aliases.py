"""The names of namespaces under /run/netns: symbolic links, for `ip netns exec` and systemd. What is not ours is left alone."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from netengine.kernel.resources import NamespaceAlias, Resource

if TYPE_CHECKING:
    from netengine.kernel.host import Kernel

log = logging.getLogger(__name__)


def create(kernel: Kernel, resources: list[NamespaceAlias], made: list[Resource]) -> None:
    kernel.alias_dir.mkdir(mode=0o755, parents=True, exist_ok=True)
    for r in resources:
        path = kernel.alias_dir / r.alias
        try:
            path.symlink_to(kernel.ns_path(r.ns))
        except FileExistsError:
            if not kernel.owns_alias(path):
                # Somebody else's namespace has the name. The sandbox works without; it is entered by its own path.
                log.warning(
                    "%s exists and is not netengine's: namespace %s is at %s only",
                    path,
                    r.alias,
                    kernel.ns_path(r.ns),
                )
                continue
            path.unlink()
            path.symlink_to(kernel.ns_path(r.ns))
        made.append(r)


def remove(kernel: Kernel, resources: list[NamespaceAlias]) -> None:
    for r in resources:
        path = kernel.alias_dir / r.alias
        if kernel.owns_alias(path) and path.readlink() == kernel.ns_path(r.ns):
            path.unlink(missing_ok=True)
