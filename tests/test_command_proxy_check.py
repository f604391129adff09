"""`python -m sslsock proxy --check`, as a process, and `check_files`, which it and every start and reload use."""

from __future__ import annotations

import datetime
import importlib.util
import os
import re
from pathlib import Path
from typing import Optional

import pytest
import trustme

from command_helpers import Identity, identity, one_line, run
from judged import DAY, NOW, issue, revoke
from sslsock.__main__ import make_parser
from sslsock.proxy.check import check_files
from sslsock.proxy.settings.model import SettingsError
from sslsock.proxy.settings.options import make_settings
from sslsock.proxy.settings.tls_profiles import missing_text, profile

__all__ = ["identity"]

DOCUMENT = (Path(__file__).resolve().parent.parent / "docs" / "proxy.md").read_text()
TLS = ("--listen", "tls://localhost:0", "--to", "tcp://localhost:1")
BACK = ("--listen", "tcp://localhost:0", "--to", "tls://localhost:1")


def warnings(*arguments: object) -> list[str]:
    """What check_files says of settings that are good."""
    found: list[str] = []
    check_files(make_settings(make_parser().parse_args(["proxy", *map(str, arguments)])), found.append)
    return found


def complaint(*arguments: object) -> str:
    with pytest.raises(SettingsError) as caught:
        warnings(*arguments)
    return str(caught.value)


def issued(folder: Path, days: float, begin: Optional[float] = None) -> Path:
    now = datetime.datetime.now(datetime.timezone.utc)
    leaf = trustme.CA().issue_cert(
        "a.example",
        common_name="a",
        not_before=now + datetime.timedelta(days=-100 if begin is None else begin),
        not_after=now + datetime.timedelta(days=days),
    )
    leaf.private_key_and_cert_chain_pem.write_to_path(folder / "leaf.pem")
    (folder / "leaf.pem").chmod(0o600)
    return folder / "leaf.pem"


def needs_toml() -> None:
    if not any(map(importlib.util.find_spec, ("tomllib", "tomli"))):
        pytest.skip("there is no reader of TOML: install tomli")


def test_good_settings_are_told_in_one_line(identity: Identity, tmp_path: Path) -> None:
    other = issued(tmp_path, 100)
    result = run("proxy", *TLS, "--cert", identity.cert, "--key", identity.key, "--cert", other, "--check")
    assert (result.returncode, result.stderr) == (0, b"")
    assert result.stdout == b"The settings are good: 1 listener, 1 route, 2 certificates\n"


@pytest.mark.parametrize(("count", "told"), [(1, b"1 worker process"), (3, b"3 worker processes")])
def test_worker_processes_are_told(count: int, told: bytes) -> None:
    result = run("proxy", *TLS, "--processes", str(count), "--check")
    assert result.stdout == b"The settings are good: 1 listener, 1 route, 0 certificates, %b\n" % told


def test_check_writes_nothing(tmp_path: Path) -> None:
    assert run("proxy", *TLS, "--ca-out", tmp_path / "ca.pem", "--check").returncode == 0
    assert not list(tmp_path.iterdir())


def test_the_example_of_the_document_is_good(identity: Identity, tmp_path: Path) -> None:
    needs_toml()
    if importlib.util.find_spec("prometheus_client") is None:
        pytest.skip("there is no prometheus_client")
    (example,) = re.findall(r"```toml\n([\s\S]*?)```", DOCUMENT)
    names = set(re.findall(r'"([\w.-]+\.(?:pem|key))"', example))
    assert len(names) == 6, "the files of the example"
    for name in names:
        source = identity.ca if "-ca" in name else identity.key if name.endswith("key") else identity.cert
        (tmp_path / name).write_bytes(source.read_bytes())
    other = identity.authority.issue_cert("example.org")
    other.private_key_pem.write_to_path(tmp_path / "example.org.key")
    other.cert_chain_pems[0].write_to_path(tmp_path / "example.org.pem")
    path = tmp_path / "proxy.toml"
    path.write_text(example)
    result = run("proxy", "--config", path, "--check")
    assert result.stdout == b"The settings are good: 2 listeners, 4 routes, 3 certificates\n", result.stderr
    assert result.returncode == 0

    (tmp_path / "example.org.pem").unlink()
    result = run("proxy", "--config", path, "--check")
    line = 1 + example[: example.index("cert =")].count("\n")
    assert result.returncode == 2
    assert one_line(result) == f"sslsock: {path}:{line}: cert: {tmp_path}/example.org.pem: No such file or directory"


def test_the_document_names_every_option_and_default() -> None:
    cells = [row.split("|")[1] for row in DOCUMENT.splitlines() if row.startswith("| `--")]
    rows = {option for cell in cells for option in re.findall(r"`(--[\w-]+)", cell)}
    help_text = run("proxy", "--help").stdout.decode()
    listed = set(re.findall(r"^  (--[\w-]+)", help_text, re.M))
    assert rows == listed
    assert "| `--listen SCHEME://HOST:PORT` | needed |" in DOCUMENT


def test_files_of_a_toml_file_are_told_with_their_lines(identity: Identity, tmp_path: Path) -> None:
    needs_toml()
    good, none = identity.both, tmp_path / "none"
    head = '[[listener]]\nlisten = "tls://:1"\nto = "tls://a:1"\n'
    for line, text, name in (
        (5, f'{head}cert = ["{good}",\n"none"]\n', "cert"),
        (5, f'{head}cert = "{good}"\nkey = "none"\n', "key"),
        (4, f'{head}client-ca = "none"\n', "client-ca"),
        (4, f'{head}to-ca = "none"\n', "to-ca"),
        (4, f'{head}to-cert = "none"\n', "to-cert"),
        (5, f'{head}to-cert = "{good}"\nto-key = "none"\n', "to-key"),
        (7, f'{head}[[listener.route]]\nalpn = "x"\nto = "tls://a:1"\nto-ca = "none"\n', "to-ca"),
        (6, f"{head}{head.replace(':1', ':2', 1)}", ""),
        (1, f'ticket-key-file = "none"\n{head}', "ticket-key-file"),
    ):
        path = tmp_path / "proxy.toml"
        path.write_text(text)
        if not name:
            assert warnings("--config", path) == []
            continue
        assert complaint("--config", path).startswith(f"{path}:{line}: {name}: {none}: ")


def test_wrong_files_are_told_with_their_options(identity: Identity, tmp_path: Path) -> None:
    text, damaged, folder = tmp_path / "text", tmp_path / "damaged.pem", tmp_path / "folder"
    text.write_text("no certificate\n")
    folder.mkdir()
    whole = identity.cert.read_text()
    line = whole.count("\n") + 1
    damaged.write_text(whole + re.sub(r"\n.{20}", "\n" + "A" * 20, whole, count=1))
    other = trustme.CA().issue_cert("x").private_key_pem
    other.write_to_path(tmp_path / "other.key")
    for option, path, words in (
        ("--cert", tmp_path / "none", "No such file or directory"),
        ("--cert", folder, "Is a directory"),
        ("--cert", text, ""),
        ("--cert", damaged, f"block 2 (line {line}): the certificate in the PEM text is damaged"),
        ("--client-ca", text, ""),
        ("--client-ca", damaged, f"block 2 (line {line}): the certificate in the PEM text is damaged"),
        ("--ca-out", tmp_path / "none" / "ca.pem", f"there is no folder {tmp_path}/none"),
        ("--ca-out", folder, "it is a folder"),
    ):
        found = complaint(*TLS, option, path)
        assert found.startswith(f"{option}: {path}: {words}"), found
        assert len(found) > len(f"{option}: {path}: ")
    assert complaint(*TLS, "--cert", identity.cert).endswith(
        "; the key may be in a file of its own, but no other is named (--key)"
    )
    found = complaint(*TLS, "--cert", identity.cert, "--key", tmp_path / "other.key")
    assert found.startswith(f"--key: {tmp_path}/other.key: ") and str(identity.cert) in found
    assert complaint(*TLS, "--cert", identity.cert, "--key", text).startswith(f"--key: {text}: ")
    assert complaint(*BACK, "--to-ca", text).startswith(f"--to-ca: {text}: ")
    assert complaint(*BACK, "--to-cert", text).startswith(f"--to-cert: {text}: ")


def test_lists_of_networks_are_read(tmp_path: Path) -> None:
    file = tmp_path / "banned.txt"
    arguments = ("--listen", "tcp://127.0.0.1:0", "--to", "tcp://127.0.0.1:1", "--deny-source-file", file)
    assert f"--deny-source-file: {file}: No such file or directory" in complaint(*arguments)
    file.write_text("10.0.0.0/8\n\n10.0.0.1/8  # host bits\n")
    assert f"--deny-source-file: {file}:3: 10.0.0.1/8 has host bits set" in complaint(*arguments)
    file.write_text("10.0.0.0/8\n")
    assert warnings(*arguments) == []


def test_certificates_of_which_one_would_never_be_used(identity: Identity, tmp_path: Path) -> None:
    other = tmp_path / "other.pem"
    identity.authority.issue_cert("localhost", "127.0.0.1", "::1").private_key_and_cert_chain_pem.write_to_path(other)
    found = complaint(*TLS, "--cert", identity.both, "--cert", other)
    assert found.startswith(f"--cert: {other}: it is for the same names") and found.endswith(str(identity.both))
    needs_toml()
    path = tmp_path / "proxy.toml"
    path.write_text(f'[[listener]]\nlisten = "tls://:1"\nto = "tcp://a:1"\ncert = ["{identity.both}",\n"other.pem"]\n')
    assert complaint("--config", path).startswith(f"{path}:5: cert: {other}: ")


@pytest.mark.parametrize(
    ("option", "text", "words"),
    [
        ("--ciphers", "NO-SUCH", "'NO-SUCH': no cipher match"),
        ("--ciphers", "!aNULL", "'!aNULL': no cipher match"),
        ("--ciphersuites", "TLS_NONE", "'TLS_NONE': "),
        ("--ciphersuites", "TLS_RSA_WITH_AES_128_CBC_SHA", "'TLS_RSA_WITH_AES_128_CBC_SHA' is a cipher suite of TLS 1.2"),
        ("--groups", "X25519:P-1", "'P-1': this OpenSSL has no such group"),
        ("--signature-algorithms", "ECDSA+MD6", "'ECDSA+MD6': this OpenSSL has no such signature algorithm"),
        ("--signature-algorithms", "\0", "holds a NUL character"),
    ],
)
def test_algorithms_that_openssl_has_not(tmp_path: Path, option: str, text: str, words: str) -> None:
    assert complaint(*TLS, option, text).startswith(f"{option}: {words}")
    assert complaint(*BACK, f"--to-{option[2:]}", text).startswith(f"--to-{option[2:]}: ")
    if "\0" not in text:
        needs_toml()
        path = tmp_path / "proxy.toml"
        path.write_text(f'[[listener]]\nlisten = "tls://:1"\nto = "tcp://a:1"\n{option[2:]} = "{text}"\n')
        assert complaint("--config", path).startswith(f"{path}:4: {option[2:]}: {words}")


def test_a_cipher_suite_that_is_left_out_is_a_warning() -> None:
    good = "ECDHE-ECDSA-AES128-GCM-SHA256"
    assert warnings(*TLS, "--ciphers", f"{good}:ECDHE+AESGCM:!aNULL:-SHA:@SECLEVEL=1") == []
    for option, known in (("--ciphers", good), ("--ciphersuites", "TLS_AES_128_GCM_SHA256")):
        found = warnings(*TLS, option, f"{known}:MISTYPED")
        assert found == [f"warning: {option}: 'MISTYPED': this OpenSSL has no such cipher suite here; it is left out"]
    assert len(warnings(*TLS, "--ciphers", f"{good}:TLS_AES_128_GCM_SHA256")) == 1, "which is for --ciphersuites"


def test_a_limit_that_is_never_met_is_a_warning(tmp_path: Path) -> None:
    idle = "has no effect: idle-timeout ends such a connection after"
    assert warnings(*TLS, "--half-closed-timeout", "301") == [f"warning: --half-closed-timeout: {idle} 300 seconds"]
    assert warnings(*TLS, "--half-closed-timeout", "2", "--idle-timeout", "1.5") == [
        f"warning: --half-closed-timeout: {idle} 1.5 seconds"
    ]
    for fine in ("--half-closed-timeout=300", "--half-closed-timeout=301 --idle-timeout=0", "--handshake-rate=5"):
        assert warnings(*TLS, *fine.split()) == []
    rates = "--handshake-rate", "--handshake-rate-per-source"
    assert warnings(*BACK, *(f"{rate}=5" for rate in rates)) == [
        f"warning: {rate}: has no effect: no listener is tls" for rate in rates
    ]
    needs_toml()
    path = tmp_path / "proxy.toml"
    plain = '[[listener]]\nlisten = "tcp://localhost:0"\nto = "tls://localhost:1"\n'
    tls = '[[listener]]\nlisten = "tls://localhost:0"\nto = "tcp://localhost:1"\n'
    own = "handshake-rate = 5\nmax-connections = 10\nmax-handshakes = 20\n"
    path.write_text(f"handshake-rate = 7\nmax-connections = 9\n{plain}{own}{tls}{own}")
    assert warnings("--config", path) == [
        f"warning: {path}:6: handshake-rate: has no effect: tcp://localhost:0 has no handshakes",
        f"warning: {path}:7: max-connections: has no effect: there are 9 for all listeners",
        f"warning: {path}:13: max-connections: has no effect: there are 9 for all listeners",
    ]


def test_what_openssl_lacks_of_a_profile_is_a_warning(identity: Identity) -> None:
    """DES-CBC3-SHA is there only with enable-weak-ssl-ciphers. The certificates of `identity` are ECDSA."""
    assert warnings(*TLS, "--tls-profile", "intermediate", "--cert", identity.both) == []
    assert warnings(*TLS, "--tls-profile", "modern", "--cert", identity.both) == []
    found = warnings(*TLS, "--tls-profile", "old", "--cert", identity.both)
    missing = profile("old").missing
    assert [line for line in found if "has no" in line] == (
        [f"warning: --tls-profile: old: {missing_text('old')}; it is left out"] if missing else []
    )
    assert found[-1].endswith("old: the guidelines ask for keys of type RSA, and those here are EC")


def test_revocation_lists(identity: Identity, tmp_path: Path) -> None:
    root = issue("root", ca=True)
    client, crl = ("--client-ca", identity.ca), tmp_path / "some.crl"
    for text, words in (
        (revoke(root), ""),
        (revoke(root, begin=NOW - 2 * DAY, end=NOW - DAY), "the revocation list of CN=root has expired on "),
        (revoke(root, begin=NOW + DAY, end=NOW + 2 * DAY), "the revocation list of CN=root is not valid before "),
    ):
        crl.write_bytes(text)
        found = warnings(*TLS, *client, "--crl", crl)
        assert len(found) == bool(words)
        assert all(line.startswith(f"warning: --crl: {crl}: {words}") for line in found)
        assert len(warnings(*BACK, "--to-crl", crl)) == bool(words)
    whole = revoke(root)
    for text in (b"", b"nonsense\n", identity.ca.read_bytes(), re.sub(rb"\n.{20}", b"\n" + b"A" * 20, whole, count=1)):
        crl.write_bytes(text)
        assert complaint(*TLS, *client, "--crl", crl).startswith(f"--crl: {crl}: ")
        assert complaint(*BACK, "--to-crl", crl).startswith(f"--to-crl: {crl}: ")
    assert complaint(*TLS, *client, "--crl", tmp_path / "none").endswith("No such file or directory")


def test_names_that_cannot_be_meant(identity: Identity) -> None:
    client = ("--client-ca", identity.ca)
    found = complaint(*TLS, *client, "--allow-name", "a.example", "--allow-name", "10.0.0.*")
    assert found.startswith("--allow-name: '10.0.0.*' looks like an address") and "10.0.0.0/24" in found
    assert warnings(*TLS, *client, "--allow-name", "10.0.0.0/24") == []


def test_a_back_end_behind_an_interface_that_is_not_here() -> None:
    found = complaint("--listen", "tcp://localhost:0", "--to", "tcp://localhost:1", "--to", "tcp://[fe80::1%nowhere]:1")
    assert found == "--to: tcp://[fe80::1%nowhere]:1: this machine has no interface by the name behind %"


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    assert complaint(*TLS, "--ca-out", tmp_path / "ca.pem").endswith("it cannot be written")


@pytest.mark.parametrize(
    ("days", "begin", "words"),
    [
        (-1, None, r"has expired on \d{4}-\d\d-\d\d$"),
        (13.5, None, r"expires on \d{4}-\d\d-\d\d, in 13 days$"),
        (15, None, None),
        (300, 2, r"is not valid before \d{4}-\d\d-\d\d \d\d:\d\d UTC$"),
    ],
)
def test_a_certificate_out_of_its_time_is_a_warning(
    tmp_path: Path, days: float, begin: Optional[float], words: Optional[str]
) -> None:
    path = issued(tmp_path, days, begin)
    found = warnings(*TLS, "--cert", path)
    assert len(found) == (words is not None)
    if words is not None:
        assert re.search(rf"^warning: --cert: {path}: the certificate of .*{words}", found[0])


def test_warnings_go_to_standard_error_and_leave_the_status(tmp_path: Path) -> None:
    result = run("proxy", *TLS, "--cert", issued(tmp_path, -1), "--check")
    assert result.returncode == 0
    assert one_line(result).startswith("sslsock: warning: --cert: ")


def test_a_chain_with_a_gap_is_a_warning(identity: Identity, tmp_path: Path) -> None:
    path = tmp_path / "gap.pem"
    stranger = trustme.CA(organization_name="Strangers").cert_pem.bytes()
    path.touch(0o600)
    path.write_bytes(identity.both.read_bytes() + stranger)
    (found,) = warnings(*TLS, "--cert", path)
    assert "its chain has a gap" in found
    path.write_bytes(identity.both.read_bytes() + identity.ca.read_bytes())
    assert warnings(*TLS, "--cert", path) == []


def test_a_key_that_others_can_read_is_told_at_what_names_its_file(tmp_path: Path) -> None:
    needs_toml()
    path = issued(tmp_path, 100)
    path.chmod(0o644)
    (found,) = warnings(*TLS, "--cert", path)
    assert found.startswith(f"warning: --cert: {path}: others than its owner and group")
    (found,) = warnings(*TLS, "--cert", path, "--key", path)
    assert found.startswith(f"warning: --cert: {path}: ")
    file = tmp_path / "proxy.toml"
    file.write_text('[[listener]]\nlisten = "tls://localhost:0"\ncert = "leaf.pem"\nto = "tcp://localhost:1"\n')
    (found,) = warnings("--config", file)
    assert found.startswith(f"warning: {file}:3: ")


def test_the_user_must_exist() -> None:
    assert complaint(*TLS, "--user", "no-such-user").startswith("--user: cannot become user 'no-such-user': ")
    assert complaint(*TLS, "--user", "root").startswith("--user: cannot become user 'root': ")  # there would be nothing to drop
    assert warnings(*TLS, "--user", "nobody") == []


def test_the_ticket_keys_must_be_good(tmp_path: Path) -> None:
    path = tmp_path / "keys"
    path.write_text("short\n")
    path.chmod(0o600)
    assert complaint(*TLS, "--ticket-key-file", path).startswith(f"--ticket-key-file: {path}:1: ")
    path.chmod(0o644)
    assert "permissions 0644 expose the keys" in complaint(*TLS, "--ticket-key-file", path)


def test_metrics_without_the_package(monkeypatch: pytest.MonkeyPatch) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "prometheus_client" else find(name))
    assert complaint(*TLS, "--metrics", ":0") == (
        "--metrics: it needs the package prometheus_client: pip install 'sslsock[proxy]'"
    )


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "--listen is missing"),
        (["--listen", "udp://:1", "--to", "tcp://a:1"], "the scheme is tls or tcp"),
        (["--cert", "a", "--key", "b", "--key", "c", *TLS], "--key c: there is no --cert before it"),
        (["--config", "/nowhere/x.toml", "--cert", "a"], "--cert is a listener's"),
        (["--config", "/nowhere/x.toml"], "/nowhere/x.toml: No such file"),
        (["--nonsense"], "unrecognized arguments: --nonsense"),
        ([*TLS, "--crt", "a"], "unrecognized arguments: --crt a; did you mean --cert?"),
        ([*TLS, "--Idle_Timeout=5"], "unrecognized arguments: --Idle_Timeout=5; did you mean --idle-timeout?"),
    ],
)
def test_wrong_usage_ends_with_2_with_and_without_check(arguments: list[str], words: str) -> None:
    for check in ([], ["--check"]):
        result = run("proxy", *arguments, *check)
        assert result.returncode == 2
        assert words in one_line(result)
