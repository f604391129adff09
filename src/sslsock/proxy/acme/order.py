"""One certificate: order, questions, request, download (RFC 8555, 7.4 and 7.5). And ARI (RFC 9773), which says when.

The key and the order's address are stored before the authority is asked to issue: after a crash the certificate is fetched with
them, and not ordered a second time.
"""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from contextlib import suppress
from datetime import datetime, timezone
from typing import Any, Optional

from acme import crypto_util
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from .challenges import Challenges
from .client import Answer, Client, encoded, private_pem, shortened
from .failure import NETWORK, RATE_LIMITED, REJECTED, SERVER, TIMEOUT, VALIDATION, AcmeFailure
from .plan import Window
from .storage import Storage

__all__ = ["obtain", "renewal_window"]

PATIENCE = 600.0  # seconds for an order, at the most
FIRST_LOOK, LONGEST_LOOK = 0.25, 10.0  # seconds between looks, where the authority does not say; the first is the least


def obtain(
    client: Client, storage: Storage, challenges: Challenges, name: str, key_type: str, kind: str, replaced: Optional[bytes]
) -> bytes:
    """A certificate for `name`: its key, itself and its chain, in PEM. For whoever holds the storage's lock.

    kind: of the challenge. replaced: the certificate before it, in PEM, or None. AcmeFailure, OSError, Stopped.
    """
    end = time.monotonic() + PATIENCE
    place = f"orders/{name}.json"
    begun = read_order(storage, place)
    if begun is not None:
        try:
            return finish(client, begun["url"], begun["key"], name, end)
        except AcmeFailure as exc:
            if exc.reason in (NETWORK, TIMEOUT, RATE_LIMITED) or exc.code == "serverInternal":
                raise  # it may still come to a good end
        storage.remove(place)
    url, order = begin(client, name, replaced)
    authorizations = order.get("authorizations")
    if not isinstance(authorizations, list):
        raise AcmeFailure(SERVER, "the authority's order has no authorizations")
    for authorization in authorizations:
        answer_question(client, challenges, address_of(authorization), name, kind, end)
    pem = private_pem(new_key(key_type)).decode()
    storage.write(place, json.dumps({"url": url, "key": pem}).encode())
    try:
        return finish(client, url, pem, name, end)
    except AcmeFailure as exc:
        if exc.reason == REJECTED:
            storage.remove(place)
        raise


def read_order(storage: Storage, place: str) -> Optional[dict[str, str]]:
    data = storage.read(place)
    try:
        found = json.loads(data) if data is not None else None
    except ValueError:
        return None
    if isinstance(found, dict) and all(isinstance(found.get(key), str) for key in ("url", "key")):
        return found
    return None


def begin(client: Client, name: str, replaced: Optional[bytes]) -> tuple[str, dict[str, Any]]:
    """A new order: its address, and what it says."""
    place = client.place("newOrder")
    if place is None:
        raise AcmeFailure(SERVER, "the authority's directory has no newOrder")
    table: dict[str, object] = {"identifiers": [{"type": "dns", "value": name}]}
    if replaced is not None and client.place("renewalInfo") is not None:
        with suppress(ValueError):  # it has no name there
            table["replaces"] = identifier_of(replaced)  # RFC 9773, 5
    try:
        answer = client.post(place, table)
    except AcmeFailure as exc:
        # It may not know the certificate, or have seen it replaced: then it is an order like any other.
        if "replaces" not in table or exc.code not in ("alreadyReplaced", "malformed", "unauthorized"):
            raise
        del table["replaces"]
        answer = client.post(place, table)
    return address_of(answer.location), answer.table


def address_of(value: object) -> str:
    """Of a resource, as the authority tells it. AcmeFailure."""
    if not isinstance(value, str) or not value.startswith(("https://", "http://")):
        raise AcmeFailure(SERVER, f"the authority's answer has {value!r} where the address of a resource should be")
    return value


def answer_question(client: Client, challenges: Challenges, url: str, name: str, kind: str, end: float) -> None:
    """Prove that the name is ours, unless the authority knows it still."""
    found = client.post(url).table
    if found.get("status") == "valid":
        return
    offered = challenges_of(found)
    challenge = next((one for one in offered if one.get("type") == kind), None)
    if challenge is None:
        kinds = ", ".join(str(one.get("type")) for one in offered) or "none"
        raise AcmeFailure(REJECTED, f"the authority offers no challenge of type {kind} for {name}, but {kinds}")
    token = str(challenge.get("token"))
    challenges.publish(name, kind, token, f"{token}.{client.thumbprint()}")
    try:
        client.post(address_of(challenge.get("url")), {})
        found = settled(client, url, ("pending", "processing"), end)
    finally:
        challenges.withdraw(name)
    if found.get("status") != "valid":
        errors = [one["error"] for one in challenges_of(found) if one.get("error")]
        failure = client.problem(errors[0] if errors else None, VALIDATION)
        raise AcmeFailure(VALIDATION, str(failure), failure.retry_after, failure.code)


def challenges_of(authorization: dict[str, Any]) -> list[dict[str, Any]]:
    found = authorization.get("challenges")
    return [one for one in found if isinstance(one, dict)] if isinstance(found, list) else []


def settled(client: Client, url: str, open_states: Sequence[str], end: float) -> dict[str, Any]:
    """What a resource says once its status is none of these."""
    wait = FIRST_LOOK
    while True:
        answer = client.post(url)
        if answer.table.get("status") not in open_states:
            return answer.table
        pause(client, answer, wait, end)
        wait = min(wait * 1.5, LONGEST_LOOK)


def pause(client: Client, answer: Answer, wait: float, end: float) -> None:
    left = end - time.monotonic()
    if left <= 0:
        raise AcmeFailure(TIMEOUT, f"the authority came to no end within {PATIENCE:g} s", answer.retry_after)
    client.wait(min(left, wait if answer.retry_after is None else max(answer.retry_after, FIRST_LOOK)))


def finish(client: Client, url: str, pem: str, name: str, end: float) -> bytes:
    """Have the order's certificate issued, where it is not, and fetch it."""
    order = client.post(url).table
    if order.get("status") == "pending":
        raise AcmeFailure(REJECTED, "the authority's order is not ready, though its questions are answered")
    if order.get("status") == "ready":
        request = x509.load_pem_x509_csr(crypto_util.make_csr(pem.encode(), [name]))
        der = request.public_bytes(serialization.Encoding.DER)
        client.post(address_of(order.get("finalize")), {"csr": encoded(der)})
        order = settled(client, url, ("ready", "processing"), end)
    elif order.get("status") == "processing":
        order = settled(client, url, ("processing",), end)
    if order.get("status") != "valid":
        raise client.problem(order.get("error"))
    chain = client.post(address_of(order.get("certificate"))).body
    check(chain, pem, name)
    return pem.encode() + chain


def check(chain: bytes, pem: str, name: str) -> None:
    """Whether it is a certificate of this key, for this name, and not over yet: it takes the place of one that is good."""
    try:
        leaf = x509.load_pem_x509_certificate(chain)
        key = serialization.load_pem_private_key(pem.encode(), None)
    except ValueError as exc:
        raise AcmeFailure(SERVER, f"what the authority has issued is no certificate: {exc}") from None
    if leaf.public_key() != key.public_key():
        raise AcmeFailure(SERVER, "the certificate that the authority has issued is for another key")
    names = names_of(leaf)
    if name not in names:
        others = ", ".join(names) or "nobody"
        raise AcmeFailure(SERVER, f"the certificate that the authority has issued is for {shortened(others)}")
    if leaf.not_valid_after_utc <= datetime.now(timezone.utc):
        end = leaf.not_valid_after_utc
        raise AcmeFailure(SERVER, f"the certificate that the authority has issued ended at {end:%Y-%m-%d %H:%M:%S} UTC")


def names_of(leaf: x509.Certificate) -> list[str]:
    """Of hosts. A wildcard is a name like any other: none is ordered."""
    try:
        found = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except (x509.ExtensionNotFound, ValueError):  # ValueError: it cannot be read
        return []
    return [name.lower() for name in found.get_values_for_type(x509.DNSName)]


def new_key(key_type: str) -> Any:
    # Both without the GIL.
    return rsa.generate_private_key(65537, 2048) if key_type == "rsa" else ec.generate_private_key(ec.SECP256R1())


# ARI


def identifier_of(pem: bytes) -> str:
    """A certificate's name in ARI: RFC 9773, 4.1. ValueError: it has none, for it does not say by what key it was issued."""
    leaf = x509.load_pem_x509_certificate(pem)
    try:
        authority = leaf.extensions.get_extension_for_class(x509.AuthorityKeyIdentifier).value.key_identifier
    except x509.ExtensionNotFound:
        authority = None
    if authority is None:
        raise ValueError("the certificate has no authority key identifier")
    number = leaf.serial_number
    serial = number.to_bytes(number.bit_length() // 8 + 1, "big")  # the contents of an INTEGER in DER
    return f"{encoded(authority)}.{encoded(serial)}"


def renewal_window(client: Client, pem: bytes) -> tuple[Optional[Window], Optional[float]]:
    """When the authority suggests to renew a certificate, and the seconds after which it wants to be asked again, or None.
    No window: it has no opinion. AcmeFailure."""
    place = client.place("renewalInfo")
    if place is None:
        return None, None
    try:
        answer = client.get(f"{place}/{identifier_of(pem)}")
        found = answer.table["suggestedWindow"]
        window = Window(moment_of(found["start"]), moment_of(found["end"]))
    except (LookupError, TypeError, AttributeError, ValueError, OverflowError) as exc:
        raise AcmeFailure(SERVER, f"the authority's renewal information makes no sense: {exc}") from None
    if window.end < window.start:  # RFC 9773, 4.2: as if it had not answered
        raise AcmeFailure(SERVER, "the authority's renewal window ends before it begins")
    return window, answer.retry_after


def moment_of(text: str) -> float:
    """Of RFC 3339."""
    whole, _, rest = text.replace("Z", "+00:00").replace("z", "+00:00").partition(".")
    if rest:  # digits that `datetime` before 3.11 may not read
        whole += rest.lstrip("0123456789")
    found = datetime.fromisoformat(whole)
    if found.tzinfo is None:
        raise ValueError(f"{text!r} has no time zone")
    return found.timestamp()

