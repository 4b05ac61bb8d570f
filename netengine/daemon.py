"""`netengined`: flags, checks, sockets, locks, signals; then `api.server.serve` until told to stop.

Here lives what makes a process a daemon. What it does for its clients starts in `api/`. The modules behind the API are
imported after the flags are read, so that --help and --validate answer at once.
"""

from __future__ import annotations

import argparse
import asyncio
import ctypes
import gc
import logging
import os
import resource
import signal
import sys
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from pathlib import Path

from netengine import __version__, daemonlog, hostcheck
from netengine.config import DEFAULT_CONFIG_FILE, DEFAULT_HOST, Config, load
from netengine.detach import Outcome, detach
from netengine.directives import LOG_LEVELS
from netengine.errors import Forbidden, Invalid, NetengineError, Unavailable
from netengine.listeners import Inherited, open_listeners, shown
from netengine.notify import Notifier
from netengine.pidfile import LockFile

log = logging.getLogger("netengine.daemon")  # the same when run as python -m

DATA_LOCK = "netengined.lock"
LOG_FILE = "netengined.log"

_PATHS = frozenset(
    """
    data-root exec-root pidfile tlscacert tlscert tlskey store-cacert store-cert store-key store-password-file
    """.split()  # noqa: SIM905 (a list of words reads as such)
)

EPILOG = """\
The other directives of daemon.json, with Docker's names and meaning, are in docs/configuration.md.
SIGTERM stops the daemon and leaves networks and containers running; the next start takes them over.
"""


def parser() -> argparse.ArgumentParser:
    """The flags; those that daemon.json knows too are kept under their name there."""
    flags = argparse.ArgumentParser(
        prog="netengined",
        description="The netengine daemon: container networking on the Linux kernel, behind the Docker Engine API.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
        argument_default=argparse.SUPPRESS,
    )
    flags.add_argument("-v", "--version", action="version", version=f"netengined version {__version__}")
    flags.add_argument(
        "-H",
        "--host",
        dest="hosts",
        action="append",
        metavar="unix://PATH",
        help=f"socket to listen on; may be given several times; fd:// for systemd's, tcp://ADDRESS:PORT with --tlsverify "
        f"(default {DEFAULT_HOST})",
    )
    flags.add_argument(
        "--tlsverify", action="store_true", help="speak TLS on tcp:// sockets, and let in who shows a certificate"
    )
    flags.add_argument(
        "--tlscacert", metavar="FILE", help="authority that signed the certificates of those who may (PEM)"
    )
    flags.add_argument("--tlscert", metavar="FILE", help="the daemon's own certificate (PEM)")
    flags.add_argument("--tlskey", metavar="FILE", help="and its key")
    flags.add_argument("--data-root", metavar="DIR", help="what is kept over a reboot (default /var/lib/netengine)")
    flags.add_argument("--exec-root", metavar="DIR", help="what is not (default /run/netengine)")
    flags.add_argument(
        "--config-file", type=Path, default=None, metavar="FILE", help=f"configuration (default {DEFAULT_CONFIG_FILE})"
    )
    flags.add_argument("-p", "--pidfile", metavar="FILE", help="(default EXEC-ROOT/netengined.pid)")
    flags.add_argument("-G", "--group", metavar="NAME", help="group that may use the socket (default netengine)")
    flags.add_argument("-l", "--log-level", metavar="LEVEL", help=f"{', '.join(LOG_LEVELS)} (default info)")
    flags.add_argument(
        "--store",
        metavar="etcd://HOST:PORT[,...][/PREFIX]",
        help="an etcd of your own, used by clusters that begin on this host in place of one that managers run; "
        "etcd+http:// for one without TLS",
    )
    flags.add_argument("--store-cacert", metavar="FILE", help="authority that signed its certificate (PEM)")
    flags.add_argument("--store-cert", metavar="FILE", help="certificate to show to it, where it asks for one (PEM)")
    flags.add_argument("--store-key", metavar="FILE", help="and its key")
    flags.add_argument(
        "--store-user", metavar="NAME", help="user with its role root, where it asks for users; to begin a cluster with"
    )
    flags.add_argument("--store-password-file", metavar="FILE", help="file with that user's password")
    what = flags.add_mutually_exclusive_group()
    what.add_argument("--validate", action="store_true", help="check flags and configuration, and stop")
    what.add_argument(
        "--detach", action="store_true", help="return once the daemon serves; it goes on in the background"
    )
    what.add_argument(
        "--cleanup",
        action="store_true",
        help="remove all containers, networks, kernel resources and files of a daemon that is stopped",
    )
    return flags


def main(arguments: Sequence[str] | None = None) -> int:
    """The entry point. Exit codes: 0, 1 for what was refused or failed, 2 for wrong flags."""
    given = vars(parser().parse_args(arguments))
    mode = {name for name in ("validate", "detach", "cleanup") if given.pop(name, False)}
    config_file: Path | None = given.pop("config_file")
    try:
        config = load(_directives(given), config_file)
        if "validate" in mode:
            print("configuration OK")
            return 0
        if os.geteuid() != 0:
            raise Forbidden("netengined needs to be started as root: it makes network namespaces; try: sudo netengined")
        if "cleanup" in mode:
            return _cleanup(config)
        return _start(config, detached="detach" in mode)
    except NetengineError as error:
        print(f"netengined: {error.message}", file=sys.stderr)
        return 1


def _directives(given: dict[str, object]) -> dict[str, object]:
    """Flags by their directive's name. A relative path is one from the working directory, as in any command."""
    directives = {name.replace("_", "-"): value for name, value in given.items()}
    for name in _PATHS:
        if isinstance(path := directives.get(name), str):
            directives[name] = os.path.abspath(path) if path else path
    return directives


def _start(config: Config, *, detached: bool) -> int:
    notifier, inherited = Notifier(os.environ), Inherited(os.environ)
    daemonlog.configure(config.log_level, os.environ)
    _report(hostcheck.check(config))
    _make_directories(config)
    outcome = Outcome()
    if detached:
        outcome = detach(None if daemonlog.to_journal(os.environ) else config.data_root / LOG_FILE)
    try:
        _run(config, inherited, notifier, outcome)
    except NetengineError as error:
        outcome.failed(1, f"netengined: {error.message}")
        if detached:
            log.error("%s", error.message)
            return 1
        raise
    except Exception as error:
        log.exception("the daemon fails")
        outcome.failed(1, f"netengined: {type(error).__name__}: {error}")
        return 1
    return 0


def _report(findings: list[hostcheck.Finding]) -> None:
    levels = {"fatal": logging.ERROR, "warn": logging.WARNING, "note": logging.INFO}
    for finding in findings:
        log.log(levels[finding.level], "%s", finding)
    fatal = [finding for finding in findings if finding.level == "fatal"]
    if fatal:
        raise Unavailable(f"this host lacks what netengine cannot do without: {'; '.join(one.what for one in fatal)}")


def _make_directories(config: Config) -> None:
    # exec-root may be passed through by the socket's group, but not listed; data-root is root's alone.
    for path, mode in ((config.exec_root, 0o711), (config.data_root, 0o710)):
        try:
            path.mkdir(mode=mode, parents=True, exist_ok=True)
        except OSError as error:
            raise Invalid(f"the directory {path} cannot be made: {error.strerror}") from error


def _run(config: Config, inherited: Inherited, notifier: Notifier, outcome: Outcome) -> None:
    # What a start makes, it makes to stay: to look for garbage in it again and again would take a tenth of the time.
    gc.disable()
    from netengine.api.server import serve

    _raise_descriptor_limit()
    with ExitStack() as stack:
        stack.enter_context(LockFile(config.data_root / DATA_LOCK))
        stack.enter_context(LockFile(config.pidfile))
        listeners = open_listeners(config, inherited, stack)

        async def life() -> None:
            stop = asyncio.Event()
            _handle_signals(stop, notifier)

            def on_ready() -> None:
                names = ", ".join(shown(listener) for listener in listeners)
                log.info("netengine %s serves on %s", __version__, names)
                notifier.ready(f"serving on {names}")
                outcome.ready()
                asyncio.get_running_loop().call_later(_TIDY_SECONDS, _tidy_up)

            await serve(config, listeners, on_ready, stop)

        asyncio.run(life())
    log.info("stopped; networks and containers go on")


_TIDY_SECONDS = 1.0


def _tidy_up() -> None:
    """After the start: give back what it needed and nobody holds any more, and never look through the rest again."""
    gc.collect()
    gc.freeze()
    gc.enable()
    with suppress(AttributeError):  # a C library other than glibc has none
        ctypes.CDLL(None).malloc_trim(0)


def _handle_signals(stop: asyncio.Event, notifier: Notifier) -> None:
    loop = asyncio.get_running_loop()

    def leave(number: signal.Signals) -> None:
        if stop.is_set():
            log.error("%s once more: leaving at once", number.name)
            os._exit(128 + number)
        log.info("%s: stopping", number.name)
        notifier.stopping()
        stop.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, leave, number)
    message = "SIGHUP is ignored: the configuration is read at start; to change it, restart the daemon"
    loop.add_signal_handler(signal.SIGHUP, log.warning, message)


def _raise_descriptor_limit() -> None:
    """A listener per published port and sockets per sandbox soon exceed the usual soft limit of 1024."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def _cleanup(config: Config) -> int:
    from netengine.api.server import cleanup

    daemonlog.configure(config.log_level, os.environ)
    with ExitStack() as stack:
        if config.data_root.exists():  # the lock proves that no daemon works on what is about to go
            stack.enter_context(LockFile(config.data_root / DATA_LOCK))
        try:
            for line in cleanup(config):
                print(line)
        except OSError as error:
            raise Unavailable(f"not everything could be removed: {error}; do it again when that is mended") from error
    return 0


if __name__ == "__main__":
    sys.exit(main())
