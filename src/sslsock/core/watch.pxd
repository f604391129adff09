from sslsock.core.reactor cimport LevelWatcher, Watcher


cdef class Watch(Watcher):
    cdef object callback


cdef class LevelWatch(LevelWatcher):
    cdef object callback
