"""The methods of `SSLObject` and `SSLSocket` that move bytes, as bases that come first: one call, where the stdlib's go through two
to four functions of Python. What is not one of our connections (a program may put what it likes into `_sslobj`), or is asked for with
flags, goes the stdlib's way.
"""

from sslsock._ssl.ssl_connection cimport _SSLSocket

from sslsock._ssl.ssl_error import SSLError

cdef enum:
    SSL_ERROR_EOF = 8  # CPython's own number


class FastObject:
    __slots__ = ()

    def read(self, len=1024, buffer=None):
        """Read up to 'len' bytes from the SSL object and return them.

        If 'buffer' is provided, read into this buffer and return the number of
        bytes read.
        """
        sslobj = self._sslobj
        if type(sslobj) is not _SSLSocket:
            return super().read(len, buffer)
        if buffer is None:
            return (<_SSLSocket> sslobj).read_bytes(len)
        return (<_SSLSocket> sslobj).read_buffer(len, buffer)

    def write(self, data):
        """Write 'data' to the SSL object and return the number of bytes
        written.

        The 'data' argument must support the buffer interface.
        """
        sslobj = self._sslobj
        if type(sslobj) is not _SSLSocket:
            return super().write(data)
        return (<_SSLSocket> sslobj).write_object(data)


class FastSocket:
    __slots__ = ()

    def recv(self, buflen=1024, flags=0):
        sslobj = self._sslobj
        if type(sslobj) is not _SSLSocket or flags:
            return super().recv(buflen, flags)
        try:
            return (<_SSLSocket> sslobj).read_bytes(buflen)
        except SSLError as exc:
            if exc.args[0] != SSL_ERROR_EOF or not self.suppress_ragged_eofs:
                raise
        return b""

    def recv_into(self, buffer, nbytes=None, flags=0):
        sslobj = self._sslobj
        if type(sslobj) is not _SSLSocket or flags or buffer is None:
            return super().recv_into(buffer, nbytes, flags)
        try:
            return (<_SSLSocket> sslobj).read_buffer(nbytes or 0, buffer)  # 0: as much as there is room for
        except SSLError as exc:
            if exc.args[0] != SSL_ERROR_EOF or not self.suppress_ragged_eofs:
                raise
        return 0

    def send(self, data, flags=0):
        sslobj = self._sslobj
        if type(sslobj) is not _SSLSocket or flags:
            return super().send(data, flags)
        return (<_SSLSocket> sslobj).write_object(data)

    def sendall(self, data, flags=0):
        sslobj = self._sslobj
        if type(sslobj) is not _SSLSocket or flags or type(data) is not bytes or not data:
            return super().sendall(data, flags)
        (<_SSLSocket> sslobj).write_object(data)  # all of it, or it raises
