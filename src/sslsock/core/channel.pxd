from cpython.object cimport PyObject

from flag cimport flag
from sslsock.core.bare_engine cimport BareEngine
from sslsock.core.ending_link cimport EndingLink
from sslsock.core.handshake_pool cimport HandshakePool
from sslsock.core.link cimport Link
from window_bio cimport byte_queue
from worker_pool cimport worker_job


cdef class Channel(EndingLink):
    cdef object verify_handler
    cdef object key_handler
    cdef HandshakePool pool  # for what is dear in the handshake, or None
    cdef object put_by  # the engine's verify_handler, while it does so
    cdef worker_job *job  # which it does; NULL: none. The engine's
    cdef object __weakref__

    # incoming
    cdef flag bulk  # the last receive was large: worth giving the GIL away

    # incoming
    cdef void serve(self) noexcept
    cdef bint paused(self) noexcept
    cdef void read_on(self) noexcept
    cdef void receive(self) noexcept
    cdef size_t receive_some(self, char *memory, size_t wanted) noexcept
    cdef void fill(self) noexcept
    cdef bint fill_once(self) noexcept
    cdef int decrypt_some(self, char *memory, size_t room, size_t *got) noexcept
    cdef void feed_tls(self, size_t size) noexcept
    cdef void shake(self, BareEngine engine, size_t size) noexcept
    cdef bint leave_to_pool(self, BareEngine engine) noexcept
    cdef void on_step_done(self, BareEngine engine) noexcept
    cdef void go_on_shaking(self, BareEngine engine, int status, bint kept) noexcept
    cdef void meet_end_meanwhile(self) noexcept
    cdef list settle(self, BareEngine engine)
    cdef void deliver_news(self, BareEngine engine, const char *plain, size_t size) noexcept
    cdef void tell_news(self, list sessions) noexcept
    cdef void tell_sessions(self, list sessions) noexcept
    cdef object ask(self, object handler, str name, object said)
    cdef PyObject *memory_for(self, size_t size) noexcept
    cdef void deliver_whole(self, PyObject *filled, size_t size) noexcept
    cdef void deliver(self, const char *data, size_t size) noexcept
    cdef void keep_lent(self) noexcept
    # another takes over
    cdef object release(self, Link heir, byte_queue *unread, bint *ended)
