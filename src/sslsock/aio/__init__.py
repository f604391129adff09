"""asyncio on the core: an event loop whose queue, timers, sockets and TLS are C."""

from .event_loop import EventLoop, new_event_loop
from .transport import Transport

__all__ = ["EventLoop", "Transport", "new_event_loop"]
