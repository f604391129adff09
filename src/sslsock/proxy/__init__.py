"""Layer 4: the TLS proxy, `python -m sslsock proxy`.

    settings            what it is told to do, on the command line or in a file
    check               whether that can be done
    policy              what one listener does with its connections: settings with every file loaded (`files`, `tls`)
    server              the process: signals, reload, drain
    in_force            what it goes by, and how that changes; `renewal`: by files that change
    worker              a loop with its listeners and sessions; workers are threads (`worker_threads`) or `processes`
    sessions            one connection on its way to becoming a relay
    back_ends           which back end is next, and which is left out
    limits              who may connect, how many, how fast; `allowance`: what the workers may take together
    observability       log, metrics, probes; `announcement`: the first lines
    acme, fleet         certificates that it obtains; proxies that share keys
    service             rights, sockets from systemd, and what systemd is told

Each folder says in its first lines what is in it. No two of them import each other.
"""
