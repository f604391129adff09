"""Who may connect, how many, and how fast.

    networks        lists of networks that may
    sources         what each source of connections has, and may have
    gate            places: connections at once, and handshakes among them
    rates           how many begin in a time
    lifetime        how long they may live
    shares          the same for worker processes, in memory that all of them have (`shared_gate`)
    descriptors     how the descriptors that the system gives are shared out
    refusals        lines about who was kept out
"""
