"""ftplib with vsftpd: files over protected data connections, which `ftplib` ends with `unwrap`. vsftpd's default, that each of
them resumes the session of the control connection, works with `resume_sessions` alone."""

import ftplib
import io

from common import HOW, NAME, PORTS, client_context, outcome, report, switch

switch()

DATA = bytes(range(256)) * 20_000


def move(port, context):
    with ftplib.FTP_TLS(context=context) as client:
        client.connect(NAME, port)
        client.login()
        client.prot_p()
        client.cwd("in")
        sent = client.storbinary("STOR file", io.BytesIO(DATA), blocksize=65536)
        got = bytearray()
        answer = client.retrbinary("RETR file", got.extend, blocksize=65536)
        client.storlines("STOR lines", io.BytesIO(b"one\r\ntwo\r\n"))
        lines = []
        client.retrlines("RETR lines", lines.append)
        client.storbinary("STOR empty", io.BytesIO(b""))
        names = sorted(client.nlst())
        for name in names:
            client.delete(name)
        return sent[:3], answer[:3], got == DATA, lines, names


free, demands_resumption = PORTS
moved = move(free, client_context())
refused = outcome(lambda: move(demands_resumption, client_context()))
if HOW != "stdlib":
    context = client_context()
    context.resume_sessions = True
    assert move(demands_resumption, context) == moved
report(moved=moved, refused=refused[:1])  # what the broken connection was told by depends on the moment
