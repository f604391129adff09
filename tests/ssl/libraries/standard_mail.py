"""smtplib, imaplib, poplib, ftplib: `context=context` (imaplib: `ssl_context=`), or `install()`; TLS and STARTTLS."""

import ftplib
import imaplib
import poplib
import smtplib

from common import NAME, client_context, read_line, report, scripted, switch

switch()
given = {"context": client_context()}
imap_given = {"ssl_context": client_context()}


def dialogue(greeting, answers, upgrade=None, at_once=False):
    """A server that answers each line by its command; after `upgrade` it speaks TLS."""

    def talk(stream, start_tls):
        stream, heard = (start_tls() if at_once else stream), []
        stream.sendall(greeting)
        while True:
            line = read_line(stream).decode().split()
            words = [word.upper() for word in line]
            heard.append(" ".join(words))
            command = next(word for word in words if word in answers)
            tag = line[0].encode() if words[0] != command else b""
            stream.sendall(answers[command].replace(b"TAG", tag))
            if command == upgrade:
                stream = start_tls()
            if command in ("QUIT", "LOGOUT"):
                return heard

    return talk


SMTP = {"EHLO": b"250-hello\r\n250 STARTTLS\r\n", "STARTTLS": b"220 go\r\n", "NOOP": b"250 ok\r\n", "QUIT": b"221 bye\r\n"}
IMAP = {
    "CAPABILITY": b"* CAPABILITY IMAP4rev1 STARTTLS\r\nTAG OK done\r\n",
    "STARTTLS": b"TAG OK done\r\n",
    "NOOP": b"TAG OK done\r\n",
    "LOGOUT": b"* BYE\r\nTAG OK done\r\n",
}
POP = {"STLS": b"+OK\r\n", "CAPA": b"+OK\r\nSTLS\r\n.\r\n", "NOOP": b"+OK\r\n", "QUIT": b"+OK\r\n"}
FTP = {"AUTH": b"234 go\r\n", "PBSZ": b"200 ok\r\n", "PROT": b"200 ok\r\n", "PWD": b'257 "/here"\r\n', "QUIT": b"221 bye\r\n",
       "USER": b"331 and\r\n", "PASS": b"230 in\r\n"}  # fmt: skip
heard = {}

with scripted(dialogue(b"220 smtp\r\n", SMTP, "STARTTLS")) as (port, heard["smtp"]), smtplib.SMTP(NAME, port) as client:
    client.ehlo("me")
    client.starttls(**given)
    client.ehlo("me")
    client.noop()
smtps = scripted(dialogue(b"220 smtp\r\n", SMTP, at_once=True))
with smtps as (port, heard["smtps"]), smtplib.SMTP_SSL(NAME, port, **given) as client:
    client.ehlo("me")
with scripted(dialogue(b"* OK imap\r\n", IMAP, "STARTTLS")) as (port, heard["imap"]):
    client = imaplib.IMAP4(NAME, port)
    client.starttls(**imap_given)
    client.noop()
    client.logout()
with scripted(dialogue(b"* OK imap\r\n", IMAP, at_once=True)) as (port, heard["imaps"]):
    client = imaplib.IMAP4_SSL(NAME, port, **imap_given)
    client.noop()
    client.logout()
with scripted(dialogue(b"+OK pop\r\n", POP, "STLS")) as (port, heard["pop"]):
    client = poplib.POP3(NAME, port)
    client.stls(**given)
    client.noop()
    client.quit()
with scripted(dialogue(b"+OK pop\r\n", POP, at_once=True)) as (port, heard["pops"]):
    client = poplib.POP3_SSL(NAME, port, **given)
    client.noop()
    client.quit()
with scripted(dialogue(b"220 ftp\r\n", FTP, "AUTH")) as (port, heard["ftp"]):
    client = ftplib.FTP_TLS(**given)
    client.connect(NAME, port)
    client.login("me", "secret")
    client.prot_p()
    directory = client.pwd()
    client.quit()
for lines in heard["imap"] + heard["imaps"]:
    lines[:] = [line.partition(" ")[2] for line in lines]  # the tags are chosen at random
report(heard=heard, directory=directory)
