"""gevent: `monkey.patch_all()` comes first, then `sslsock.ssl`. A greenlet that waits in TLS lets the others run."""

import gevent.monkey

gevent.monkey.patch_all()

import gevent

from common import NAME, client_context, module, report, scripted, switch

switch()
import socket

events = []


def serve(plain, start_tls):
    stream = start_tls()
    data = stream.recv(100)
    events.append("server has read")
    stream.sendall(data)
    return data.decode()


def client(port):
    with client_context().wrap_socket(socket.create_connection((NAME, port)), server_hostname=NAME) as tls:
        started.set()
        events.append("client waits")
        waited = gevent.spawn(tls.recv, 100)
        gevent.sleep(0)  # the other greenlet is in recv now
        events.append("others run")
        tls.sendall(b"hello")
        return waited.get().decode(), isinstance(tls, module().SSLSocket), type(tls._sslobj).__name__


import gevent.event

started = gevent.event.Event()
with scripted(serve) as (port, served):
    result = gevent.spawn(client, port).get()
report(result=result, events=events)
