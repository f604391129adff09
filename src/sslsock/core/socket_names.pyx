"""Names of sockets: as the system has them (kept as bytes, which cost little), and as Python's `socket` gives them."""

from cpython.bytes cimport PyBytes_FromStringAndSize
from cpython.unicode cimport PyUnicode_FromString

cimport system

cdef extern from "<string.h>" nogil:
    size_t strnlen(const char *text, size_t size)

cdef extern from "Python.h":
    object PyUnicode_DecodeFSDefaultAndSize(const char *text, Py_ssize_t size)


cdef bytes raw_name(const system.sockaddr *name, system.socklen_t size):
    """A sockaddr as bytes."""
    if size > sizeof(system.sockaddr_storage):
        size = sizeof(system.sockaddr_storage)
    return PyBytes_FromStringAndSize(<const char *> name, size)


cdef bytes raw_sockname(int fd):
    """b"": not known."""
    cdef system.sockaddr_storage name
    cdef system.socklen_t size = sizeof(name)
    if system.getsockname(fd, <system.sockaddr *> &name, &size) != 0:
        return b""
    return raw_name(<system.sockaddr *> &name, size)


cdef bytes raw_peername(int fd):
    """b"": not known."""
    cdef system.sockaddr_storage name
    cdef system.socklen_t size = sizeof(name)
    if system.getpeername(fd, <system.sockaddr *> &name, &size) != 0:
        return b""
    return raw_name(<system.sockaddr *> &name, size)


cdef int family_of(bytes raw):
    """AF_*; 0: not known."""
    cdef const char *data = raw
    return (<const system.sockaddr *> data).sa_family if len(raw) >= system.NAME_HEAD else 0


cdef object socket_name(bytes raw):
    """As `socket.getsockname` has it; None for another family, and where it is not known."""
    cdef const char *data = raw
    cdef Py_ssize_t path_size = len(raw) - system.NAME_HEAD
    cdef char[system.INET6_ADDRSTRLEN] text
    cdef const system.sockaddr_in *four = <const system.sockaddr_in *> data
    cdef const system.sockaddr_in6 *six = <const system.sockaddr_in6 *> data
    cdef int family = family_of(raw)
    if family == system.AF_INET and len(raw) >= <Py_ssize_t> sizeof(system.sockaddr_in):
        system.inet_ntop(system.AF_INET, &four.sin_addr, text, system.INET6_ADDRSTRLEN)
        return PyUnicode_FromString(text), system.ntohs(four.sin_port)
    if family == system.AF_INET6 and len(raw) >= <Py_ssize_t> sizeof(system.sockaddr_in6):
        system.inet_ntop(system.AF_INET6, &six.sin6_addr, text, system.INET6_ADDRSTRLEN)
        return PyUnicode_FromString(text), system.ntohs(six.sin6_port), system.ntohl(six.sin6_flowinfo), six.sin6_scope_id
    if family == system.AF_UNIX:
        data += system.NAME_HEAD
        if path_size > 0 and data[0] == 0:  # in the abstract namespace: unix(7)
            return data[:path_size]
        return PyUnicode_DecodeFSDefaultAndSize(data, <Py_ssize_t> strnlen(data, path_size))
    return None
