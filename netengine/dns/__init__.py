"""The name server: a process of its own, without privileges, that answers 127.0.0.11 inside sandboxes.

    client    the daemon's side of the control socket; imports `protocol` alone
    protocol  the frames and messages between the two
    control   the name server's side of that socket
    server    what happens to a packet: known name, refusal, or the forwarder
    wire      questions and answers as bytes; pure
    zones     networks, names and what a sandbox sees of them; pure
    forwarder unknown names, asked from other servers: who is asked when, and whose answer counts
    pending, alarms, upstream  a question under way; its deadlines; what is known of a server
    ports, exchange  the ways to the host's servers over UDP, and to any server over TCP
    tcp, datagrams, loop, privileges, stats, explain

Nothing here imports netengine beyond `netengine.errors`, and nothing here runs as root once the sockets are there.
"""
