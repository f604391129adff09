"""The settings of a proxy, as tests compare them."""

from __future__ import annotations

from sslsock.proxy.settings.model import Places, ProxySettings


def said(settings: ProxySettings) -> ProxySettings:
    """What they say, wherever it was written."""
    return settings._replace(file=None, places=Places())
