from collections.abc import Sequence
from typing import Optional

from .certificate import SslCertificate
from .context import Context

_VerifyError = tuple[int, int, str, Optional[SslCertificate]]

def verify_certificates(
    context: Context, chain: Sequence[SslCertificate], verify_name: Optional[str], of_client: bool, when: Optional[int]
) -> list[_VerifyError]: ...
