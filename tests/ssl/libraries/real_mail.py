"""smtplib with Postfix, imaplib and poplib with Dovecot: STARTTLS, TLS from the first byte, a client's certificate."""

import imaplib
import poplib
import smtplib

from common import CLIENT_FILE, HOW, NAME, PORTS, WRONG_NAME, client_context, outcome, report, switch

switch()

SMTP, SMTPS, CERTIFIED, IMAP, IMAPS, POP, POPS = PORTS
MESSAGE = "Subject: test\r\n\r\n" + "a line of the message\r\n" * 50_000
given = {"context": client_context()}


def send(client):
    return client.sendmail("a@example.test", ["b@example.test"], MESSAGE)


def post():
    with smtplib.SMTP(NAME, SMTP) as client:
        client.starttls(**given)
        done = [send(client), client.noop()[0]]
    with smtplib.SMTP_SSL(NAME, SMTPS, **given) as client:
        done.append(send(client))
    certified = client_context()
    certified.load_cert_chain(CLIENT_FILE)
    with smtplib.SMTP(NAME, CERTIFIED) as client:
        client.starttls(context=certified)
        done.append(send(client))
    return done


def fetch():
    sizes = []
    for tls in (False, True):
        client = imaplib.IMAP4_SSL(NAME, IMAPS, ssl_context=given["context"]) if tls else imaplib.IMAP4(NAME, IMAP)
        if not tls:
            client.starttls(ssl_context=given["context"])
        client.login(f"{HOW}-{tls}", "secret")
        for _ in range(3):
            client.append("INBOX", None, None, MESSAGE.encode())
        client.select("INBOX")
        found = client.search(None, "ALL")[1][0].split()
        sizes.append([len(client.fetch(number, "(RFC822)")[1][0][1]) for number in found])
        client.logout()
    return sizes


def collect():
    sizes = []
    for tls in (False, True):
        client = poplib.POP3_SSL(NAME, POPS, **given) if tls else poplib.POP3(NAME, POP)
        if not tls:
            client.stls(**given)
        client.user(f"{HOW}-{tls}")
        client.pass_("secret")
        sizes.append([client.retr(1)[2], client.stat()[0]])
        client.quit()
    return sizes


def post_to_a_wrong_name():
    with smtplib.SMTP(WRONG_NAME, SMTP) as client:
        client.starttls(**given)


wrong = (post_to_a_wrong_name, lambda: imaplib.IMAP4_SSL(WRONG_NAME, IMAPS, ssl_context=given["context"]),
         lambda: poplib.POP3_SSL(WRONG_NAME, POPS, **given))  # fmt: skip
report(sent=post(), fetched=fetch(), collected=collect(), wrong_name=[outcome(call) for call in wrong])
