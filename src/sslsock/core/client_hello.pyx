"""The ClientHello: what a client offers, read from its first bytes without a TLS engine and without input or output.

Every byte comes from a stranger. A message is gathered from its records (RFC 8446, 5.1) into one `bytes` first; then each
length in it is checked by `take` and `take_vector` alone, against what is left of the vector around it. A field that does not
end where its length says, a list of odd or no length, an extension that comes twice: ClientHelloError, as libssl would refuse
it. So a message that is accepted here says the same to libssl.

`ClientHello` keeps the message and where its parts lie; the properties decode them when they are asked for.
"""

cimport cython
from cpython.buffer cimport PyBUF_SIMPLE, PyBuffer_Release, PyObject_GetBuffer
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from libc.string cimport memchr, memcmp, memcpy, memset

from openssl_sha cimport sha256

cdef enum:
    RECORD_HEADER = 5  # bytes
    MESSAGE_HEADER = 4
    RECORD_MAX = 16384
    BOUND = 64 * 1024
    FIRST_TYPE = 20  # content types, RFC 8446, B.1
    HANDSHAKE = 22
    LAST_TYPE = 24
    CLIENT_HELLO = 1  # handshake type, RFC 8446, 4
    EXTENSION_SERVER_NAME = 0  # RFC 6066, 3
    EXTENSION_GROUPS = 10  # RFC 8422, 5.1.1; RFC 8446, 4.2.7
    EXTENSION_SIGNATURES = 13  # RFC 8446, 4.2.3
    EXTENSION_ALPN = 16  # RFC 7301, 3.1
    EXTENSION_VERSIONS = 43  # RFC 8446, 4.2.1
    MOST_NAME = 255  # bytes of a server name, as in libssl (TLSEXT_MAXLEN_host_name)

    # alerts, RFC 8446, 6
    UNEXPECTED_MESSAGE = 10
    RECORD_OVERFLOW = 22
    ILLEGAL_PARAMETER = 47
    DECODE_ERROR = 50
    UNRECOGNIZED_NAME = 112

MAX_CLIENT_HELLO = BOUND

cdef dict JA4_VERSIONS = {0x0304: "13", 0x0303: "12", 0x0302: "11", 0x0301: "10", 0x0300: "s3", 0x0002: "s2"}
cdef str NOTHING_HASHED = "000000000000"


class ClientHelloError(ValueError):
    """Bytes that are no TLS ClientHello, or a malformed or too long one.

    alert: int, the alert to answer with (RFC 8446, 6); 0 for a peer that does not speak TLS, which libssl sends none either.
    """

    def __init__(self, text, alert=DECODE_ERROR):
        super().__init__(text)
        self.alert = alert


cdef inline unsigned int two(const unsigned char *data) noexcept nogil:
    return (<unsigned int> data[0] << 8) | data[1]


cdef inline bint take(part *rest, unsigned int size, part *piece) noexcept nogil:
    """Cut `size` bytes off the front of `rest`; False when it has fewer."""
    if size > rest.size:
        return False
    piece.start = rest.start
    piece.size = size
    rest.start += size
    rest.size -= size
    return True


cdef inline bint take_vector(const unsigned char *data, part *rest, unsigned int prefix, part *piece) noexcept nogil:
    """Cut a vector off the front of `rest`, whose length stands before it in `prefix` bytes, 1 or 2."""
    cdef part length
    if not take(rest, prefix, &length):
        return False
    return take(rest, data[length.start] if prefix == 1 else two(data + length.start), piece)


cdef inline bint whole_list(const unsigned char *data, part content, unsigned int prefix, part *piece) noexcept nogil:
    """`content` is one vector of 16-bit numbers, at least one, and nothing else."""
    return take_vector(data, &content, prefix, piece) and content.size == 0 and piece.size >= 2 and piece.size % 2 == 0


cdef inline bint is_grease(unsigned int number) noexcept nogil:
    """RFC 8701, 2: 0x0A0A, 0x1A1A, …, 0xFAFA."""
    return number & 0x0F0F == 0x0A0A and number >> 8 == number & 0xFF


@cython.final
cdef class ClientHello:
    """What a client offers in the first message of a TLS handshake. Read-only; `SslSocket.client_hello_handler` is given one.

    The lists are as the client sent them, in its order, GREASE values (RFC 8701) among them; what the numbers mean is in
    IANA's registries. Nothing of it is authenticated.
    """

    def __cinit__(self):
        self.message = b""

    def __init__(self):
        raise TypeError("a ClientHello comes from client_hello_handler")

    cdef int dissect(self) except -1:
        """Find the parts of `message`. ClientHelloError."""
        cdef const unsigned char *data = <const unsigned char *> PyBytes_AS_STRING(self.message)
        cdef unsigned char seen[8192]  # a bit an extension: searching would be quadratic in what a stranger sends
        cdef unsigned int number
        cdef part rest, piece, content
        rest.start = 0
        rest.size = <unsigned int> PyBytes_GET_SIZE(self.message)
        if not (
            take(&rest, MESSAGE_HEADER + 2 + 32, &piece)  # legacy_version, random
            and take_vector(data, &rest, 1, &piece) and piece.size <= 32  # legacy_session_id
            and take_vector(data, &rest, 2, &self.ciphers) and self.ciphers.size >= 2 and self.ciphers.size % 2 == 0
            and take_vector(data, &rest, 1, &piece) and piece.size >= 1  # legacy_compression_methods
        ):
            raise ClientHelloError("the ClientHello is malformed")
        if rest.size == 0:  # RFC 5246, 7.4.1.2: before TLS 1.3 the extensions may be missing altogether
            return 0
        if not take_vector(data, &rest, 2, &self.extension_list) or rest.size:
            raise ClientHelloError("the ClientHello's extensions do not end where it ends")
        memset(seen, 0, sizeof(seen))
        rest = self.extension_list
        while rest.size:
            if not take(&rest, 2, &piece) or not take_vector(data, &rest, 2, &content):
                raise ClientHelloError("an extension of the ClientHello is cut short")
            number = two(data + piece.start)
            if seen[number >> 3] & (1 << (number & 7)):  # RFC 8446, 4.2
                raise ClientHelloError(f"the ClientHello has extension {number} twice", ILLEGAL_PARAMETER)
            seen[number >> 3] |= 1 << (number & 7)
            self.note_extension(number, content)
        return 0

    cdef int note_extension(self, unsigned int number, part content) except -1:
        cdef const unsigned char *data = <const unsigned char *> PyBytes_AS_STRING(self.message)
        cdef part names, kind, name
        cdef bint good = True
        if number == EXTENSION_SERVER_NAME:
            # RFC 6066 has a list, of which libssl, like everybody, takes one host_name (type 0) and nothing else. What the name
            # is made of is not looked at, as in libssl: clients send addresses, underscores and raw UTF-8, and get an answer.
            good = (
                take_vector(data, &content, 2, &names) and content.size == 0
                and take(&names, 1, &kind) and data[kind.start] == 0
                and take_vector(data, &names, 2, &self.name) and names.size == 0
            )
            if good and (self.name.size > MOST_NAME or memchr(data + self.name.start, 0, self.name.size) != NULL):
                raise ClientHelloError(f"the server name has a NUL or more than {MOST_NAME} bytes", UNRECOGNIZED_NAME)
            self.named = True
        elif number == EXTENSION_ALPN:
            good = take_vector(data, &content, 2, &self.alpn) and content.size == 0 and self.alpn.size >= 2
            names = self.alpn
            while good and names.size:
                good = take_vector(data, &names, 1, &name) and name.size >= 1
        elif number == EXTENSION_VERSIONS:
            good = whole_list(data, content, 1, &self.versions)
            self.versioned = True
        elif number == EXTENSION_GROUPS:
            good = whole_list(data, content, 2, &self.group_list)
        elif number == EXTENSION_SIGNATURES:
            good = whole_list(data, content, 2, &self.signatures)
        if not good:
            raise ClientHelloError(f"extension {number} of the ClientHello is malformed")
        return 0

    cdef tuple numbers(self, part numbers):
        cdef const unsigned char *data = <const unsigned char *> PyBytes_AS_STRING(self.message)
        cdef unsigned int place
        return tuple([two(data + place) for place in range(numbers.start, numbers.start + numbers.size, 2)])

    @property
    def server_name(self):
        """The host asked for (SNI), as the client wrote it: upper case perhaps, or no host name at all; what is not UTF-8 is there as
        lone surrogates ("surrogateescape"). str, None when it named none."""
        if self.name.size == 0:
            return None
        return self.message[self.name.start:self.name.start + self.name.size].decode("utf-8", "surrogateescape")

    @property
    def next_protocols(self):
        """The protocols offered by ALPN, most wanted first: tuple of str."""
        cdef const unsigned char *data = <const unsigned char *> PyBytes_AS_STRING(self.message)
        cdef part rest = self.alpn, name
        cdef list found = []
        while rest.size and take_vector(data, &rest, 1, &name):
            found.append(self.message[name.start:name.start + name.size].decode("utf-8", "surrogateescape"))
        return tuple(found)

    @property
    def protocols(self):
        """The protocol versions offered, newest first, without GREASE: tuple of int, which equal those of SslProtocol. Of a
        client that sends no list of them (before TLS 1.3): the newest that it has."""
        if not self.versioned:
            return self.numbers(part(MESSAGE_HEADER, 2)) if self.message else ()
        return tuple(sorted([number for number in self.numbers(self.versions) if not is_grease(number)], reverse=True))

    @property
    def cipher_suites(self):
        """The cipher suites offered: tuple of int."""
        return self.numbers(self.ciphers)

    @property
    def groups(self):
        """The groups offered for the key exchange: tuple of int."""
        return self.numbers(self.group_list)

    @property
    def signature_algorithms(self):
        """The signature algorithms accepted: tuple of int."""
        return self.numbers(self.signatures)

    @property
    def extensions(self):
        """The numbers of all extensions: tuple of int."""
        cdef const unsigned char *data = <const unsigned char *> PyBytes_AS_STRING(self.message)
        cdef part rest = self.extension_list, number, content
        cdef list found = []
        while rest.size and take(&rest, 2, &number) and take_vector(data, &rest, 2, &content):
            found.append(two(data + number.start))
        return tuple(found)

    @property
    def ja4(self):
        """JA4, a fingerprint of the client's TLS by FoxIO's rules, such as "t13d1516h2_8daaf6152771_e5627efa2ab1": str. Made
        when it is first asked for."""
        if self.fingerprint is None:
            self.fingerprint = ja4_of(self)
        return self.fingerprint

    def __repr__(self):
        name = self.server_name
        return f"<ClientHello {'without a server name' if name is None else ascii(name)[1:-1]}, {self.ja4}>"


# JA4: https://github.com/FoxIO-LLC/ja4/blob/main/technical_details/JA4.md


cdef list without_grease(tuple numbers):
    return [number for number in numbers if not is_grease(number)]


cdef str hexadecimal(list numbers):
    cdef bytearray wire = bytearray()
    cdef unsigned int number
    for number in numbers:
        wire.append(number >> 8)
        wire.append(number & 0xFF)
    return wire.hex(",", 2)


cdef str ja4_hash(str text):
    return sha256(text.encode("ascii")).hex()[:12]


cdef str ja4_alpn(ClientHello hello):
    """First and last character of the first protocol; of its hexadecimal form if one of them is no letter or digit."""
    cdef const unsigned char *data = <const unsigned char *> PyBytes_AS_STRING(hello.message)
    cdef unsigned int size
    cdef bytes name
    if hello.alpn.size == 0:
        return "00"
    size = data[hello.alpn.start]
    name = hello.message[hello.alpn.start + 1:hello.alpn.start + 1 + size]
    ends = name[:1] + name[size - 1:]
    return ends.decode("ascii") if ends.isalnum() else ends.hex()[0] + ends.hex()[3]


cdef str ja4_of(ClientHello hello):
    cdef list ciphers = without_grease(hello.cipher_suites), extensions = without_grease(hello.extensions)
    cdef list sorted_extensions, signatures = without_grease(hello.signature_algorithms)
    versions = hello.protocols
    version = JA4_VERSIONS.get(versions[0], "00") if versions else "00"
    first = (
        f"t{version}{'d' if hello.named else 'i'}{min(len(ciphers), 99):02}{min(len(extensions), 99):02}{ja4_alpn(hello)}"
    )
    second = ja4_hash(hexadecimal(sorted(ciphers))) if ciphers else NOTHING_HASHED
    sorted_extensions = sorted(
        [number for number in extensions if number != EXTENSION_SERVER_NAME and number != EXTENSION_ALPN])
    third = NOTHING_HASHED
    if sorted_extensions:
        third = hexadecimal(sorted_extensions)
        third = ja4_hash(f"{third}_{hexadecimal(signatures)}" if signatures else third)
    return f"{first}_{second}_{third}"


cdef bint is_http(const unsigned char *data, size_t size) noexcept nogil:
    """By the beginnings that libssl knows too (SSL_R_HTTP_REQUEST): a browser, or a check, that was told the wrong scheme."""
    return size >= 5 and (
        memcmp(data, b"GET ", 4) == 0 or memcmp(data, b"POST ", 5) == 0 or memcmp(data, b"HEAD ", 5) == 0
        or memcmp(data, b"PUT ", 4) == 0
    )


cdef ClientHello read_client_hello(const unsigned char *data, size_t size):
    """`parse_client_hello`, from memory that does not change meanwhile."""
    cdef unsigned char header[MESSAGE_HEADER]
    cdef size_t end = min(size, <size_t> BOUND), place = 0, have = 0, length = 0, record, piece, index
    while place < end:
        # What is wrong already is told without waiting for more: plain HTTP, for one.
        if not FIRST_TYPE <= data[place] <= LAST_TYPE or (place + 1 < end and data[place + 1] != 3):
            raise ClientHelloError(f"the peer does not speak TLS{' (http request)' if is_http(data, end) else ''}", 0)
        if data[place] != HANDSHAKE:
            raise ClientHelloError("the TLS connection does not begin with a ClientHello", UNEXPECTED_MESSAGE)
        if end - place < RECORD_HEADER:
            break
        record = two(data + place + 3)
        if record == 0 or record > RECORD_MAX:  # RFC 8446, 5.1
            raise ClientHelloError("a TLS record of the ClientHello has an impossible length", RECORD_OVERFLOW)
        place += RECORD_HEADER
        piece = min(record, end - place)
        for index in range(have, min(have + piece, <size_t> MESSAGE_HEADER)):
            header[index] = data[place + index - have]
        have += piece
        place += piece
        if have and header[0] != CLIENT_HELLO:
            raise ClientHelloError("the TLS connection does not begin with a ClientHello", UNEXPECTED_MESSAGE)
        if have >= MESSAGE_HEADER:
            length = MESSAGE_HEADER + ((<size_t> header[1] << 16) | two(header + 2))
            if length > BOUND:
                break
            if have >= length:
                return gathered(data, length)
    if size >= BOUND or length > BOUND:
        raise ClientHelloError(f"the ClientHello is longer than {BOUND} bytes", RECORD_OVERFLOW)
    return None


cdef ClientHello gathered(const unsigned char *data, size_t length):
    """The message of `length` bytes that lies in the records at `data`, all of it there."""
    cdef ClientHello hello = ClientHello.__new__(ClientHello)
    cdef char *message
    cdef size_t have = 0, piece
    hello.message = PyBytes_FromStringAndSize(NULL, length)
    message = PyBytes_AS_STRING(hello.message)
    while have < length:
        piece = min(<size_t> two(data + 3), length - have)
        memcpy(message + have, data + RECORD_HEADER, piece)
        have += piece
        data += RECORD_HEADER + piece
    hello.dissect()
    return hello


def parse_client_hello(data):
    """Read the ClientHello at the beginning of `data` (bytes-like): what a client has sent so far, records and all. Returns a
    ClientHello; None while it is incomplete, which `MAX_CLIENT_HELLO` bytes never are. ClientHelloError for what is no
    ClientHello, malformed, or longer than that."""
    cdef Py_buffer view
    PyObject_GetBuffer(data, &view, PyBUF_SIMPLE)
    try:
        return read_client_hello(<const unsigned char *> view.buf, view.len)
    finally:
        PyBuffer_Release(&view)
