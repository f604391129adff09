from typing import Any

class ReaderState:
    """The state of one StreamReader."""

    buffer: Any
    waiter: Any
    exception: Any
    transport: Any
    limit: Any
    loop: Any
    eof: bool
    paused: bool

class StateAttribute:
    """An attribute of a reader that is in its state."""

    def __init__(self, name: str) -> None: ...
    def __get__(self, instance: Any, owner: Any = ..., /) -> Any: ...
    def __set__(self, instance: Any, value: Any, /) -> None: ...
