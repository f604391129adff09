"""The proxy and the system that runs it.

    openings            the descriptors that it listens on
    privileges          what a service gets from whom starts it, and gives back; the right that is kept (`capabilities`)
    service_manager     what systemd is told
    syn_filter          a listening socket that lets nobody new in
"""
