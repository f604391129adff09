from os import PathLike
from typing import Any, Optional, Union

from .ssl_hooks import HookedContext

_Path = Union[str, bytes, PathLike[str], PathLike[bytes]]

class TrustingContext(HookedContext):
    def load_verify_locations(
        self,
        cafile: Optional[_Path] = None,
        capath: Optional[_Path] = None,
        cadata: Union[str, bytes, bytearray, memoryview, None] = None,
    ) -> None: ...
    def set_default_verify_paths(self) -> None: ...
    def cert_store_stats(self) -> dict[str, int]: ...
    def get_ca_certs(self, binary_form: bool = False) -> list[Any]: ...
