"""Authorities are read once for all contexts, and what one context is given besides never reaches another."""

from __future__ import annotations

import os
import ssl as stdlib
import threading
from pathlib import Path

import pytest
import trustme
from tls_pairs import Files, python

from sslsock import ssl
from sslsock.core.files import names_in, state_of


def authority(path: Path, *cas: trustme.CA) -> Path:
    path.write_bytes(b"".join(ca.cert_pem.bytes() for ca in cas))
    return path


def trusted(context: stdlib.SSLContext) -> set[bytes]:
    return set(context.get_ca_certs(binary_form=True))


def der(ca: trustme.CA) -> bytes:
    return stdlib.PEM_cert_to_DER_cert(ca.cert_pem.bytes().decode())


def client(*files: Path) -> stdlib.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    for file in files:
        context.load_verify_locations(file)
    return context


@pytest.fixture(scope="module")
def cas() -> list[trustme.CA]:
    return [trustme.CA(organization_name=f"authority {number}") for number in range(3)]


def test_contexts_of_one_file_trust_the_same(tmp_path: Path, cas: list[trustme.CA]) -> None:
    file = authority(tmp_path / "ca.pem", *cas[:2])
    contexts = [client(file) for _ in range(3)]
    assert [trusted(context) for context in contexts] == [{der(ca) for ca in cas[:2]}] * 3
    assert contexts[0].cert_store_stats() == {"x509": 2, "crl": 0, "x509_ca": 2}


def test_a_file_that_has_changed_is_read_again(tmp_path: Path, cas: list[trustme.CA]) -> None:
    file = authority(tmp_path / "ca.pem", cas[0])
    before = client(file)
    authority(tmp_path / "new.pem", cas[1]).replace(file)
    after = client(file)
    assert trusted(before) == {der(cas[0])}, "a context keeps what it was given"
    assert trusted(after) == {der(cas[1])}


@pytest.mark.parametrize("how", ["file", "text", "binary", "defaults"])
def test_what_one_context_is_given_besides_reaches_no_other(
    tmp_path: Path, cas: list[trustme.CA], how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = authority(tmp_path / "ca.pem", cas[0])
    other = authority(tmp_path / "other.pem", cas[1])
    monkeypatch.setenv("SSL_CERT_FILE", str(other))
    monkeypatch.setenv("SSL_CERT_DIR", str(tmp_path / "none"))
    changed, kept = client(file), client(file)
    if how == "file":
        changed.load_verify_locations(other)
    elif how == "text":
        changed.load_verify_locations(cadata=cas[1].cert_pem.bytes().decode())
    elif how == "binary":
        changed.load_verify_locations(cadata=der(cas[1]))
    else:
        changed.set_default_verify_paths()
    assert trusted(changed) == {der(cas[0]), der(cas[1])}
    assert trusted(kept) == trusted(client(file)) == {der(cas[0])}


@pytest.mark.parametrize("first", ["text", "folder"])
def test_a_file_joins_what_is_there(tmp_path: Path, cas: list[trustme.CA], first: str) -> None:
    file = authority(tmp_path / "ca.pem", cas[0])
    context = client()
    if first == "text":
        context.load_verify_locations(cadata=cas[1].cert_pem.bytes().decode())
    else:
        (tmp_path / "folder").mkdir()
        context.load_verify_locations(capath=tmp_path / "folder")
    context.load_verify_locations(file)
    context.load_verify_locations(file)  # twice is once
    expected = {der(cas[0])} | ({der(cas[1])} if first == "text" else set())
    assert trusted(context) == expected
    assert trusted(client(file)) == {der(cas[0])}


def test_the_systems_authorities_are_those_of_the_interpreter(
    tmp_path: Path, cas: list[trustme.CA], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(authority(tmp_path / "system.pem", cas[0])))
    monkeypatch.setenv("SSL_CERT_DIR", str(tmp_path))
    ours, theirs = ssl.create_default_context(), stdlib.create_default_context()
    assert trusted(ours) == trusted(theirs) == {der(cas[0])}
    ours.load_verify_locations(cadata=der(cas[1]))
    assert trusted(ssl.create_default_context()) == {der(cas[0])}, "the system's store has no other's authorities"
    authority(tmp_path / "new.pem", cas[2]).replace(tmp_path / "system.pem")
    assert trusted(ssl.create_default_context()) == {der(cas[2])}, "the system's file is followed"


def test_many_files_are_all_right(tmp_path: Path, cas: list[trustme.CA]) -> None:
    """More than are kept."""
    files = [authority(tmp_path / f"{number}.pem", cas[number % 3]) for number in range(40)]
    contexts = [client(file) for file in files]
    assert [trusted(context) for context in contexts] == [{der(cas[number % 3])} for number in range(40)]


def test_threads_that_read_one_file(tmp_path: Path, cas: list[trustme.CA]) -> None:
    file = authority(tmp_path / "ca.pem", *cas)
    found: list[set[bytes]] = []

    def work() -> None:
        for number in range(50):
            if number % 5 == 0:
                os.utime(file, (number, number))  # so that it is read anew
            found.append(trusted(client(file)))

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [{der(ca) for ca in cas}] * 400


def test_a_file_that_cannot_be_read_changes_nothing(tmp_path: Path, cas: list[trustme.CA]) -> None:
    context = client(authority(tmp_path / "ca.pem", cas[0]))
    (tmp_path / "empty.pem").write_bytes(b"nothing")
    empty = tmp_path / "empty.pem"
    for path, error in ((tmp_path / "none.pem", FileNotFoundError), (tmp_path, IsADirectoryError), (empty, stdlib.SSLError)):
        with pytest.raises(error) as raised:
            context.load_verify_locations(path)
        assert path == empty or raised.value.filename == str(path)
        with pytest.raises(error):
            client(path)
    assert trusted(context) == {der(cas[0])}


def test_files_are_read_as_the_interpreters_ssl_reads_them(files: Files) -> None:
    """By the system's calls: what forbids those of Python in an event loop (blockbuster) forbids no context."""
    shown = python(
        """
        import builtins, io, os, sys
        ca_file, server_file = sys.argv[1:]
        from sslsock import ssl

        def forbidden(*arguments, **options):
            raise AssertionError("a call of Python")

        for module, names in ((os, "stat lstat open read scandir listdir access"), (builtins, "open"), (io, "open")):
            for name in names.split():
                setattr(module, name, forbidden)
        for _ in range(2):
            context = ssl.create_default_context()
            context.load_verify_locations(ca_file)
            ssl.create_default_context(cafile=ca_file)
            context.load_cert_chain(server_file)
            context.load_cert_chain(server_file, server_file)
        print("ok")
        """,
        files.ca_file, files.server_file,
    )  # fmt: skip
    assert shown == "ok\n"


def test_a_file_longer_than_a_piece_is_read_whole(files: Files, tmp_path: Path) -> None:
    long = tmp_path / "server.pem"
    long.write_bytes(b"words before it\n" * 10_000 + files.server_file.read_bytes())
    ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(long)


def test_the_names_in_a_folder_are_the_systems(tmp_path: Path) -> None:
    for name in ("a", "\udcff", "n" * 255):
        (tmp_path / name).touch()
    assert sorted(names_in(str(tmp_path))) == sorted([*os.listdir(tmp_path), ".", ".."])
    assert names_in(str(tmp_path / "none")) == [] and state_of(str(tmp_path / "none")) is None
    assert state_of("a\0b") is None
