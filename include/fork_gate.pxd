"""What keeps a fork out of libssl's handshakes (fork_gate.h)."""


cdef extern from "fork_gate.h" nogil:
    void fork_gate_enter()
    void fork_gate_leave()
    int fork_gate_pause()
    void fork_gate_resume(int entered)
