from typing import final

@final
class OutputQueue:
    """What a program has written and nobody has encrypted or sent."""
