"""The flags of `run` and `create`, and the body of POST /containers/create that they make."""

from __future__ import annotations

import os

from netengine.cli import endpoints, ports
from netengine.cli.flags import Options, many, number, switch, text
from netengine.errors import Invalid

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

    from netengine.cli.engine import Json

FLAGS = (
    many("add-host", "HOST:IP", "Add a line to /etc/hosts"),
    many("a attach", "STREAM", "Attach to stdin, stdout or stderr"),
    many("cap-add", "CAPABILITY", "Add Linux capabilities"),
    many("cap-drop", "CAPABILITY", "Drop Linux capabilities"),
    text("cidfile", "FILE", "Write the container ID to the file"),
    many("dns", "IP", "Set DNS servers"),
    many("dns-option dns-opt", "OPTION", "Set DNS options"),
    many("dns-search", "DOMAIN", "Set DNS search domains; '.' for none"),
    text("domainname", "NAME", "Container NIS domain name"),
    text("entrypoint", "PROGRAM", "Overwrite the default ENTRYPOINT of the image"),
    many("e env", "NAME[=VALUE]", "Set environment variables; without a value, passed on from here"),
    many("env-file", "FILE", "Read in a file of environment variables"),
    many("expose", "PORT", "Expose a port or a range of ports"),
    text("h hostname", "NAME", "Container host name"),
    switch("i interactive", "Keep STDIN open even if not attached"),
    text("ip", "IP", "IPv4 address (e.g., 172.30.100.104)"),
    text("ip6", "IP", "IPv6 address (e.g., 2001:db8::33)"),
    many("l label", "KEY=VALUE", "Set meta data on a container"),
    many("link", "CONTAINER[:ALIAS]", "Add link to another container"),
    many("link-local-ip", "IP", "Add a link-local address for the container"),
    text("mac-address", "MAC", "Container MAC address (e.g., 92:d0:c6:0a:29:33)"),
    text("name", "NAME", "Assign a name to the container"),
    many("network net", "NETWORK", "Connect to a network, host, none or container:NAME; name=...,ip=... for more"),
    many("network-alias net-alias", "NAME", "Add network-scoped alias for the container"),
    switch("privileged", "Give extended privileges to this container"),
    many("p publish", "PORTS", "Publish a container's ports to the host: [IP:][HOST:]CONTAINER[/udp]"),
    switch("P publish-all", "Publish all exposed ports to random ports"),
    switch("read-only", "Mount the container's root file system as read only"),
    text("restart", "POLICY", "Restart policy: no, on-failure[:N], always, unless-stopped", "no"),
    switch("rm", "Remove the container when it exits"),
    text("stop-signal", "SIGNAL", "Signal to stop the container"),
    number("stop-timeout", "SECONDS", "Time to let the container stop before it is killed"),
    many("sysctl", "KEY=VALUE", "Set namespaced kernel parameters (net.*)"),
    many("tmpfs", "PATH[:OPTIONS]", "Mount a tmpfs directory"),
    switch("t tty", "Allocate a pseudo-TTY"),
    text("u user", "USER[:GROUP]", "User and group, names or numbers"),
    many("v volume", "SOURCE:PATH[:ro]", "Bind mount a directory or file"),
    text("w workdir", "PATH", "Working directory inside the container"),
)
"""What `run` and `create` share."""

STREAMS = ("stdin", "stdout", "stderr")


def body(options: Options, image: str, command: list[str], *, detached: bool, environ: Mapping[str, str]) -> Json:
    """The request that creates the container. Raises `Invalid` for values that can be judged without the daemon."""
    attached = _streams(options, detached)
    mode, networks = endpoints.attachments(options)
    bindings = ports.published(options.many("publish"))
    config: Json = {
        "Image": image,
        "Hostname": options.text("hostname"),
        "Domainname": options.text("domainname"),
        "User": options.text("user"),
        "WorkingDir": options.text("workdir"),
        "Tty": options.switch("tty"),
        "OpenStdin": options.switch("interactive"),
        "StdinOnce": options.switch("interactive") and "stdin" in attached,
        **{f"Attach{name.capitalize()}": name in attached for name in STREAMS},
        "Env": environment(options.many("env"), options.many("env-file"), environ),
        "Labels": options.pairs("label"),
        "ExposedPorts": {**ports.exposed(options.many("expose")), **{port: {} for port in bindings}},
    }
    if command:
        config["Cmd"] = command
    if options.given("entrypoint"):
        config["Entrypoint"] = [options.text("entrypoint")]
    if options.given("stop-signal"):
        config["StopSignal"] = options.text("stop-signal")
    if options.given("stop-timeout"):
        config["StopTimeout"] = options.number("stop-timeout")
    config["HostConfig"] = {
        "NetworkMode": mode,
        "PortBindings": bindings,
        "PublishAllPorts": options.switch("publish-all"),
        "AutoRemove": options.switch("rm"),
        "RestartPolicy": restart_policy(options.text("restart", "no"), options.switch("rm")),
        "Privileged": options.switch("privileged"),
        "ReadonlyRootfs": options.switch("read-only"),
        "CapAdd": options.many("cap-add"),
        "CapDrop": options.many("cap-drop"),
        "Dns": options.many("dns"),
        "DnsOptions": options.many("dns-option"),
        "DnsSearch": options.many("dns-search"),
        "ExtraHosts": [_extra_host(value) for value in options.many("add-host")],
        "Sysctls": _sysctls(options.many("sysctl")),
        "Binds": [_bind(value) for value in options.many("volume")],
        "Tmpfs": dict(_tmpfs(value) for value in options.many("tmpfs")),
        "Links": [] if networks else options.many("link"),
    }
    if networks:
        config["NetworkingConfig"] = {"EndpointsConfig": networks}
    return config


def _streams(options: Options, detached: bool) -> set[str]:
    """The standard streams to attach: as asked, else stdout and stderr, and stdin with -i; none when detached."""
    asked = {value.lower() for value in options.many("attach")}
    if unknown := asked.difference(STREAMS):
        raise Invalid(f"invalid --attach {', '.join(sorted(unknown))}: the streams are {', '.join(STREAMS)}")
    if detached:
        if asked:
            raise Invalid("conflicting options: cannot specify both --attach and --detach")
        return set()
    return asked or {"stdout", "stderr"} | ({"stdin"} if options.switch("interactive") else set())


def environment(pairs: list[str], files: list[str], environ: Mapping[str, str]) -> list[str]:
    """Files first, then flags, so that a flag wins. A name alone takes its value from `environ`; unset there, unset inside."""
    found = []
    for path in files:
        try:
            with open(path, encoding="utf-8-sig") as lines:
                texts = [line.rstrip("\r\n").lstrip() for line in lines]
        except (OSError, UnicodeDecodeError) as error:
            raise Invalid(f"cannot read --env-file {path}: {getattr(error, 'strerror', None) or error}") from None
        for line in texts:
            if not line or line.startswith("#"):
                continue
            name, equals, value = line.partition("=")
            if not name or any(char.isspace() for char in name):
                raise Invalid(f"{path}: variable {name!r} is empty or contains whitespaces: write NAME=VALUE")
            if equals:
                found.append(f"{name}={value}")
            elif name in environ:
                found.append(f"{name}={environ[name]}")
    for pair in pairs:
        name, equals, _ = pair.partition("=")
        if not name:
            raise Invalid(f"invalid environment variable: {pair!r}: write NAME=VALUE")
        found.append(pair if equals or name not in environ else f"{name}={environ[name]}")
    return found


def restart_policy(spec: str, removed: bool) -> Json:
    """`on-failure:3` as {"Name", "MaximumRetryCount"}."""
    name, colon, count = spec.partition(":")
    if name not in ("no", "", "always", "on-failure", "unless-stopped"):
        raise Invalid(f"invalid restart policy {spec!r}: it is no, on-failure[:N], always or unless-stopped")
    if colon and (name != "on-failure" or not (count.isascii() and count.isdigit())):
        raise Invalid(f"invalid restart policy {spec!r}: a count goes with on-failure only, as in on-failure:3")
    if removed and name not in ("no", ""):
        raise Invalid("conflicting options: cannot specify both --restart and --rm")
    return {"Name": name or "no", "MaximumRetryCount": int(count or 0)}


def _extra_host(spec: str) -> str:
    """`name:ip` or `name=ip` as the API's `name:ip`; brackets around IPv6 go. Whether it is an address, the daemon judges."""
    at = spec.find("=") if "=" in spec else spec.find(":")
    name, address = spec[: max(at, 0)], spec[at + 1 :]
    if at < 1 or not address:
        raise Invalid(f"bad format for add-host: {spec!r}: write HOST:IP, or HOST:host-gateway")
    return f"{name}:{address[1:-1] if address.startswith('[') and address.endswith(']') else address}"


def _sysctls(values: list[str]) -> dict[str, str]:
    found = {}
    for setting in values:
        key, equals, value = setting.partition("=")
        if not equals or not key:
            raise Invalid(f"invalid sysctl {setting!r}: write it as KEY=VALUE, such as net.core.somaxconn=1024")
        found[key] = value
    return found


def _bind(spec: str) -> str:
    """SOURCE:PATH[:MODE]; a source that starts with a dot is relative to here, and made absolute for the daemon."""
    source, colon, rest = spec.partition(":")
    if not colon or not source or not rest.startswith("/"):
        raise Invalid(f"invalid volume specification: {spec!r}: write SOURCE:PATH[:ro], both full paths")
    if source.startswith("."):
        source = os.path.abspath(source)
    return f"{source}:{rest}"


def _tmpfs(spec: str) -> tuple[str, str]:
    path, _, settings = spec.partition(":")
    if not path.startswith("/"):
        raise Invalid(
            f"invalid tmpfs {spec!r}: write PATH[:OPTIONS], PATH from the container's root, such as /run:size=1m"
        )
    return path, settings
