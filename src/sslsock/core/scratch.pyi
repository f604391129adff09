from typing import final

@final
class Scratch:
    """One set of scratch memory, for one level of nested turns."""
