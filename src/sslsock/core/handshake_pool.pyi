from typing import final

MOST_THREADS: int

@final
class HandshakePool:
    """Threads that shake hands."""

    most: int
    running: int
    busy: int
    waiting: int

    def __init__(self, threads: int) -> None: ...
