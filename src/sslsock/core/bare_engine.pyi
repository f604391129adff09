class BareEngine:
    """One libssl connection over a window BIO, driven without the GIL: base of Engine."""

    @property
    def handshake_done(self) -> bool:
        """Whether the handshake is over: bool. From then on there is plaintext."""
    @property
    def peer_closed(self) -> bool:
        """Whether the peer has ended its direction in order, by close_notify: bool."""
    @property
    def certificate_requested(self) -> bool:
        """Whether a client that was asked for its certificate after the handshake has not answered yet: bool."""
