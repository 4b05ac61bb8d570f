"""HTTP/1.1 on llhttp's parser (httptools): connections, requests, answers and streams. What is served is the caller's.

messages.py     what was asked, and what is answered
body.py         the bytes of a request as they come
receiver.py     bytes of a client as heads and pieces of requests; no input or output
chunks.py       where a chunked body ends
connection.py   one connection: requests in order, one at a time
stream.py       an answer that comes piece by piece
router.py       which path leads to which handler
transport.py    a local client's socket on the event loop
owner.py        what a connection needs of its server
server.py       all connections: listening, time limits, the end
"""

from netengine.http.body import Body
from netengine.http.connection import Connection
from netengine.http.messages import Answer, Handler, Query, Request, Response
from netengine.http.router import Router
from netengine.http.server import Server
from netengine.http.stream import Stream

__all__ = ["Answer", "Body", "Connection", "Handler", "Query", "Request", "Response", "Router", "Server", "Stream"]
