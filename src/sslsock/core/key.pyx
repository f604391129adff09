"""Keys: values, as loaded.pyx says."""

cimport cython
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE
from libc.string cimport memcpy, strcmp

from key_decoders cimport older_private_key, private_key_of
from openssl_err cimport (
    ERR_GET_LIB,
    ERR_GET_REASON,
    ERR_LIB_EVP,
    ERR_LIB_PEM,
    ERR_LIB_PKCS12,
    ERR_LIB_PROV,
    ERR_R_UNSUPPORTED,
    EVP_R_BAD_DECRYPT,
    EVP_R_UNKNOWN_PBE_ALGORITHM,
    EVP_R_UNSUPPORTED_ALGORITHM,
    EVP_R_UNSUPPORTED_CIPHER,
    PEM_R_BAD_DECRYPT,
    PKCS12_R_DECODE_ERROR,
    PKCS12_R_PKCS12_CIPHERFINAL_ERROR,
    PROV_R_BAD_DECRYPT,
    ERR_clear_error,
    ERR_get_error,
)
from openssl_x509 cimport *
from sslsock.core.loaded cimport Loaded
from sslsock.core.encoded cimport (
    PEM_KINDS, Source, free_block, next_block, open_text, openssl_reason, pem_block, refuse_block, refuse_der, refuse_pem,
    secret)

from enum import IntEnum

from sslsock.core.encoded import SslEncoding
from sslsock.core.foreign import foreign_key_der


class KeyType(IntEnum):
    """Which half of a key pair an `SslKey` is."""

    PUBLIC = 0
    PRIVATE = 1


class KeyAlgorithm(IntEnum):
    """What a key is made for.

    RSA_PSS is a key bound to RSASSA-PSS (RFC 4055). ML_DSA stands for its three sizes and needs OpenSSL 3.5.
    """

    RSA = 0
    DSA = 1
    EC = 2
    ED25519 = 3
    ED448 = 4
    ML_DSA = 5
    RSA_PSS = 6


cdef tuple ALGORITHM_NAMES = (
    (b"RSA", KeyAlgorithm.RSA),
    (b"EC", KeyAlgorithm.EC),
    (b"ED25519", KeyAlgorithm.ED25519),
    (b"ED448", KeyAlgorithm.ED448),
    (b"RSA-PSS", KeyAlgorithm.RSA_PSS),
    (b"DSA", KeyAlgorithm.DSA),
    (b"ML-DSA-44", KeyAlgorithm.ML_DSA),
    (b"ML-DSA-65", KeyAlgorithm.ML_DSA),
    (b"ML-DSA-87", KeyAlgorithm.ML_DSA),
)


cdef bint is_private_key(const char *label) noexcept nogil:
    return (
        strcmp(label, "PRIVATE KEY") == 0
        or strcmp(label, "ENCRYPTED PRIVATE KEY") == 0
        or strcmp(label, "RSA PRIVATE KEY") == 0
        or strcmp(label, "EC PRIVATE KEY") == 0
        or strcmp(label, "DSA PRIVATE KEY") == 0
    )


cdef bint is_public_key(const char *label) noexcept nogil:
    return strcmp(label, "PUBLIC KEY") == 0 or strcmp(label, "RSA PUBLIC KEY") == 0


cdef int give_passphrase(char *buffer, int size, int writing, void *argument) noexcept nogil:
    """A pem_password_cb, see pem_password_cb(3): never the terminal."""
    cdef secret *passphrase = <secret *> argument
    if passphrase.size > <size_t> size:
        return -1
    memcpy(buffer, passphrase.data, passphrase.size)
    return <int> passphrase.size


cdef str refuse_passphrase():
    """Why a key could not be decrypted. Empties the queue: any of its errors may be the one that tells."""
    cdef unsigned long code
    cdef int library, number
    cdef bint unsupported = False, wrong = False
    reason = openssl_reason()
    while True:
        code = ERR_get_error()
        if code == 0:
            break
        library = ERR_GET_LIB(code)
        number = ERR_GET_REASON(code)
        if number == ERR_R_UNSUPPORTED or (
            library == ERR_LIB_EVP
            and number in (EVP_R_UNSUPPORTED_ALGORITHM, EVP_R_UNKNOWN_PBE_ALGORITHM, EVP_R_UNSUPPORTED_CIPHER)
        ):
            unsupported = True
        elif (
            (library == ERR_LIB_EVP and number == EVP_R_BAD_DECRYPT)
            or (library == ERR_LIB_PROV and number == PROV_R_BAD_DECRYPT)
            or (library == ERR_LIB_PEM and number == PEM_R_BAD_DECRYPT)
            or (
                library == ERR_LIB_PKCS12
                and number in (PKCS12_R_PKCS12_CIPHERFINAL_ERROR, PKCS12_R_DECODE_ERROR)
            )
        ):
            wrong = True
    if unsupported:
        return f"the key is encrypted by a method that this OpenSSL does not offer (OpenSSL: {reason})"
    if wrong:
        return f"the passphrase is wrong (OpenSSL: {reason})"
    return f"the key could not be decrypted (OpenSSL: {reason})"


cdef EVP_PKEY *key_from_info(Source source, PKCS8_PRIV_KEY_INFO *info) except? NULL:
    """Takes over `info`."""
    cdef EVP_PKEY *key
    with nogil:
        key = private_key_of(info)
        PKCS8_PRIV_KEY_INFO_free(info)
    if key == NULL:
        source.error = f"the private key is damaged, or unknown to this OpenSSL (OpenSSL: {openssl_reason()})"
    return key


cdef EVP_PKEY *key_from_encrypted(Source source, X509_SIG *encrypted) except? NULL:
    """A PKCS #8 EncryptedPrivateKeyInfo (RFC 5958, 3). Takes over `encrypted`."""
    cdef PKCS8_PRIV_KEY_INFO *info
    if source.passphrase.data == NULL:
        X509_SIG_free(encrypted)
        source.error = "the key is encrypted and no passphrase was given"
        return NULL
    with nogil:
        # Slow on purpose: PBKDF2 or scrypt.
        info = PKCS8_decrypt(encrypted, source.passphrase.data, <int> source.passphrase.size)
        X509_SIG_free(encrypted)
    if info == NULL:
        source.error = refuse_passphrase()
        return NULL
    return key_from_info(source, info)


cdef EVP_PKEY *private_key_in(Source source, const unsigned char *data, long size, bint alone) except? NULL:
    """PKCS #8, encrypted or plain (RFC 5958); else the older forms of RSA (RFC 8017), EC (RFC 5915), DSA.

    Told apart by what they are, not by their label: there are programs that write an encrypted key as PRIVATE KEY.
    alone: nothing may be behind it. NULL without `source.error`: it is none of these, OpenSSL's reason is in the queue.
    """
    cdef const unsigned char *end = data + size
    cdef const unsigned char *p = data
    cdef PKCS8_PRIV_KEY_INFO *info
    cdef EVP_PKEY *key
    cdef X509_SIG *encrypted = d2i_X509_SIG(NULL, &p, size)
    if encrypted != NULL:
        if p == end or not alone:
            ERR_clear_error()
            return key_from_encrypted(source, encrypted)
        X509_SIG_free(encrypted)
    ERR_clear_error()
    p = data
    info = d2i_PKCS8_PRIV_KEY_INFO(NULL, &p, size)
    if info != NULL:
        if p == end or not alone:
            return key_from_info(source, info)
        PKCS8_PRIV_KEY_INFO_free(info)
    ERR_clear_error()
    p = data
    key = older_private_key(&p, size)
    if key != NULL and (p == end or not alone):
        return key
    EVP_PKEY_free(key)
    return NULL


cdef int decrypt_block(Source source, pem_block *block) except -1:
    """Decrypts a block that has the headers of RFC 1421.

    2: it is decrypted; 1: it was plain; 0: it cannot be decrypted, see `source.error`.
    """
    cdef EVP_CIPHER_INFO cipher
    cdef int ok
    if PEM_get_EVP_CIPHER_INFO(block.header, &cipher) != 1:
        source.error = f"the header of the PEM block cannot be used (OpenSSL: {openssl_reason()})"
        return 0
    if cipher.cipher == NULL:
        return 1
    if source.passphrase.data == NULL:
        source.error = "the key is encrypted and no passphrase was given"
        return 0
    if source.passphrase.size > <size_t> PEM_BUFSIZE:
        source.error = f"the passphrase is wrong: it is longer than the {PEM_BUFSIZE} bytes of this format"
        return 0
    with nogil:
        ok = PEM_do_header(&cipher, block.data, &block.size, give_passphrase, &source.passphrase)
    if ok != 1:
        source.error = refuse_passphrase()
        return 0
    return 2


cdef EVP_PKEY *private_key_from_block(Source source, pem_block *block) except? NULL:
    cdef EVP_PKEY *key
    cdef int plain = decrypt_block(source, block)
    if not plain:
        return NULL
    key = private_key_in(source, block.data, block.size, False)
    if key == NULL and not source.error:
        # RFC 1421 decryption has no check but the padding, which one wrong passphrase in 256 passes, and all
        # of them with a stream cipher, which has no padding.
        if plain == 2:
            source.error = "the passphrase is wrong, or the key is damaged"
        else:
            source.error = refuse_block(block, "the private key")
    return key


cdef EVP_PKEY *public_key_from_block(Source source, pem_block *block) except? NULL:
    cdef const unsigned char *p = block.data
    cdef EVP_PKEY *key
    if strcmp(block.label, "RSA PUBLIC KEY") == 0:
        key = d2i_PublicKey(EVP_PKEY_RSA, NULL, &p, block.size)
    else:
        key = d2i_PUBKEY(NULL, &p, block.size)
    if key == NULL:
        source.error = refuse_block(block, "the public key")
    return key


cdef EVP_PKEY *key_from_pem(Source source, bint private) except? NULL:
    """The first key of the text that is of the wanted half, whatever else is before or after it."""
    cdef BIO *bio = open_text(source)
    cdef pem_block block
    other = None
    try:
        while next_block(bio, &block):
            try:
                if private and is_private_key(block.label):
                    return private_key_from_block(source, &block)
                if not private and is_public_key(block.label):
                    return public_key_from_block(source, &block)
                # Parameters come before the key that they belong to: what follows them says more.
                if other is None or PEM_KINDS.get(other) == "key parameters":
                    other = <bytes> block.label
            finally:
                free_block(&block)
        source.error = refuse_pem(source, "a private key" if private else "a public key", other)
        return NULL
    finally:
        BIO_free(bio)


cdef EVP_PKEY *private_key_from_der(Source source) except? NULL:
    cdef EVP_PKEY *key = private_key_in(source, source.data, source.size, True)
    if key == NULL and not source.error:
        source.error = refuse_der(source, "a private key")
    return key


cdef EVP_PKEY *public_key_from_der(Source source) except? NULL:
    """A SubjectPublicKeyInfo (RFC 5280, 4.1.2.7), else an RSAPublicKey (RFC 8017, A.1.1)."""
    cdef const unsigned char *end = source.data + source.size
    cdef const unsigned char *p = source.data
    cdef EVP_PKEY *key = d2i_PUBKEY(NULL, &p, source.size)
    if key != NULL and p == end:
        return key
    EVP_PKEY_free(key)
    p = source.data
    key = d2i_PublicKey(EVP_PKEY_RSA, NULL, &p, source.size)
    if key != NULL and p == end:
        return key
    EVP_PKEY_free(key)
    source.error = refuse_der(source, "a public key")
    return NULL


cdef object algorithm_of(const EVP_PKEY *key):
    for name, algorithm in ALGORITHM_NAMES:
        if EVP_PKEY_is_a(key, <bytes> name) == 1:
            return algorithm
    return None


cdef str algorithm_text(const EVP_PKEY *key):
    cdef const char *name = EVP_PKEY_get0_type_name(key)
    return name.decode("ascii", "backslashreplace") if name != NULL else "unknown"


cdef bytes public_der(const EVP_PKEY *key):
    """The SubjectPublicKeyInfo; empty where there is none."""
    cdef unsigned char *out = NULL
    cdef int size = i2d_PUBKEY(key, &out) if key != NULL else 0
    if size <= 0:
        ERR_clear_error()
        return b""
    try:
        return out[:size]
    finally:
        OPENSSL_free(out)


@cython.final
cdef class SslKey(Loaded):
    """SslKey(encoded=b"", algorithm=None, format=SslEncoding.PEM, type=KeyType.PRIVATE, passphrase=None)
--

    A private or a public key. Immutable. Its secret is shown nowhere and pickled never.

    encoded: any buffer, or for PEM a str. Private keys: PKCS #8, encrypted or not, and the older forms of
    RSA, DSA and EC; public keys: SubjectPublicKeyInfo, or the older form of RSA. Of PEM text the first key of
    the wanted `type` is loaded. Or a key of the package `cryptography`, which is passed on in memory and wiped there.
    algorithm: `KeyAlgorithm`, or None for any; a key of another kind is refused.
    format: `SslEncoding`.
    type: `KeyType`.
    passphrase: str (taken as UTF-8) or any buffer, for an encrypted key. A copy is kept while loading, then
    wiped. Nobody is ever asked for one.

    A key that cannot be loaded is `null`, with `error_string` saying why. TypeError: `encoded` or
    `passphrase` is neither a buffer nor text. ValueError: `algorithm`, `format` or `type` is not of its
    enumeration.

    Keys are equal when their types and public parts are.
    """

    PUBLIC = KeyType.PUBLIC
    PRIVATE = KeyType.PRIVATE
    RSA = KeyAlgorithm.RSA
    DSA = KeyAlgorithm.DSA
    EC = KeyAlgorithm.EC
    ED25519 = KeyAlgorithm.ED25519
    ED448 = KeyAlgorithm.ED448
    ML_DSA = KeyAlgorithm.ML_DSA
    RSA_PSS = KeyAlgorithm.RSA_PSS

    def __cinit__(
        self, encoded=b"", algorithm=None, format=SslEncoding.PEM, type=KeyType.PRIVATE, passphrase=None
    ):
        self._type = KeyType(type)
        wanted = None if algorithm is None else KeyAlgorithm(algorithm)
        encoding = SslEncoding(format)
        cdef bint private = self._type is KeyType.PRIVATE
        cdef Source source
        cdef bytes foreign = foreign_key_der(encoded, private)
        if foreign is not None:
            encoded, encoding, passphrase = foreign, SslEncoding.DER, None
        source = Source(encoded, encoding is SslEncoding.DER)
        if passphrase is not None:
            source.set_passphrase(passphrase)
        if not source.error:
            ERR_clear_error()
            try:
                if encoding is SslEncoding.PEM:
                    self.pkey = key_from_pem(source, private)
                elif private:
                    self.pkey = private_key_from_der(source)
                else:
                    self.pkey = public_key_from_der(source)
                if self.pkey != NULL:
                    self._algorithm = algorithm_of(self.pkey)
                    if wanted is not None and self._algorithm is not wanted:
                        source.error = f"this is a key for {algorithm_text(self.pkey)}, not for {wanted.name}"
                        EVP_PKEY_free(self.pkey)
                        self.pkey = NULL
                        self._algorithm = None
            finally:
                ERR_clear_error()
                if private and foreign is not None and PyBytes_GET_SIZE(foreign) > 1:  # shorter ones are the interpreter's
                    OPENSSL_cleanse(PyBytes_AS_STRING(foreign), PyBytes_GET_SIZE(foreign))
        self._error = source.error

    def __dealloc__(self):
        EVP_PKEY_free(self.pkey)

    cdef bint is_null(self) noexcept:
        return self.pkey == NULL

    @property
    def type(self):
        """The `KeyType` that the key was loaded as."""
        return self._type

    @property
    def algorithm(self):
        """The `KeyAlgorithm`; None when null, or when the kind has no value there (X25519, for instance)."""
        return self._algorithm

    def __eq__(self, other):
        if not isinstance(other, SslKey):
            return NotImplemented
        cdef EVP_PKEY *a = self.pkey
        cdef EVP_PKEY *b = (<SslKey> other).pkey
        if self._type is not (<SslKey> other)._type:
            return False
        if a == NULL or b == NULL:
            return a == b
        equal = EVP_PKEY_eq(a, b) == 1
        ERR_clear_error()
        return equal

    def __hash__(self):
        return hash((self._type, public_der(self.pkey)))

    def __repr__(self):
        if self.pkey == NULL:
            return f"<SslKey null: {self._error}>"
        return f"<SslKey {algorithm_text(self.pkey)} {self._type.name.lower()}>"

    def __reduce__(self):
        raise TypeError("an SslKey cannot be pickled: it may hold a secret key")


def _secret_of(SslKey key not None):
    """A private key as PKCS #8 in DER, for another process of this program and nobody else: bytes. ValueError: it has none that
    can be told."""
    cdef PKCS8_PRIV_KEY_INFO *info = EVP_PKEY2PKCS8(key.pkey) if key.pkey != NULL and key._type is KeyType.PRIVATE else NULL
    cdef unsigned char *out = NULL
    cdef int size = i2d_PKCS8_PRIV_KEY_INFO(info, &out) if info != NULL else 0
    PKCS8_PRIV_KEY_INFO_free(info)
    if size <= 0:
        ERR_clear_error()
        raise ValueError("this key has no secret that could be told")
    try:
        return out[:size]
    finally:
        OPENSSL_clear_free(out, size)
