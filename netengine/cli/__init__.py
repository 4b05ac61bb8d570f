"""The `netengine` command: a thin client of the Docker Engine API on a unix socket, in Docker's words.

Nothing here decides anything about networks or containers: a command turns flags into one or a few API calls and answers
into text. Start-up time is a feature (a shell prompt, a completion or a script calls this many times), so the modules keep to
three rules: a command's module is imported only when that command runs; the common path imports no more of the standard
library than json, os, socket and time (no typing, dataclasses, http.client, argparse); annotations are never evaluated.

    main       entry point: global flags, dispatch, exit codes        catalogue   every command: where it lives, what it does
    flags      Docker's flag grammar; Command and Flag                 help        help pages, rendered from those
    transport  HTTP/1.1 over a unix socket, streams, hijacking         engine      the API: paths, JSON, errors
    remote     the way to a daemon over TCP, with TLS                  console     asking at the terminal
    listing    tables and --format                                     template    the subset of Go templates behind --format
    ports, containerspec, endpoints, moments, phrases                  flag values and figures, both ways, pure
    network, containers, inspect, run, execute, logs, images, system, explain, completion      the commands

It imports nothing of netengine except errors and __version__.
"""
