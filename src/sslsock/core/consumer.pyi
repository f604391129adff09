from .link import Link

class ChannelConsumer:
    """Whom a channel tells what happens, in C."""

class ReportingLink(Link):
    """A link with a consumer: base of OutputLink."""

    notify_written: bool
    notify_sessions: bool
