"""What the compiled modules import, written in Python: for tools that read a program to find out what it needs (PyInstaller,
Nuitka), and that cannot look into the shared object.

Never imported at run time. PyInstaller finds it by the package's own hook (`sslsock/_pyinstaller`), Nuitka is told of it:
`--include-module=sslsock.core.compiled_imports`.
"""
# ruff: noqa: F401

import _socket
import _ssl
import _weakref
import asyncio
import asyncio.events
import asyncio.format_helpers
import asyncio.log
import asyncio.protocols
import asyncio.streams
import atexit
import collections
import datetime
import enum
import errno
import ipaddress
import logging
import operator
import os
import re
import socket
import ssl
import sys
import threading
import warnings
import weakref

import sslsock._version
import sslsock.core._native  # type: ignore[import-not-found]
import sslsock.core.event_loop
import sslsock.core.foreign
import sslsock.core.hostname
import sslsock.core.trust_store
