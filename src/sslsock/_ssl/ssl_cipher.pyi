from typing import Optional

from ..core.engine import Engine

def engine_cipher(engine: Engine) -> Optional[tuple[str, str, int]]: ...
