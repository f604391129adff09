"""asyncio on the core: an event loop whose queue, timers, sockets and TLS are C, and the same transports for loops that exist.

sslsock.aio.run(main())                 asyncio.run on our loop
sslsock.aio.install_policy()            programs that call asyncio.run themselves
sslsock.aio.serve(app, host, port, threads=4)   an application in several loops, each in a thread of its own
sslsock.aio.attach()                    connections of the loop that runs, uvloop's too
"""

from .event_loop import EventLoop, new_event_loop
from .functions import (
    connect_accepted_socket,
    create_connection,
    create_server,
    create_unix_connection,
    create_unix_server,
    open_connection,
    open_unix_connection,
    sendfile,
    start_server,
    start_tls,
    start_unix_server,
)
from .hosted import attach
from .running import install_policy, run
from .servers import Server
from .serving import serve
from .streams import StreamReader, StreamReaderProtocol, StreamWriter
from .transport import Transport

__all__ = [
    "EventLoop",
    "Server",
    "StreamReader",
    "StreamReaderProtocol",
    "StreamWriter",
    "Transport",
    "attach",
    "connect_accepted_socket",
    "create_connection",
    "create_server",
    "create_unix_connection",
    "create_unix_server",
    "install_policy",
    "new_event_loop",
    "open_connection",
    "open_unix_connection",
    "run",
    "sendfile",
    "serve",
    "start_server",
    "start_tls",
    "start_unix_server",
]
