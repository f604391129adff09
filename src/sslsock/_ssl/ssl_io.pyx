"""`Connection`: the C half of `_SSLSocket`. libssl over the window BIO, the socket beneath, and who may do what at one time.

Nothing here needs the GIL. An operation is a loop of steps: libssl works in memory, what it has made is sent, what it lacks is
received. libssl is entered under a lock that nobody holds while waiting for the network, so a thread that reads and one that
writes do not wait for each other. A receive takes as much as there is, but for three: a call that may not wait (the program looks
with `select` whether there is more), `shutdown` (what follows close_notify is not ours) and SSLSOCK_READ_AHEAD=0; these take one
record.

libssl gets whole records only. So no half of one lies in its buffers, what lies here can be counted, and a record that is not one
(an HTTP request, say) is given to it as it is, to be refused.
"""

import os

from libc.stdlib cimport free, malloc
from libc.string cimport memset

cimport linux
cimport openssl_ssl as ssl
from linux cimport (
    EAGAIN, ECONNRESET, EINTR, EPIPE, MSG_DONTWAIT, MSG_NOSIGNAL, POLLIN, POLLOUT, clock_gettime, errno, poll,
    pthread_mutex_destroy, pthread_mutex_init, pthread_mutex_lock, pthread_mutex_t, pthread_mutex_timedlock,
    pthread_mutex_trylock, pthread_mutex_unlock, pthread_rwlock_rdlock, pthread_rwlock_unlock, recv, send, timespec)
from openssl_err cimport ERR_clear_error, ERR_peek_error, ERR_peek_last_error
from window_bio cimport (
    byte_queue_append, byte_queue_clear, byte_queue_consume, byte_queue_front, byte_queue_join, byte_queue_reserve,
    window_bio_clear, window_bio_new)

from sslsock._ssl.ssl_hooks cimport fork_count, see_fork

cdef extern from "Python.h" nogil:
    unsigned long PyThread_get_thread_ident()

cdef enum:
    HEADER = 5  # bytes of a record's header: RFC 8446, 5.1
    RECORD = 16384  # most plaintext of a record
    LONGEST = 16384 + 2048  # most bytes after a header: RFC 5246, 6.2.3
    OVERHEAD = 320  # more than any cipher suite adds to a record
    RECEIVE = 131072  # most bytes of one receive
    SMALL = RECORD + RECORD + OVERHEAD  # what is received on the stack
    BATCH = 131072  # bytes that are encrypted before they are sent
    SLICE = 100_000_000  # nanoseconds: a thread that waits for another looks for signals as often

cdef char NOTHING = 0
cdef bint READ_AHEAD = os.environ.get("SSLSOCK_READ_AHEAD", "1") != "0"


cdef size_t record_size(const unsigned char *data, size_t size) noexcept nogil:
    """Bytes of the record that begins here, 0 before its header is complete. What cannot be a record ends where the data does."""
    cdef size_t length
    if size < HEADER:
        return 0
    length = data[3] << 8 | data[4]
    if data[0] < 20 or data[0] > 24 or data[1] != 3 or length > LONGEST:
        return size
    return HEADER + length


cdef size_t whole_records(const char *data, size_t size) noexcept nogil:
    """Bytes of the complete records at the start."""
    cdef size_t whole = 0, one
    while True:
        one = record_size(<const unsigned char *> data + whole, size - whole)
        if one == 0 or one > size - whole:
            return whole
        whole += one


cdef long long nanoseconds_left(const io_call *call) noexcept nogil:
    """Until the end of a call that has one."""
    cdef timespec now
    clock_gettime(linux.CLOCK_MONOTONIC, &now)
    return (call.until.tv_sec - now.tv_sec) * 1_000_000_000 + (call.until.tv_nsec - now.tv_nsec)


cdef class Connection(HookedConnection):
    def __cinit__(self, *_, **__):
        self.make_locks()

    cdef void make_locks(self) noexcept nogil:
        pthread_mutex_init(&self.reading, NULL)
        pthread_mutex_init(&self.writing, NULL)
        pthread_mutex_init(&self.libssl_lock, NULL)
        self.inside = 0
        self.forks = fork_count()

    cdef void see_fork(self) noexcept:
        """Before any lock is taken, with the GIL: in a child of a fork the threads that held one are gone (fork(2)). Who waited for
        the network has left libssl in order."""
        if self.forks != fork_count():
            self.make_locks()
        see_fork(self.hooks)

    def __dealloc__(self):
        if self.ssl != NULL:
            if self.keeps_sessions:  # otherwise libssl marks its session as not to be resumed, if there was no close_notify
                ssl.SSL_set_shutdown(self.ssl, ssl.SSL_SENT_SHUTDOWN | ssl.SSL_RECEIVED_SHUTDOWN)
            ssl.SSL_free(self.ssl)
        window_bio_clear(&self.window)
        byte_queue_clear(&self.input)
        byte_queue_clear(&self.unsent)
        pthread_mutex_destroy(&self.reading)
        pthread_mutex_destroy(&self.writing)
        pthread_mutex_destroy(&self.libssl_lock)

    # Who is inside libssl

    cdef outcome enter(self) noexcept nogil:
        cdef unsigned long me = PyThread_get_thread_ident()
        if pthread_mutex_trylock(&self.libssl_lock) != 0:
            if self.inside == me:
                return ENTERED
            pthread_mutex_lock(&self.libssl_lock)
        self.inside = me
        return DONE

    cdef void leave(self) noexcept nogil:
        self.inside = 0
        pthread_mutex_unlock(&self.libssl_lock)

    # The window

    cdef size_t open_window(self, const char *data, size_t size, const char **front, size_t *whole) noexcept nogil:
        """Let libssl read what is left of earlier input and then `data`, which stays in place until `close_window`. Returns how
        many bytes it is given: those of whole records, or all when no more come. front: NULL without memory."""
        cdef size_t given
        if self.input.size > 0:
            if size > 0 and not byte_queue_append(&self.input, data, size):
                front[0] = NULL
                return 0
            front[0] = byte_queue_front(&self.input)
            whole[0] = self.input.size
        else:
            front[0] = data if data != NULL else &NOTHING
            whole[0] = size
        given = whole[0] if self.eof else whole_records(front[0], whole[0])
        if not self.settled:
            pthread_rwlock_rdlock(&self.hooks.settings)
            self.holds_settings = True
        self.window.in_ = front[0]
        self.window.in_left = given
        self.window.eof = self.eof
        return given

    cdef bint close_window(self, const char *front, size_t whole, size_t given) noexcept nogil:
        """Keep what libssl has not read. False without memory."""
        cdef size_t used = given - self.window.in_left
        if self.holds_settings:
            self.holds_settings = False
            pthread_rwlock_unlock(&self.hooks.settings)
        if self.handshake_done and not self.settled:
            # TLS 1.3 has one handshake (RFC 8446, 1.2). Older versions repeat it, and a certificate may be asked for later.
            self.settled = ssl.SSL_version(self.ssl) >= ssl.TLS1_3_VERSION and not self.verifies_later
        self.window.in_left = 0
        if self.input.size > 0:
            byte_queue_consume(&self.input, used)
            return True
        return byte_queue_append(&self.input, front + used, whole - used)

    # Steps: one call of libssl each, entered

    cdef outcome classify(self, int result) noexcept nogil:
        """What a call of libssl that gave `result` means; the error queue held nothing before it."""
        cdef int error = ssl.SSL_get_error(self.ssl, result)
        if error == ssl.SSL_ERROR_WANT_READ:
            return WANT_READ
        if error == ssl.SSL_ERROR_ZERO_RETURN:
            return PEER_CLOSED
        self.failure.ssl_error = error
        self.failure.code = ERR_peek_last_error()
        self.failure.verify_result = ssl.SSL_get_verify_result(self.ssl)
        ERR_clear_error()
        return TLS_FAILED

    cdef outcome handshake_step(self, const char *data, size_t size) noexcept nogil:
        cdef const char *front
        cdef size_t whole
        cdef size_t given = self.open_window(data, size, &front, &whole)
        cdef outcome status = DONE
        cdef int result
        if front == NULL:
            return OUT_OF_MEMORY
        ERR_clear_error()
        result = ssl.SSL_do_handshake(self.ssl)
        if result == 1:
            self.handshake_done = True
        else:
            status = self.classify(result)
        return status if self.close_window(front, whole, given) else OUT_OF_MEMORY

    cdef bint has_nothing(self) noexcept nogil:
        """Whether libssl could only ask for input: there is none, here or in it, and it has no end or failure to tell of (after a
        failure it is in a handshake for ever)."""
        return (
            self.input.size == 0 and not self.eof and ssl.SSL_is_init_finished(self.ssl)
            and ssl.SSL_get_shutdown(self.ssl) == 0 and not ssl.SSL_has_pending(self.ssl))

    cdef outcome read_step(self, const char *data, size_t size, char *memory, size_t room, size_t *got) noexcept nogil:
        """As many records as there are and as find room."""
        cdef const char *front
        cdef size_t whole, given, count = 0
        cdef outcome status = DONE
        cdef int result
        got[0] = 0
        self.end_kept = False
        if self.failure_kept:
            self.failure_kept = False
            self.failure = self.kept_failure
            return TLS_FAILED
        if size == 0 and self.has_nothing():
            return WANT_READ
        given = self.open_window(data, size, &front, &whole)
        if front == NULL:
            return OUT_OF_MEMORY
        if ERR_peek_error():  # somebody else's
            ERR_clear_error()
        while True:
            result = ssl.SSL_read_ex(self.ssl, memory + got[0], room - got[0], &count)
            if result != 1:
                status = self.classify(result)
                break
            got[0] += count
            if got[0] == room or (self.window.in_left == 0 and not self.eof and ssl.SSL_pending(self.ssl) == 0):
                break
        if got[0] > 0 and status != DONE:
            # What the bytes before it are read without; close_notify and the want of input say themselves again.
            if status == TLS_FAILED:
                self.kept_failure = self.failure
                self.failure_kept = True
            status = DONE
        if not self.handshake_done and ssl.SSL_is_init_finished(self.ssl):
            self.handshake_done = True
        return status if self.close_window(front, whole, given) else OUT_OF_MEMORY

    cdef outcome write_step(self, const char *data, size_t size, size_t *taken) noexcept nogil:
        cdef const char *front
        cdef size_t whole, given
        cdef outcome status = DONE
        cdef int result
        taken[0] = 0
        given = self.open_window(NULL, 0, &front, &whole)
        if self.window.spill.size == 0:  # in one piece, if there is memory for it: libssl adds record by record
            byte_queue_reserve(&self.window.spill, size + (size + RECORD - 1) // RECORD * OVERHEAD)
        if ERR_peek_error():
            ERR_clear_error()
        result = ssl.SSL_write_ex(self.ssl, data, size, taken)
        if result != 1:
            status = self.classify(result)
        return status if self.close_window(front, whole, given) else OUT_OF_MEMORY

    cdef outcome shutdown_step(self, const char *data, size_t size, int *result) noexcept nogil:
        """result: SSL_shutdown's, 1: both ends have closed, 0: ours has."""
        cdef const char *front
        cdef size_t whole
        cdef size_t given = self.open_window(data, size, &front, &whole)
        cdef outcome status = DONE
        if front == NULL:
            return OUT_OF_MEMORY
        ERR_clear_error()
        result[0] = ssl.SSL_shutdown(self.ssl)
        if result[0] < 0:
            status = self.classify(result[0])
        return status if self.close_window(front, whole, given) else OUT_OF_MEMORY

    cdef size_t decrypted(self) noexcept nogil:
        """Bytes that a read would give at once: what libssl has decrypted, of the next record too if all of it is here. 1 for an
        end or a failure that is known."""
        cdef const char *front
        cdef size_t whole, given, count = 0
        cdef char byte
        cdef int result
        cdef outcome status
        cdef size_t waiting = ssl.SSL_pending(self.ssl)
        if waiting > 0:
            return waiting
        if self.failure_kept or self.end_kept:
            return 1
        given = self.open_window(NULL, 0, &front, &whole)
        if given == 0:
            self.close_window(front, whole, given)
            return 0
        if ERR_peek_error():
            ERR_clear_error()
        result = ssl.SSL_peek_ex(self.ssl, &byte, 1, &count)
        status = DONE if result == 1 else self.classify(result)
        self.close_window(front, whole, given)
        if status == TLS_FAILED:
            self.kept_failure = self.failure
            self.failure_kept = True
            return 1
        if status == PEER_CLOSED:
            self.end_kept = True
            return 1
        return ssl.SSL_pending(self.ssl)

    # The socket

    cdef outcome lock(self, pthread_mutex_t *mutex, io_call *call) noexcept nogil:
        cdef timespec until
        cdef long long left = SLICE
        if pthread_mutex_trylock(mutex) == 0:
            return DONE
        if self.inside == PyThread_get_thread_ident():  # it may be our own, from before the callback that we are in
            return ENTERED
        if call.timeout == 0:
            return WANT_WRITE if mutex == &self.writing else WANT_READ
        if call.timeout > 0:
            left = min(left, nanoseconds_left(call))
            if left <= 0:
                return TIMED_OUT
        clock_gettime(linux.CLOCK_REALTIME, &until)
        until.tv_nsec += <long> left
        if until.tv_nsec >= 1_000_000_000:
            until.tv_nsec -= 1_000_000_000
            until.tv_sec += 1
        return DONE if pthread_mutex_timedlock(mutex, &until) == 0 else INTERRUPTED

    cdef outcome wait(self, io_call *call, short events) noexcept nogil:
        """After EAGAIN. events: POLLIN, POLLOUT or both."""
        cdef linux.pollfd one
        cdef long long left = -1  # milliseconds
        cdef int ready
        if call.timeout == 0:
            return WANT_READ if events & POLLIN else WANT_WRITE
        if call.timeout > 0:
            left = min(<long long> 2_000_000_000, max(<long long> 0, (nanoseconds_left(call) + 999_999) // 1_000_000))
        one.fd = call.descriptor
        one.events = events
        one.revents = 0
        ready = poll(&one, 1, <int> left)
        if ready > 0:
            return DONE
        if ready == 0:
            return TIMED_OUT
        if errno == EINTR:
            return INTERRUPTED
        call.error = errno
        return SYSTEM_FAILED

    cdef size_t receive_room(self, io_call *call, size_t asked) noexcept nogil:
        """How many bytes to receive. Entered: a thread that closes the connection consumes input too."""
        cdef size_t one
        if READ_AHEAD and not self.exact and call.timeout != 0:
            return min(<size_t> RECEIVE, RECORD + OVERHEAD + asked)
        one = record_size(<const unsigned char *> byte_queue_front(&self.input), self.input.size)
        if one == 0:
            one = HEADER
        return one - self.input.size if one > self.input.size else 1

    cdef outcome receive(self, io_call *call, char *memory, size_t room, size_t *got) noexcept nogil:
        cdef ssize_t count
        cdef outcome status
        got[0] = 0
        if self.eof or call.descriptor == NO_SOCKET:
            return DONE if self.eof else WANT_READ
        while True:
            count = recv(call.descriptor, memory, room, 0)
            if count > 0:
                got[0] = count
                return DONE
            if count == 0:
                self.eof = True
                return DONE
            if errno == EINTR:
                return INTERRUPTED
            if errno != EAGAIN:
                call.error = errno
                return SYSTEM_FAILED
            status = self.wait(call, POLLIN)
            if status != DONE:
                return status

    cdef bint take_output(self) noexcept nogil:
        """What libssl has made becomes what is to be sent. Entered, and under `writing`. False without memory."""
        return byte_queue_join(&self.unsent, &self.window.spill)

    cdef outcome receive_or_send(self, io_call *call) noexcept nogil:
        """Before a receive: send what libssl has made, as far as the peer takes it before there is something to receive. It may be
        waiting for us to read, or for what we have to send (a renegotiation)."""
        cdef outcome status
        while self.window.spill.size > 0 or self.unsent.size > 0:
            if self.flush_some(call) != WANT_WRITE or call.timeout == 0:
                break  # sent; or it fails, which whoever writes is told
            if pthread_mutex_trylock(&self.writing) != 0:
                break  # somebody else is sending it
            pthread_mutex_unlock(&self.writing)
            status = self.wait(call, POLLIN | POLLOUT)
            if status != DONE:
                return status
            if self.readable(call):
                break
        return DONE

    cdef bint readable(self, io_call *call) noexcept nogil:
        cdef linux.pollfd one
        one.fd = call.descriptor
        one.events = POLLIN
        one.revents = 0
        return poll(&one, 1, 0) != 0

    cdef outcome flush(self, io_call *call) noexcept nogil:
        """Send what libssl has made. Under `writing`."""
        cdef ssize_t count
        cdef outcome status
        cdef bint joined
        if call.descriptor == NO_SOCKET:
            return DONE
        while True:
            if self.window.spill.size > 0:
                status = self.enter()
                if status != DONE:
                    return status
                joined = self.take_output()
                self.leave()
                if not joined:
                    return OUT_OF_MEMORY
            if self.unsent.size == 0:
                return DONE
            count = send(
                call.descriptor, byte_queue_front(&self.unsent), self.unsent.size,
                MSG_NOSIGNAL | (MSG_DONTWAIT if call.timeout == 0 else 0))
            if count >= 0:
                byte_queue_consume(&self.unsent, count)
                continue
            if errno == EINTR:
                return INTERRUPTED
            if errno != EAGAIN:
                call.error = errno
                return SYSTEM_FAILED
            status = self.wait(call, POLLOUT)
            if status != DONE:
                return status

    cdef outcome flush_all(self, io_call *call) noexcept nogil:
        cdef outcome status
        while self.window.spill.size > 0 or self.unsent.size > 0:
            status = self.lock(&self.writing, call)
            if status != DONE:
                return status
            status = self.flush(call)
            pthread_mutex_unlock(&self.writing)
            if status != DONE:
                return status
        return DONE

    cdef outcome flush_some(self, io_call *call) noexcept nogil:
        """What goes without waiting; whoever is sending takes the rest along, or the next call does."""
        cdef io_call hasty = call[0]
        hasty.timeout = 0
        return self.flush_all(&hasty)

    # Operations

    cdef outcome handshake(self, io_call *call) noexcept nogil:
        cdef char[SMALL] scratch
        cdef size_t wanted, got = 0
        cdef outcome flushed, status = self.lock(&self.reading, call)
        if status != DONE:
            return status
        while True:
            status = self.enter()
            if status != DONE:
                break
            status = self.handshake_step(scratch if got else NULL, got)
            wanted = min(<size_t> SMALL, self.receive_room(call, 0))
            self.leave()
            if status != DONE and status != WANT_READ:
                self.flush_some(call)  # the alert
                break
            flushed = self.flush_all(call)
            if flushed == SYSTEM_FAILED and status == DONE and self.is_server and (call.error == EPIPE or call.error == ECONNRESET):
                # Session tickets that the client has not waited for. What it has sent can be read, as libssl has it too.
                flushed = DONE
            if flushed != DONE or status == DONE:
                status = flushed
                break
            status = self.receive(call, scratch, wanted, &got)
            if status != DONE:
                break
        pthread_mutex_unlock(&self.reading)
        return status

    cdef outcome read_some(self, io_call *call, char *memory, size_t room, size_t *got) noexcept nogil:
        cdef char[SMALL] small
        cdef char *scratch = small
        cdef size_t received = 0, wanted
        cdef outcome flushed, status
        got[0] = 0
        status = self.lock(&self.reading, call)
        if status != DONE:
            return status
        while True:
            status = self.enter()
            if status != DONE:
                break
            status = self.read_step(scratch if received else NULL, received, memory, room, got)
            wanted = self.receive_room(call, room)
            self.leave()
            if status != WANT_READ:
                break
            if not self.handshake_done:
                flushed = self.flush_all(call)
                if flushed != DONE:
                    status = flushed
                    break
            if wanted > SMALL and scratch == small:
                scratch = <char *> malloc(wanted)
                if scratch == NULL:
                    scratch = small
            if scratch == small:
                wanted = min(wanted, <size_t> SMALL)
            status = self.receive_or_send(call)
            if status == DONE:
                status = self.receive(call, scratch, wanted, &received)
            if status != DONE:
                break
        pthread_mutex_unlock(&self.reading)
        if scratch != small:
            free(scratch)
        if self.window.spill.size > 0 or self.unsent.size > 0:
            self.flush_some(call)
        return status

    cdef outcome write_all(self, io_call *call, const char *data, size_t size) noexcept nogil:
        """All of it, or an outcome after which the same is to be written again. What of it is on its way by then is the call's
        own, for other threads write too before it goes on, and is left to the next call when this one ends (`leave_write`)."""
        cdef outcome status = self.write_more(call, data, size)
        if status != DONE and status != INTERRUPTED:
            self.leave_write(call)
        return status

    cdef void leave_write(self, io_call *call) noexcept nogil:
        if call.written > 0:
            self.unreported = call.written

    cdef outcome write_more(self, io_call *call, const char *data, size_t size) noexcept nogil:
        cdef size_t taken
        cdef outcome status = self.lock(&self.writing, call)
        if status != DONE:
            return status
        if not call.begun:
            call.begun = True
            call.written = self.unreported
            self.unreported = 0
        while True:
            if call.written > size:
                status = BAD_RETRY
                break
            status = self.flush(call)
            if status != DONE:
                break
            if call.written == size and size > 0:
                break
            status = self.enter()
            if status != DONE:
                break
            status = self.write_step(data + call.written, min(<size_t> BATCH, size - call.written), &taken)
            if status == DONE:
                self.take_output()  # without memory for it, `flush` says so
            self.leave()
            if status == WANT_READ:  # it is in a handshake
                pthread_mutex_unlock(&self.writing)
                status = self.handshake(call)
                if status != DONE:
                    return status
                status = self.lock(&self.writing, call)
                if status != DONE:
                    return status
                continue
            if status != DONE:
                self.flush_some_held(call)
                break
            call.written += taken
            if size == 0:
                break
        pthread_mutex_unlock(&self.writing)
        if self.window.spill.size > 0:  # a reader has left it to us
            self.flush_some(call)
        return status

    cdef void flush_some_held(self, io_call *call) noexcept nogil:
        cdef io_call hasty = call[0]
        hasty.timeout = 0
        self.flush(&hasty)

    cdef outcome end(self, io_call *call) noexcept nogil:
        """close_notify, and wait for the peer's. Never more than that is received."""
        cdef char[SMALL] scratch
        cdef size_t wanted, got = 0
        cdef int result, sent = 0
        cdef bint receiving = False
        cdef outcome status
        self.exact = True
        while True:
            status = self.enter()
            if status != DONE:
                break
            status = self.shutdown_step(scratch if got else NULL, got, &result)
            wanted = min(<size_t> SMALL, self.receive_room(call, 0))
            self.leave()
            got = 0
            if status == TLS_FAILED or status == OUT_OF_MEMORY or status == PEER_CLOSED:
                self.flush_some(call)
                break
            if status == DONE:
                status = self.flush_all(call)
                if status != DONE or result == 1:
                    break
                sent += 1
                if sent > 1:
                    break
                continue
            if not receiving:
                status = self.lock(&self.reading, call)
                if status != DONE:
                    break
                receiving = True
                continue  # whoever was reading may have received it
            status = self.receive(call, scratch, wanted, &got)
            if status != DONE:
                break
        if receiving:
            pthread_mutex_unlock(&self.reading)
        return status
