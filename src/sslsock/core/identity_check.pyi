from collections.abc import Sequence

from .certificate import SslCertificate
from .context import Context
from .key import SslKey

def check_identity(context: Context, certificate: SslCertificate, chain: Sequence[SslCertificate], key: SslKey) -> None: ...
