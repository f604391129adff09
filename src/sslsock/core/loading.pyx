"""How values of X.509 (certificates, revocation lists) are found in bytes: one or all, in PEM text or DER."""

import os

from cpython.buffer cimport PyBUF_READ
from cpython.memoryview cimport PyMemoryView_FromMemory

from openssl_err cimport ERR_clear_error
from openssl_x509 cimport BIO, BIO_free
from sslsock.core.encoded cimport (
    PEM_KINDS, PemPart, Source, contains, free_block, next_block, open_part, openssl_reason, pem_block, pem_parts, refuse_block,
    refuse_der, refuse_text)

from sslsock.core.encoded import SslEncoding
from sslsock.core.foreign import foreign_der


cdef class Loader:
    """For one kind of value. A derived class says what they are called and how one is decoded."""

    cdef object decode(self, bytes label, const unsigned char **data, long size):
        """The value that DER at `data` begins with, which is then passed over; None: there is none. label: of its PEM block, or
        None."""
        raise NotImplementedError

    # one

    cdef tuple load(self, encoded, format):
        """What a constructor is given: (the value or None, why there is none). TypeError, ValueError."""
        encoding = SslEncoding(format)
        cdef Source source
        found = None
        foreign = foreign_der(encoded)
        if foreign is not None:
            encoded, encoding = foreign, SslEncoding.DER
        source = Source(encoded, encoding is SslEncoding.DER)
        # Nothing to load leaves the error queue alone: a value may be made while the caller still needs it.
        if not source.error:
            ERR_clear_error()
            try:
                found = self.from_der(source) if encoding is SslEncoding.DER else self.from_pem(source)
            finally:
                ERR_clear_error()
        return found, source.error

    cdef object from_der(self, Source source):
        cdef const unsigned char *p = source.data
        found = self.decode(None, &p, source.size)
        if found is not None and p == source.data + source.size:
            return found
        source.error = refuse_der(source, self.wanted)
        return None

    cdef object from_part(self, Source source, part):
        """The value in a block that has the label of one; None: `source.error` says why."""
        cdef BIO *bio
        cdef pem_block block
        cdef const unsigned char *p
        cdef PemPart wanted = part
        if wanted.trouble:
            source.error = wanted.trouble
            return None
        bio = open_part(source, wanted)
        try:
            if not next_block(bio, &block):
                source.error = f"the PEM text is damaged or truncated (OpenSSL: {openssl_reason()})"
                return None
        finally:
            BIO_free(bio)
        try:
            p = block.data
            found = self.decode(wanted.label, &p, block.size)
            if found is not None and p == block.data + block.size:
                return found
            source.error = refuse_block(&block, self.damaged)
            return None
        finally:
            free_block(&block)

    cdef object from_pem(self, Source source):
        """The first one of the text, whatever else is before or after it."""
        cdef PemPart part
        other = None
        for part in pem_parts(source):
            if part.trouble or part.label in self.labels:
                return self.from_part(source, part)
            if other is None:
                other = part.label
        source.error = refuse_text(source, self.wanted, other)
        return None

    # all

    cdef list all_of(self, data):
        """All in PEM text, or in DER where they follow one another. TypeError, ValueError."""
        cdef Source source = Source(data, False)
        cdef list found = []
        if source.size == 0:
            return found
        if source.error:
            raise ValueError(source.error)
        ERR_clear_error()
        try:
            if source.data[0] == 0x30:
                found = self.all_from_der(source)
            return found or self.all_from_pem(source)
        finally:
            ERR_clear_error()

    cdef list all_in(self, path):
        """All in a file. OSError; ValueError names the file too."""
        path = os.fspath(path)
        with open(path, "rb") as file:
            data = file.read()
        try:
            return self.all_of(data)
        except ValueError as exc:
            raise ValueError(f"{os.fsdecode(path)}: {exc}") from None

    cdef list all_from_der(self, Source source):
        """Those that follow one another, or an empty list: it is not DER."""
        cdef const unsigned char *p = source.data
        cdef const unsigned char *end = source.data + source.size
        cdef const unsigned char *start
        cdef Source rest
        cdef list found = []
        while p < end:
            start = p
            one = self.decode(None, &p, end - p)
            if one is None:
                # None is so short that its size fits one byte (X.690, 8.1.3), and text has no such second character.
                if not found and (source.size < 2 or source.data[1] < 0x80 or contains(source, b"-----BEGIN ")):
                    return found
                rest = Source(PyMemoryView_FromMemory(<char *> start, end - start, PyBUF_READ), True)
                reason = refuse_der(rest, self.wanted)
                raise ValueError(f"{self.word} {len(found) + 1} (byte {start - source.data}): {reason}")
            found.append(one)
        return found

    cdef list all_from_pem(self, Source source):
        """Those of the text."""
        cdef PemPart part
        cdef list found = []
        for part in pem_parts(source):
            if part.label in self.containers:
                raise ValueError(
                    f"{part.place()}: this is {PEM_KINDS.get(part.label)}, whose {self.word}s are not read here")
            if part.trouble or part.label in self.labels:
                one = self.from_part(source, part)
                if one is None:
                    raise ValueError(f"{part.place()}: {source.error}")
                found.append(one)
        return found
