class BareEngine:
    """One libssl connection over a window BIO, driven without the GIL: base of Engine."""

    @property
    def handshake_done(self) -> bool: ...
    @property
    def peer_closed(self) -> bool: ...
