from .link import Link

class OutputLink(Link):
    """The outgoing half of a channel."""

    hold_writes: bool
