"""Exit 0 if a port of this container answers 200: `healthcheck.py [PORT PATH]`.

By default the /healthz of a service. It uses sockets only: it starts every 30 s in each container,
and importing an HTTP client would take longer than the request.
"""

import os
import socket
import sys

port, path = sys.argv[1:] or (os.environ.get("OPS_PORT") or "9091", "/healthz")
with socket.create_connection(("127.0.0.1", int(port)), timeout=4) as connection:
    connection.sendall(f"GET {path} HTTP/1.0\r\nHost: localhost\r\n\r\n".encode())
    status = connection.makefile("rb").readline()
sys.exit(0 if status.split()[1:2] == [b"200"] else status.decode("latin-1"))
