"""smtplib, imaplib, poplib, ftplib: `context=context` (imaplib: `ssl_context=`), or `install()`; TLS and STARTTLS."""

import ftplib
import imaplib
import poplib
import smtplib

from common import NAME, client_context, report, scripted, switch
from peers import FTP, IMAP, POP, SMTP, dialogue

switch()

given = {"context": client_context()}
imap_given = {"ssl_context": client_context()}
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
