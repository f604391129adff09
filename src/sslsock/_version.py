"""The version of the package, in the one place that the build, `sslsock.__version__` and `python -m sslsock version` read."""

__version__ = "0.1.0"
