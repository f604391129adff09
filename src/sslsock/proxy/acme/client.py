"""What is said to the authority (RFC 8555, 6 and 7.1 to 7.3): its directory, our account, requests that are signed by it.

Signatures, nonces and HTTP are those of the package `acme`.
"""

from __future__ import annotations

import base64
import io
import json
import threading
import time
from collections.abc import Mapping
from email.utils import parsedate_to_datetime
from typing import Any, NamedTuple, Optional, Union

import josepy
import requests
import urllib3
from acme import errors, messages
from acme.client import ClientNetwork
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from ..._version import __version__
from ..settings.model import AcmeSettings
from .failure import ACCOUNT, NETWORK, RATE_LIMITED, REJECTED, SERVER, STORAGE, VALIDATION, AcmeFailure, Stopped
from .storage import Storage

__all__ = ["Answer", "Client", "private_pem"]

ACCOUNT_PLACE = "account.json"
NONCES = 10  # times that a request is repeated whose nonce is refused
TIMEOUT_SECONDS = 30  # of one request
MOST_BYTES = 1 << 20  # of an answer; a certificate with its chain has some thousands
PIECE = 16384
LONGEST_WAIT = 14 * 86400.0  # seconds that an authority may put us off; rate limits are of a week
LONGEST_TEXT = 500  # characters of what the authority says

REASONS_BY_CODE = {
    "rateLimited": RATE_LIMITED,
    "serverInternal": SERVER,
    **dict.fromkeys(("accountDoesNotExist", "externalAccountRequired", "badPublicKey", "userActionRequired"), ACCOUNT),
    **dict.fromkeys(("invalidContact", "unsupportedContact", "badSignatureAlgorithm"), ACCOUNT),
    **dict.fromkeys(("connection", "dns", "incorrectResponse", "tls"), VALIDATION),
}


class Answer(NamedTuple):
    """What the authority has answered. location: of what was made; retry_after: seconds, None where it does not say."""

    body: bytes
    location: str
    retry_after: Optional[float]

    @property
    def table(self) -> dict[str, Any]:
        """A JSON object. AcmeFailure: it is none."""
        try:
            found = json.loads(self.body)
        except (ValueError, RecursionError):  # the latter: brackets within brackets without end
            found = None
        if not isinstance(found, dict):
            raise AcmeFailure(SERVER, "the authority's answer is no JSON object", self.retry_after)
        return found


class BoundedAdapter(requests.adapters.HTTPAdapter):  # type: ignore[misc,unused-ignore]
    """Takes no answer into memory that is larger than any has to be."""

    def send(self, request: Any, *args: Any, **options: Any) -> Any:
        """As `requests` says."""
        response = super().send(request, *args, **{**options, "stream": True})
        body = bytearray()
        try:
            for piece in response.raw.stream(PIECE, decode_content=True):
                body += piece
                if len(body) > MOST_BYTES:
                    response.close()
                    raise requests.exceptions.RequestException(f"an answer of more than {MOST_BYTES} bytes")
        except urllib3.exceptions.HTTPError as exc:
            raise requests.exceptions.ConnectionError(exc) from None
        response.raw = io.BytesIO(body)
        return response


class Payload:
    """A JSON object, as `ClientNetwork.post` wants to have it."""

    def __init__(self, table: Mapping[str, object]) -> None:
        self._table = table

    def json_dumps(self, **options: Any) -> str:
        return json.dumps(self._table)


class Client:
    """One account with one authority, kept in `storage`. Belongs to one thread, which holds the storage's lock where it writes.

    eab_key: of the external account, as bytes. verify: a file of authorities (PEM) for the directory's own certificate, or
    True. stopping: set when the proxy ends, which `wait` tells by Stopped.
    """

    def __init__(
        self,
        settings: AcmeSettings,
        storage: Storage,
        eab_key: Optional[bytes],
        verify: Union[str, bool],
        stopping: threading.Event,
    ) -> None:
        self._settings = settings
        self._storage = storage
        self._eab_key = eab_key
        self._verify = verify
        self._stopping = stopping
        self._directory: Optional[dict[str, Any]] = None
        self._network: Optional[Any] = None
        self._key: Any = None
        self._retry_after: Optional[float] = None

    def wait(self, seconds: float) -> None:
        if self._stopping.wait(seconds):
            raise Stopped

    # Requests

    def place(self, name: str) -> Optional[str]:
        """The address of a resource in the directory, None where the authority has none. AcmeFailure."""
        if self._directory is None:
            self._directory = self._get(self._settings.directory).table
        found = self._directory.get(name)
        return found if isinstance(found, str) else None

    def get(self, url: str) -> Answer:
        """Without a signature."""
        return self._get(url)

    def post(self, url: str, table: Optional[Mapping[str, object]] = None) -> Answer:
        """By our account. table: None for a POST-as-GET (RFC 8555, 6.3). AcmeFailure."""
        self.connect()
        try:
            return self._post(url, table)
        except AcmeFailure as exc:
            if exc.code != "accountDoesNotExist":
                raise
        # The authority has forgotten it, as those for trials do: it is made anew, once.
        self._register()
        return self._post(url, table)

    def _get(self, url: str) -> Answer:
        network = self._network or self._make_network(None)
        return self._send(lambda: network.get(url))

    def _post(self, url: str, table: Optional[Mapping[str, object]]) -> Answer:
        new_nonce = self.place("newNonce")
        payload = None if table is None else Payload(table)
        for left in reversed(range(NONCES)):
            try:
                return self._send(lambda: self._network.post(url, payload, new_nonce_url=new_nonce))  # type: ignore[union-attr]
            except AcmeFailure as exc:
                if exc.code != "badNonce" or not left:
                    raise
        raise AssertionError

    def _send(self, request: Any) -> Answer:
        if self._stopping.is_set():
            raise Stopped
        self._retry_after = None
        try:
            response = request()
        except messages.Error as exc:
            raise self.problem(exc.to_json()) from None
        except requests.exceptions.RequestException as exc:
            raise AcmeFailure(NETWORK, f"{self._settings.directory}: {shortened(exc)}") from None
        except errors.ConflictError as exc:  # of newAccount: not an error of ours
            raise AcmeFailure(ACCOUNT, f"the account exists as {exc.location}", None, "conflict") from None
        except errors.ClientError as exc:
            raise AcmeFailure(SERVER, f"the authority's answer makes no sense: {_seen(exc)}", self._retry_after) from None
        # The package looks at what it has got by using it.
        except (errors.Error, josepy.errors.Error, ValueError, TypeError, AttributeError, LookupError) as exc:
            raise AcmeFailure(SERVER, f"the authority's answer makes no sense: {shortened(exc)}", self._retry_after) from None
        return Answer(response.content, response.headers.get("Location", ""), self._retry_after)

    def problem(self, document: object, default: str = REJECTED) -> AcmeFailure:
        """A problem document (RFC 7807) as what is raised."""
        found = document if isinstance(document, dict) else {}
        code = str(found.get("type", "")).rpartition(":")[2]
        text = str(found.get("detail") or found.get("title") or code or "the authority has refused it, and does not say why")
        inner_problems = found.get("subproblems")
        for inner in inner_problems if isinstance(inner_problems, list) else ():
            if isinstance(inner, dict):
                text += f"; {inner.get('detail') or inner.get('type')}"
        return AcmeFailure(REASONS_BY_CODE.get(code, default), f"{code}: {shortened(text)}", self._retry_after, code)

    def _make_network(self, account: Optional[str]) -> Any:
        network = ClientNetwork(
            self._key,
            alg=josepy.ES256,
            verify_ssl=self._verify,
            user_agent=f"sslsock/{__version__}",
            timeout=TIMEOUT_SECONDS,
        )
        if account is not None:
            network.account = messages.RegistrationResource(uri=account, body=messages.Registration())
        for scheme in ("https://", "http://"):
            network.session.mount(scheme, BoundedAdapter())
        network.session.hooks["response"].append(self._note_response)
        return network

    def _note_response(self, response: Any, *args: object, **options: object) -> None:
        """Also of one that is an error, of which the package says nothing but the problem document."""
        self._retry_after = seconds_of(response.headers.get("Retry-After"))

    # The account

    def connect(self) -> None:
        """Have an account, of the storage or a new one. AcmeFailure, OSError."""
        if self._network is not None:
            return
        known = self._read_account()
        if known is not None:
            self._key = key_of(known["key"].encode())
            if known.get("uri") and known.get("terms") == self._terms():
                self._network = self._make_network(known["uri"])
                return
        else:
            pem = private_pem(ec.generate_private_key(ec.SECP256R1()))
            self._key = key_of(pem)
            # First, for a key whose account nobody can use would be lost.
            self._write_account({"key": pem.decode(), "uri": ""})
        self._register()

    def thumbprint(self) -> str:
        """Of the account's key: RFC 7638."""
        self.connect()
        return encoded(self._key.thumbprint())

    def _terms(self) -> dict[str, object]:
        """What an account was made with."""
        settings = self._settings
        return {"email": settings.email or "", "eab": settings.eab_kid or ""}

    def _register(self) -> None:
        self._network = network = self._make_network(None)
        url = self.place("newAccount")
        if url is None:
            raise AcmeFailure(SERVER, f"{self._settings.directory} is no directory of ACME: it has no newAccount")
        table: dict[str, object] = {"termsOfServiceAgreed": True}
        if self._settings.email is not None:
            table["contact"] = [f"mailto:{self._settings.email}"]
        if self._settings.eab_kid is not None:
            assert self._eab_key is not None
            table["externalAccountBinding"] = messages.ExternalAccountBinding.from_data(
                self._key.public_key(), self._settings.eab_kid, encoded(self._eab_key), {"newAccount": url}
            )
        try:
            answer = self._post(url, table)
            if not answer.location:
                raise AcmeFailure(SERVER, "the authority does not say where the account is")
            if table.get("contact") and answer.table.get("contact") not in (None, table["contact"]):
                network.account = messages.RegistrationResource(uri=answer.location, body=messages.Registration())
                self._post(answer.location, {"contact": table["contact"]})  # it was there before, with another one
        except BaseException:
            self._network = None
            raise
        pem = private_pem(self._key.key)
        self._write_account({"key": pem.decode(), "uri": answer.location, "terms": self._terms()})
        network.account = messages.RegistrationResource(uri=answer.location, body=messages.Registration())

    def _read_account(self) -> Optional[dict[str, Any]]:
        data = self._storage.read(ACCOUNT_PLACE)
        if data is None:
            return None
        try:
            found = json.loads(data)
            key_of(found["key"].encode())
        except (ValueError, TypeError, KeyError, AttributeError) as exc:
            # Not made anew: somebody may have it in a backup, and authorities bound how many accounts there may be.
            raise AcmeFailure(STORAGE, f"{ACCOUNT_PLACE} in the storage is damaged ({exc!r}): restore or remove it") from None
        return dict(found)

    def _write_account(self, table: Mapping[str, object]) -> None:
        self._storage.write(ACCOUNT_PLACE, json.dumps(table).encode())


def key_of(pem: bytes) -> Any:
    """ValueError."""
    serialization.load_pem_private_key(pem, None)  # first, for josepy makes a symmetric key of whatever else it gets
    return josepy.JWKEC.load(pem)


def private_pem(key: Any) -> bytes:
    text: bytes = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return text


def encoded(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def _seen(error: errors.ClientError) -> str:
    """What was answered in place of a resource or a problem: the package hands out the response, alone or with a reason."""
    first = error.args[0] if error.args else error
    response = first[0] if isinstance(first, tuple) and first else first
    if isinstance(response, requests.Response):
        return shortened(f"status {response.status_code} of {response.url}")
    return shortened(error)


def shortened(text: object) -> str:
    line = " ".join(str(text).split())
    return line if len(line) <= LONGEST_TEXT else f"{line[:LONGEST_TEXT]}…"


def seconds_of(value: Optional[str]) -> Optional[float]:
    """Of a Retry-After: seconds, or a date (RFC 9110, 10.2.3)."""
    if value is None:
        return None
    try:
        seconds = float(value) if value.isdigit() else parsedate_to_datetime(value).timestamp() - time.time()
        return min(max(0.0, seconds), LONGEST_WAIT)
    except (ValueError, TypeError, OverflowError):
        return None
