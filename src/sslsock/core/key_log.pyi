from os import PathLike
from typing import Callable, Optional, Union, final

def key_log_of_environment() -> Optional[str]: ...

@final
class KeyLog:
    def __new__(cls, target: Union[str, PathLike[str], Callable[[str], object]]) -> KeyLog: ...
