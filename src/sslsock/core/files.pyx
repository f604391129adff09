"""Files, looked at and read by calls of the system, not of Python: as the interpreter's `ssl` does it.

What forbids `os.stat` and `read` in an event loop (blockbuster) lets contexts be made there, then, with ours as with the
interpreter's.
"""

import os

from cpython.exc cimport PyErr_CheckSignals, PyErr_SetFromErrnoWithFilenameObject

from posix_files cimport (
    DIR, EINTR, EISDIR, O_CLOEXEC, O_RDONLY, S_IFDIR, S_IFMT, close, closedir, dirent, errno, file_status, fstat, open, opendir, read,
    readdir, stat)

cdef enum:
    PIECE = 8192  # on the stack, which may be small


cdef int open_file(path) except -1:
    """A descriptor of a file to read. OSError, also for a folder."""
    cdef bytes name = os.fsencode(path)
    cdef const char *place = name
    cdef file_status status
    cdef int fd
    if b"\0" in name:
        raise ValueError("embedded null byte")
    while True:
        with nogil:
            fd = open(place, O_RDONLY | O_CLOEXEC)
        if fd >= 0 or errno != EINTR:
            break
        PyErr_CheckSignals()
    if fd >= 0 and fstat(fd, &status) == 0 and status.st_mode & S_IFMT == S_IFDIR:
        close(fd)
        fd = -1
        (&errno)[0] = EISDIR
    if fd < 0:
        PyErr_SetFromErrnoWithFilenameObject(OSError, os.fspath(path))
    return fd


cdef bytes read_file(path):
    """All that is in it. OSError, which has the path as its `filename`."""
    cdef int fd = open_file(path)
    cdef char piece[PIECE]
    cdef char *place = piece
    cdef ssize_t count
    pieces = []
    try:
        while True:
            with nogil:
                count = read(fd, place, PIECE)
            if count == 0:
                return b"".join(pieces)
            if count > 0:
                pieces.append(place[:count])
            elif errno == EINTR:
                PyErr_CheckSignals()
            else:
                PyErr_SetFromErrnoWithFilenameObject(OSError, os.fspath(path))
    finally:
        close(fd)


cdef int check_file(path) except -1:
    """OSError if it cannot be opened."""
    close(open_file(path))
    return 0


cpdef object state_of(path):
    """What tells whether a file or a folder has changed; None when it is not there."""
    cdef bytes name = os.fsencode(path)
    cdef const char *place = name
    cdef file_status status
    cdef int failed
    if b"\0" in name:
        return None
    with nogil:
        failed = stat(place, &status)
    if failed:
        return None
    return status.st_dev, status.st_ino, status.st_mtim.tv_sec * 1_000_000_000 + status.st_mtim.tv_nsec, status.st_size


cpdef list names_in(path):
    """Of a folder, in no order; none when it cannot be read."""
    cdef bytes name = os.fsencode(path)
    cdef DIR *folder = opendir(name)
    cdef dirent *entry
    names = []
    if folder != NULL:
        try:
            while (entry := readdir(folder)) != NULL:
                names.append(os.fsdecode(<bytes> entry.d_name))
        finally:
            closedir(folder)
    return names
