"""The contexts of a listener: made when a client needs them, and kept as long as what they are made of is the same."""

from __future__ import annotations

import base64
import gc
import os
import threading
from pathlib import Path
from typing import Any, Optional

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from self_signed import EC_KEY, RSA_KEY, Folder
from sslsock import Context, Engine
from sslsock.core.client_hello import ClientHello, parse_client_hello
from sslsock.core.context import VERIFY_NONE, ConfigurationError
from sslsock.core.ticket_keys import TicketKeys
from sslsock.proxy.files.reading import Reading
from sslsock.proxy.policy import ListenerPolicy
from sslsock.proxy.settings.model import Address, KeyPair, ListenerSettings, Route, TlsPolicy

NAMES = [f"host{number}.test" for number in range(20)]


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    return Folder(tmp_path)


class Listening:
    """A listener, and what is in force for it."""

    def __init__(self, pairs: list[KeyPair], **settings: Any) -> None:
        route = Route((Address("tcp", "127.0.0.1", 1),))
        self.settings = ListenerSettings(Address("tls", "", 1), (route,), key_pairs=tuple(pairs), **settings)
        self.keys = TicketKeys()
        self.reading = Reading()
        self.policy = ListenerPolicy(self.settings, self.keys, None, self.reading)

    def reload(self, **settings: Any) -> None:
        self.settings = self.settings._replace(**settings)
        self.reading = Reading(starting=False, before=self.reading)
        self.policy = ListenerPolicy(self.settings, self.keys, self.policy, self.reading)

    def context(self, name: str) -> Context:
        route, context = self.policy.choose(hello_for(name))
        assert route is not None and context is not None
        return context


def hello_for(name: Optional[str]) -> ClientHello:
    context = Context(server_side=False, verify_mode=VERIFY_NONE, use_system_ca=False)
    hello = parse_client_hello(Engine(context, server_name=name).start())
    assert hello is not None
    return hello


def contexts() -> int:
    """How many there are."""
    gc.collect()
    return sum(isinstance(one, Context) for one in gc.get_objects())


def test_no_context_is_made_for_a_name_that_nobody_asks_for(folder: Folder) -> None:
    pairs = [folder.pair(name) for name in NAMES]
    hello_for(NAMES[0])
    before = contexts()
    listening = Listening(pairs)
    at_start = contexts() - before
    assert at_start <= 2, f"{at_start} contexts for the default, and for all that are checked"
    assert listening.context(NAMES[3]) is listening.context(NAMES[3])
    assert contexts() - before == at_start + 1


def test_a_reload_keeps_contexts_of_what_is_the_same_and_no_other(folder: Folder) -> None:
    pairs = [folder.pair(name) for name in NAMES[:4]]
    listening = Listening(pairs)
    before = [listening.context(name) for name in NAMES[:4]]
    listening.reload()
    assert [listening.context(name) for name in NAMES[:4]] == before, "made again, though nothing has changed"
    other = folder.pair(NAMES[1])
    Path(pairs[1].certificate).write_bytes(Path(other.certificate).read_bytes())
    listening.reload()
    now = [listening.context(name) for name in NAMES[:4]]
    assert [a is b for a, b in zip(now, before)] == [True, False, True, True]
    listening.reload(key_pairs=tuple(pairs[:3]))
    assert listening.context(NAMES[3]) is listening.context(NAMES[0]), "a pair that is gone is still shown"
    listening.reload(key_pairs=tuple(pairs))
    assert listening.context(NAMES[3]) is not before[3]


def test_a_key_whose_private_half_alone_has_changed_is_taken(folder: Folder) -> None:
    """Keys are equal when their public halves are. A damaged private half fits the certificate, and makes no handshake."""
    key, other = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))
    pairs = [folder.pair(NAMES[0]), folder.pair(NAMES[1], key=key)]
    good = Path(pairs[1].key).read_bytes()
    plain = base64.b64decode(b"".join(good.splitlines()[1:-1]))
    own, foreign = (one.private_numbers().private_value.to_bytes(32, "big") for one in (key, other))
    assert plain.count(own) == 1
    encoded = base64.encodebytes(plain.replace(own, foreign))
    Path(pairs[1].key).write_bytes(b"-----BEGIN PRIVATE KEY-----\n%b-----END PRIVATE KEY-----\n" % encoded)
    listening = Listening(pairs)
    damaged = listening.context(NAMES[1])
    Path(pairs[1].key).write_bytes(good)
    listening.reload()
    assert listening.context(NAMES[1]) is not damaged, "the damaged key is still used"


def test_contexts_for_protocols_that_are_offered_no_more_are_let_go(folder: Folder) -> None:
    pairs = [folder.pair(name) for name in NAMES[:4]]
    hello_for(NAMES[0])
    before = contexts()
    listening = Listening(pairs, alpn=("h2",))
    for protocol in ("h2", "http/1.1", "h2", "imap"):
        listening.reload(alpn=(protocol,))
        assert len({listening.context(name) for name in NAMES[:4]}) == 4
        assert contexts() - before <= 5, f"{contexts() - before} contexts for four names"


@pytest.mark.parametrize("change", [{"policy": TlsPolicy(minimum_protocol=0x0304)}, {"alpn": ("h2",)}, "client-ca"])
def test_a_change_of_what_all_have_in_common_makes_all_anew(folder: Folder, change: Any) -> None:
    pairs = [folder.pair(name) for name in NAMES[:3]]
    listening = Listening(pairs)
    before = [listening.context(name) for name in NAMES[:3]]
    listening.reload(**({"client_ca": pairs[0].certificate} if change == "client-ca" else change))
    assert not {*before} & {listening.context(name) for name in NAMES[:3]}


def test_a_pair_that_the_policy_refuses_is_told_by_its_file_before_anybody_asks_for_it(folder: Folder) -> None:
    """Each pair alone is good; an RSA key of 2,048 bits is too weak for security level 3."""
    good, weak = folder.pair(NAMES[0], key=EC_KEY), folder.pair(NAMES[1], key=RSA_KEY)
    with pytest.raises(ConfigurationError, match=f"^{weak.certificate}: the certificate is refused: "):
        Listening([good, weak], policy=TlsPolicy(ciphers="DEFAULT:@SECLEVEL=3"))
    Listening([good], policy=TlsPolicy(ciphers="DEFAULT:@SECLEVEL=3"))


def test_a_certificate_without_names_may_lie_at_a_path_that_is_no_text(folder: Folder) -> None:
    pair = folder.pair()
    moved = os.path.join(folder.path, os.fsdecode(b"\xff.pem"))
    os.rename(pair.certificate, moved)
    assert Listening([pair._replace(certificate=moved)]).context(NAMES[0]) is not None


def test_threads_that_ask_at_once_get_the_same(folder: Folder) -> None:
    listening = Listening([folder.pair(name) for name in NAMES])
    hellos = [hello_for(name) for name in NAMES]
    together = threading.Barrier(4)
    found: list[list[Optional[Context]]] = []

    def ask() -> None:
        together.wait(60)
        found.append([listening.policy.choose(hello)[1] for hello in hellos])

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert len(found) == 4 and all(one == found[0] for one in found)
