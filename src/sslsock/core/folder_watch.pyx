"""What happens in folders, as the kernel tells it (inotify(7)); Linux alone has this.

Owns its descriptor. It waits for nothing, and knows nothing of what stands in the folders: who uses it says which they are, and
what an event means to him.
"""

from cpython.exc cimport PyErr_SetFromErrno
from libc.errno cimport EAGAIN, EINTR, errno
from libc.stdint cimport uint32_t
from posix.unistd cimport close, read

cimport cython

import os

cdef extern from "folder_watch.h" nogil:
    uint32_t FOLDER_ENTRIES, FOLDER_CONTENTS, FOLDER_GONE

    struct inotify_event:
        int wd
        uint32_t mask
        uint32_t len
        char *name

    int folder_watch_open()
    int folder_watch_add(int fd, const char *path, uint32_t mask)
    int folder_watch_remove(int fd, int number)
    int folder_is_remote(const char *path)

cdef enum:
    ROOM = 4096  # words of four bytes; an event takes four, and its name as many as 64


def is_remote(path):
    """Whether others can change a folder without this kernel's knowledge: on a network file system. OSError."""
    cdef bytes name = os.fsencode(path)
    cdef const char *text = name
    cdef int found
    with nogil:
        found = folder_is_remote(text)
    if found < 0:
        PyErr_SetFromErrno(OSError)
    return found > 0


@cython.final
@cython.auto_pickle(False)
cdef class FolderWatch:
    """Folders that are watched. OSError: the system has none to give (EMFILE), or knows no such thing (ENOSYS)."""

    cdef int descriptor

    def __cinit__(self):
        self.descriptor = folder_watch_open()
        if self.descriptor < 0:
            PyErr_SetFromErrno(OSError)

    def __dealloc__(self):
        if self.descriptor >= 0:
            close(self.descriptor)

    def close(self):
        """Forget all folders."""
        if self.descriptor >= 0:
            close(self.descriptor)
        self.descriptor = -1

    def fileno(self):
        """The descriptor, which is readable when something has happened; -1 when closed."""
        return self.descriptor

    def add(self, path, contents=False):
        """Watch a folder for entries that come and go. contents: for what is written into its files too, and who may read them.

        Returns its number, the same for the same folder by any name; what it was watched for, it still is. OSError.
        """
        cdef bytes name = os.fsencode(path)
        cdef const char *text = name
        cdef uint32_t mask = FOLDER_ENTRIES | (FOLDER_CONTENTS if contents else 0)
        cdef int number
        with nogil:
            number = folder_watch_add(self.descriptor, text, mask)
        if number < 0:
            PyErr_SetFromErrno(OSError)
        return number

    def remove(self, number):
        """Watch a folder no more. One that is gone already does not matter."""
        folder_watch_remove(self.descriptor, number)

    def read(self):
        """What has happened since: a list of (number, name). name: of the entry, as `os.fsdecode` has it; None: the folder itself
        has gone or was moved; number -1: events were lost. An empty list: nothing. OSError."""
        cdef uint32_t room[ROOM]
        cdef ssize_t size, at = 0
        cdef inotify_event *event
        size = read(self.descriptor, room, sizeof(room))
        if size < 0:
            if errno == EAGAIN or errno == EINTR:
                return []
            PyErr_SetFromErrno(OSError)
        found = []
        while at < size:
            event = <inotify_event *> (<char *> room + at)
            if event.mask & FOLDER_GONE:
                found.append((event.wd, None))
            elif event.len:
                found.append((event.wd, os.fsdecode(<bytes> event.name)))
            at += sizeof(inotify_event) + event.len
        return found
