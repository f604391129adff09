"""What the proxy tells: log, metrics, probes.

    record              what is known of one connection at its end: the material of all of these
    stages, causes      what an end, and a failed handshake, is called
    access_log          lines about connections and for the operator, and the thread that writes them
    process_log         what else the process says, led into the same log
    summary             the line at the bottom of a terminal
    metrics             what is counted; how Prometheus gets it (`metrics_server`, on `small_server`)
    pulse               whether the workers are alive
"""
