"""The errors of netengine: one type for each *reaction* of a caller, not for each place where something can go wrong.

    NetengineError
     ├── NotModified    nothing to do: it is already so                        HTTP 304
     ├── Invalid        the request can never work; correct it                 HTTP 400
     ├── Forbidden      understood and refused; ask for something else         HTTP 403
     ├── NotFound       the named thing does not exist                         HTTP 404
     ├── Conflict       the name or the state is taken; free it, then again    HTTP 409
     ├── KernelRefused  the kernel or the OCI runtime said no                  HTTP 500
     ├── Unsupported    netengine does not do this (yet)                       HTTP 501
     └── Unavailable    not now; the same request may work later               HTTP 503

Each carries the HTTP status of Docker's Engine API, so that the mapping is stated once, here. Messages say what was wrong,
with the value, and what to do. This module imports nothing of netengine; every other module may import it.
"""

from __future__ import annotations


class NetengineError(Exception):
    """Base of all errors that a client is shown. `status` is the HTTP status of the Docker Engine API."""

    status = 500

    @property
    def message(self) -> str:
        """The text for the user."""
        return str(self.args[0]) if self.args else type(self).__name__


class NotModified(NetengineError):
    """It is already as asked: a started container is started again, say."""

    status = 304


class Invalid(NetengineError):
    """The request itself is wrong and will stay wrong: malformed, of the wrong type, out of range."""

    status = 400


class Forbidden(NetengineError):
    """The request is well-formed and refused by a rule: a predefined network is removed, an address is taken."""

    status = 403


class NotFound(NetengineError):
    """A network, container, image or exec session of that name or id does not exist."""

    status = 404


class Conflict(NetengineError):
    """The name is taken, or the object's present state does not allow it."""

    status = 409


class KernelRefused(NetengineError):
    """The kernel, or the OCI runtime on its behalf, refused; the message carries its own words."""

    status = 500


class Unsupported(NetengineError):
    """A documented feature that netengine does not provide."""

    status = 501


class Unavailable(NetengineError):
    """A resource is exhausted or a service is away; the same request may succeed later."""

    status = 503
