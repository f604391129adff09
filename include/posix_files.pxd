"""What of POSIX the reading of files calls."""

from libc.stdint cimport int64_t, uint64_t


cdef extern from "<errno.h>" nogil:
    int errno
    int EINTR, EISDIR


cdef extern from "<fcntl.h>" nogil:
    int O_RDONLY, O_CLOEXEC
    int open(const char *path, int flags)


cdef extern from "<unistd.h>" nogil:
    int close(int fd)
    ssize_t read(int fd, void *buffer, size_t size)


cdef extern from "<time.h>" nogil:
    struct timespec:
        int64_t tv_sec
        long tv_nsec


cdef extern from "system.h" nogil:  # <sys/stat.h>; `st_mtim` is there by that name
    struct file_status "stat":
        uint64_t st_dev, st_ino
        unsigned int st_mode
        int64_t st_size
        timespec st_mtim

    unsigned int S_IFMT, S_IFDIR
    int stat(const char *path, file_status *status)
    int fstat(int fd, file_status *status)


cdef extern from "<dirent.h>" nogil:
    struct dirent:
        char d_name[256]

    ctypedef struct DIR:
        pass

    DIR *opendir(const char *path)
    dirent *readdir(DIR *folder)
    int closedir(DIR *folder)
