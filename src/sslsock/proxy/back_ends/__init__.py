"""Back ends: what is known of them, and which of them the next connection goes to.

    backends        the back ends of a route, failed ones left out for a while
    balance         the choice among those that may be used
    health          what all workers know of one
    checks          asks each whether it serves
    directory       DNS: what a name stands for
"""
