"""Servers of databases, brokers, directories and files, each of Debian's package: started on free ports of the loopback with a
folder of their own, and ended by whoever has asked for them. Each demands TLS where its clients may choose.

The folder of each has `server.crt`, `server.key` and `ca.crt`, which its user can read.
"""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Callable, Optional

from peers import DEADLINE

from .mail import need_root, open_folder
from .pki import Pki
from .programs import SERVER_LIMIT, Program, cannot_run, free_port, program

# Writes what it needs into the folder, and returns the words that start the server.
Prepare = Callable[[Path, list[int]], list[str]]


@contextlib.contextmanager
def serving(
    pki: Pki, prepare: Prepare, *, ports: int = 1, owner: Optional[str] = None, ready: Optional[bytes] = None
) -> Iterator[list[int]]:
    """The ports of a server that listens. `owner` is the user that its files belong to; `ready` what it says when it can be
    used, for one that listens before."""
    for _ in range(3):  # somebody else may have taken a port
        with open_folder() as folder:
            copy_certificates(pki, folder, owner)
            chosen = [free_port() for _ in range(ports)]
            server = Program(prepare(folder, chosen), limit=SERVER_LIMIT)
            try:
                if is_ready(server, chosen[0], ready):
                    yield chosen
                    return
            finally:
                server.ask_to_end()
                server.close(10)
    raise AssertionError(server.text)


def copy_certificates(pki: Pki, folder: Path, owner: Optional[str]) -> None:
    certificate, key = pki.files(pki.server)
    for name, source in (("server.crt", certificate), ("server.key", key), ("ca.crt", pki.root_file)):
        shutil.copy(source, folder / name)
        (folder / name).chmod(0o600)
        if owner is not None:
            shutil.chown(folder / name, owner)
    if owner is not None:
        shutil.chown(folder, owner)


def is_ready(server: Program, port: int, word: Optional[bytes]) -> bool:
    end = time.monotonic() + DEADLINE
    while not server.ended and time.monotonic() < end:
        if word is not None:
            if word in server.out + server.err:
                return True
        else:
            with contextlib.suppress(ConnectionRefusedError), socket.create_connection(("127.0.0.1", port), DEADLINE):
                return True
        threading.Event().wait(0.02)
    return False


# Each: `with redis(pki) as ports`


def redis(pki: Pki) -> contextlib.AbstractContextManager[list[int]]:
    """Redis: it demands a client's certificate."""
    path = program("redis-server", "redis-server")

    def prepare(folder: Path, ports: list[int]) -> list[str]:
        files = [f"--tls-{kind}-file {folder}/{name}" for kind, name in
                 (("cert", "server.crt"), ("key", "server.key"), ("ca-cert", "ca.crt"))]  # fmt: skip
        options = f"--port 0 --tls-port {ports[0]} --bind 127.0.0.1 --dir {folder} --appendonly no --tls-auth-clients yes"
        return [path, *options.split(), "--save", "", *" ".join(files).split()]

    return serving(pki, prepare)


MOSQUITTO = """
listener {port} 127.0.0.1
certfile {folder}/server.crt
keyfile {folder}/server.key
cafile {folder}/ca.crt
require_certificate true
use_identity_as_username true
persistence false
user root
"""


def mosquitto(pki: Pki) -> contextlib.AbstractContextManager[list[int]]:
    """Mosquitto, an MQTT broker: it demands a client's certificate, whose common name is the user's."""
    path = program("mosquitto", "mosquitto")

    def prepare(folder: Path, ports: list[int]) -> list[str]:
        (folder / "conf").write_text(MOSQUITTO.format(port=ports[0], folder=folder))
        return [path, "-c", str(folder / "conf")]

    return serving(pki, prepare)


SLAPD = """
modulepath {modules}
moduleload back_mdb
include {schema}/core.schema
pidfile {folder}/pid
TLSCertificateFile {folder}/server.crt
TLSCertificateKeyFile {folder}/server.key
TLSCACertificateFile {folder}/ca.crt
TLSVerifyClient try
sizelimit unlimited
database mdb
suffix dc=example
rootdn cn=me,dc=example
rootpw secret
directory {folder}
dbnosync
security simple_bind=1
"""


def slapd(pki: Pki) -> contextlib.AbstractContextManager[list[int]]:
    """OpenLDAP: a port that is plain until StartTLS and one with TLS; passwords are taken over TLS only."""
    path = program("slapd", "slapd")
    schema = Path("/etc/ldap/schema")
    if not schema.exists():
        cannot_run("slapd has no schema")

    def prepare(folder: Path, ports: list[int]) -> list[str]:
        (folder / "conf").write_text(SLAPD.format(modules="/usr/lib/ldap", schema=schema, folder=folder))
        addresses = f"ldap://127.0.0.1:{ports[0]} ldaps://127.0.0.1:{ports[1]}"
        return [path, "-d", "0", "-f", str(folder / "conf"), "-h", addresses]

    return serving(pki, prepare, ports=2)


POSTGRESQL = """
ssl = on
ssl_cert_file = '{folder}/server.crt'
ssl_key_file = '{folder}/server.key'
ssl_ca_file = '{folder}/ca.crt'
listen_addresses = '127.0.0.1'
port = {port}
unix_socket_directories = ''
fsync = off
log_destination = stderr
"""
ACCESS = """
hostssl all me 127.0.0.1/32 scram-sha-256
hostssl all certified 127.0.0.1/32 cert map=names
"""


def postgresql(pki: Pki) -> contextlib.AbstractContextManager[list[int]]:
    """PostgreSQL: a user `me` with the password `secret`, and `certified`, whom a client's certificate tells."""
    folders = [str(one) for one in sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)]
    path = next((found for one in folders if (found := shutil.which("postgres", path=one))), None)
    path = path or program("postgres", "postgresql")
    as_user = user_words("postgres")

    def prepare(folder: Path, ports: list[int]) -> list[str]:
        data, password = folder / "data", folder / "password"
        password.write_text("secret")
        password.chmod(0o644)
        words = ["-D", str(data), "-U", "me", "--auth=scram-sha-256", f"--pwfile={password}", "-N", "--no-locale", "-E", "UTF8"]
        call([*as_user, str(Path(path).with_name("initdb")), *words])
        with open(data / "postgresql.conf", "a") as file:
            file.write(POSTGRESQL.format(folder=folder, port=ports[0]))
        (data / "pg_hba.conf").write_text(ACCESS)
        (data / "pg_ident.conf").write_text(f'names "{pki.client.subject}" certified\n')
        call([*as_user, path, "--single", "-D", str(data), "postgres"], b"create user certified;\n")
        return [*as_user, path, "-D", str(data)]

    return serving(pki, prepare, owner="postgres" if as_user else None, ready=b"ready to accept connections")


MARIADB = b"""
flush privileges;
create user me@'%' identified by 'secret';
grant all on *.* to me@'%';
create user certified@'%' require x509;
create database mine;
"""
SMALL = [
    "--lc-messages-dir=/usr/share/mysql",
    "--innodb-log-file-size=4M",
    "--innodb-buffer-pool-size=8M",
    "--innodb-data-file-path=ibdata1:4M:autoextend",
]


def mariadb(pki: Pki) -> contextlib.AbstractContextManager[list[int]]:
    """MariaDB: a user `me` with the password `secret`, and `certified`, of whom a client's certificate is demanded."""
    path = program("mariadbd", "mariadb-server-core")
    tables = [one for part in ("system_tables", "system_tables_data") for one in Path("/usr/share/mysql").glob(f"*_{part}.sql")]
    if len(tables) != 2:
        cannot_run("MariaDB's system tables are not in /usr/share/mysql")

    def prepare(folder: Path, ports: list[int]) -> list[str]:
        owner = pwd.getpwuid(os.geteuid()).pw_name
        data = folder / "data"
        data.mkdir()
        words = [path, "--no-defaults", f"--datadir={data}", f"--user={owner}", *SMALL]
        lines = [line for file in tables for line in file.read_bytes().splitlines() if b"@current_hostname" not in line]
        call([*words, "--bootstrap"], b"create database mysql;\nuse mysql;\n" + b"\n".join(lines) + MARIADB)
        tls = [f"--ssl-{kind}={folder}/{name}" for kind, name in
               (("cert", "server.crt"), ("key", "server.key"), ("ca", "ca.crt"))]  # fmt: skip
        listen = ["--bind-address=127.0.0.1", f"--port={ports[0]}", f"--socket={folder}/socket"]
        return [*words, *tls, *listen, "--require-secure-transport=on"]

    return serving(pki, prepare, ready=b"ready for connections")


NGINX = """
daemon off;
pid {folder}/pid;
error_log stderr;
events {{ worker_connections 256; }}
http {{
  access_log off;
  client_body_temp_path {folder};
  proxy_temp_path {folder};
  fastcgi_temp_path {folder};
  uwsgi_temp_path {folder};
  scgi_temp_path {folder};
  client_max_body_size 0;
  server {{
    listen 127.0.0.1:{port} ssl;
    ssl_certificate {folder}/server.crt;
    ssl_certificate_key {folder}/server.key;
    ssl_client_certificate {folder}/ca.crt;
    ssl_verify_client optional;
    ssl_protocols TLSv1.2 TLSv1.3;
    root {folder}/files;
    location /client {{ default_type text/plain; return 200 "$ssl_client_s_dn $ssl_protocol $server_protocol"; }}
  }}
}}
"""


def nginx(pki: Pki) -> contextlib.AbstractContextManager[list[int]]:
    """nginx: `/large` has 20 MB, `/client` tells of the client's certificate."""
    path = program("nginx", "nginx-light")

    def prepare(folder: Path, ports: list[int]) -> list[str]:
        (folder / "files").mkdir()
        (folder / "files/large").write_bytes(bytes(range(256)) * 80_000)
        (folder / "conf").write_text(NGINX.format(port=ports[0], folder=folder))
        return [path, "-e", "stderr", "-c", str(folder / "conf"), "-p", str(folder)]

    return serving(pki, prepare)


VSFTPD = """
listen=YES
listen_address=127.0.0.1
listen_port={port}
background=NO
anonymous_enable=YES
no_anon_password=YES
anon_root={folder}/files
write_enable=YES
anon_upload_enable=YES
anon_other_write_enable=YES
anon_mkdir_write_enable=YES
anon_umask=022
ssl_enable=YES
allow_anon_ssl=YES
force_anon_logins_ssl=YES
force_anon_data_ssl=YES
rsa_cert_file={folder}/server.crt
rsa_private_key_file={folder}/server.key
require_ssl_reuse={reuse}
ssl_ciphers=HIGH
seccomp_sandbox=NO
isolate=NO
isolate_network=NO
secure_chroot_dir={folder}/empty
xferlog_enable=NO
"""


def vsftpd(pki: Pki, reuse: bool) -> contextlib.AbstractContextManager[list[int]]:
    """vsftpd: anybody may come, over TLS. With `reuse`, its default, each data connection must resume the session of the
    control connection."""
    path = program("vsftpd", "vsftpd")
    need_root("vsftpd")

    def prepare(folder: Path, ports: list[int]) -> list[str]:
        (folder / "empty").mkdir()
        (folder / "files/in").mkdir(parents=True)
        (folder / "files/in").chmod(0o777)
        (folder / "conf").write_text(VSFTPD.format(port=ports[0], folder=folder, reuse="YES" if reuse else "NO"))
        return [path, str(folder / "conf")]

    return serving(pki, prepare)


def user_words(name: str) -> list[str]:
    """The words before a program that refuses to work as root."""
    return ["setpriv", f"--reuid={name}", f"--regid={name}", "--clear-groups"] if os.geteuid() == 0 else []


def call(words: list[str], told: bytes = b"") -> None:
    done = subprocess.run(words, input=told, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=DEADLINE * 4, cwd="/")
    assert done.returncode == 0, done.stdout.decode(errors="replace")
