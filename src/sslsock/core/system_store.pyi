from collections.abc import Hashable
from typing import final

def system_stamp() -> Hashable: ...

@final
class SystemStore: ...
