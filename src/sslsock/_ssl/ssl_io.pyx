"""`Connection`: the C half of `_SSLSocket`. The socket beneath, and who may do what at one time.

Nothing here needs the GIL. An operation is a loop of steps: libssl works in memory (ssl_steps.pyx), what it has made is sent, what it
lacks is received. A thread that reads and one that writes do not wait for each other. A receive takes no record that this call does
not need: programs look with `select` whether there is more. For a read that is as many as find room in its memory, together with the
header of the next one. A call that may not wait, `shutdown` (what follows close_notify is not ours) and, with SSLSOCK_READ_AHEAD=0,
every read take one record, and nothing of the next.
"""

import os

cimport system
from shared_value cimport load_int, load_thread
from scratch cimport scratch_give, scratch_take
from sslsock._ssl.ssl_steps cimport (
    BAD_RETRY, DONE, ENTERED, HEADER, INTERRUPTED, OUT_OF_MEMORY, OVERHEAD, PEER_CLOSED, RECORD, SYSTEM_FAILED, TIMED_OUT, TLS_FAILED,
    WANT_READ, WANT_WRITE)
from system cimport (
    EAGAIN, ECONNRESET, EINTR, EPIPE, MSG_DONTWAIT, MSG_NOSIGNAL, POLLIN, POLLOUT, clock_gettime, errno, poll,
    pthread_mutex_destroy, pthread_mutex_init, pthread_mutex_t, pthread_mutex_timedlock, pthread_mutex_trylock,
    pthread_mutex_unlock, recv, send, timespec)
from window_bio cimport byte_queue_clear, byte_queue_consume, byte_queue_front, byte_queue_join

cdef extern from "Python.h" nogil:
    unsigned long PyThread_get_thread_ident()

cdef enum:
    RECEIVE = 131072  # most bytes of one receive
    SMALL = RECORD + RECORD + OVERHEAD  # least room for what is received
    LITTLE = 22  # bytes that TLS 1.3 adds to a record at least: RFC 8446, 5.2
    BATCH = 131072  # bytes that are encrypted before they are sent
    SLICE = 100_000_000  # nanoseconds: a thread that waits for another looks for signals as often

cdef bint READ_AHEAD = os.environ.get("SSLSOCK_READ_AHEAD", "1") != "0"


cdef long long nanoseconds_left(const io_call *call) noexcept nogil:
    """Until the end of a call that has one."""
    cdef timespec now
    clock_gettime(system.MONOTONIC_CLOCK, &now)
    return (call.until.tv_sec - now.tv_sec) * 1_000_000_000 + (call.until.tv_nsec - now.tv_nsec)


cdef class Connection(SteppedConnection):
    def __cinit__(self, *_, **__):
        self.make_locks()

    cdef void make_locks(self) noexcept nogil:
        SteppedConnection.make_locks(self)
        pthread_mutex_init(&self.reading, NULL)
        pthread_mutex_init(&self.writing, NULL)

    def __dealloc__(self):
        byte_queue_clear(&self.unsent)
        pthread_mutex_destroy(&self.reading)
        pthread_mutex_destroy(&self.writing)

    # The socket

    cdef outcome lock(self, pthread_mutex_t *mutex, io_call *call) noexcept nogil:
        cdef timespec until
        cdef long long left = SLICE
        if pthread_mutex_trylock(mutex) == 0:
            return DONE
        if load_thread(self.inside) == PyThread_get_thread_ident():  # it may be our own, from before the callback that we are in
            return ENTERED
        if call.timeout == 0:
            return WANT_WRITE if mutex == &self.writing else WANT_READ
        if call.timeout > 0:
            left = min(left, nanoseconds_left(call))
            if left <= 0:
                return TIMED_OUT
        clock_gettime(system.CLOCK_REALTIME, &until)
        until.tv_nsec += <long> left
        if until.tv_nsec >= 1_000_000_000:
            until.tv_nsec -= 1_000_000_000
            until.tv_sec += 1
        return DONE if pthread_mutex_timedlock(mutex, &until) == 0 else INTERRUPTED

    cdef outcome wait(self, io_call *call, short events) noexcept nogil:
        """After EAGAIN. events: POLLIN, POLLOUT or both."""
        cdef system.pollfd one
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
        """How many bytes to receive for a read of `asked`: the record at hand, or as many as have no more data than that together, for
        each adds LITTLE to its own (two that add half as much would still fit). Entered: who closes the connection consumes input too."""
        cdef size_t room = self.missing()
        if READ_AHEAD and not self.exact and call.timeout != 0:
            asked += LITTLE
            room = max(room + HEADER, asked - min(asked, self.input.size))
        return min(<size_t> RECEIVE, room)

    cdef outcome receive(self, io_call *call, char *memory, size_t room, size_t *got) noexcept nogil:
        cdef ssize_t count
        cdef outcome status
        got[0] = 0
        if self.eof:
            return DONE
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
        cdef system.pollfd one
        one.fd = call.descriptor
        one.events = POLLIN
        one.revents = 0
        return poll(&one, 1, 0) != 0

    cdef outcome flush(self, io_call *call) noexcept nogil:
        """Send what libssl has made. Under `writing`."""
        cdef ssize_t count
        cdef outcome status
        cdef bint joined, interrupted
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
                interrupted = call.timeout < 0 and <size_t> count < self.unsent.size  # who blocks sends less for a signal only
                byte_queue_consume(&self.unsent, count)
                if interrupted:
                    return INTERRUPTED
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

    cdef outcome operate(self, operation what, io_call *call) noexcept nogil:
        if what == READ:
            return self.read_some(call, call.memory, call.size, &call.got)
        if what == WRITE:
            return self.write_all(call, call.memory, call.size)
        if what == HANDSHAKE:
            return self.handshake(call)
        return self.end(call)

    cdef outcome handshake(self, io_call *call) noexcept nogil:
        cdef char *scratch
        cdef size_t wanted, got = 0
        cdef outcome flushed, status = self.lock(&self.reading, call)
        if status != DONE:
            return status
        scratch = scratch_take(SMALL)
        while True:
            if scratch == NULL:
                status = OUT_OF_MEMORY
                break
            status = self.enter()
            if status != DONE:
                break
            status = self.handshake_step(scratch if got else NULL, got)
            wanted = self.missing() + HEADER  # the next one's: a receive for each record, not two
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
        scratch_give(scratch)
        pthread_mutex_unlock(&self.reading)
        return status

    cdef outcome read_some(self, io_call *call, char *memory, size_t room, size_t *got) noexcept nogil:
        cdef char *scratch = NULL
        cdef size_t received = 0, wanted, capacity = 0
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
            if not load_int(self.handshake_done):
                flushed = self.flush_all(call)
                if flushed != DONE:
                    status = flushed
                    break
            if scratch == NULL:
                capacity = max(wanted, <size_t> SMALL)
                scratch = scratch_take(capacity)
                if scratch == NULL:
                    status = OUT_OF_MEMORY
                    break
            status = self.receive_or_send(call)
            if status == DONE:
                status = self.receive(call, scratch, min(wanted, capacity), &received)
            if status != DONE:
                break
        scratch_give(scratch)
        pthread_mutex_unlock(&self.reading)
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
        cdef char *scratch = NULL
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
                scratch = scratch_take(SMALL)
                continue  # whoever was reading may have received it
            if scratch == NULL:
                status = OUT_OF_MEMORY
                break
            status = self.receive(call, scratch, wanted, &got)
            if status != DONE:
                break
        if receiving:
            scratch_give(scratch)
            pthread_mutex_unlock(&self.reading)
        return status
