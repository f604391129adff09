class Loader:
    """What certificates and lists are loaded by."""
