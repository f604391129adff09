"""`sslsock.ssl.install()` and `uninstall()`. Each test in a process of its own."""

from __future__ import annotations

from pathlib import Path

import pytest
from tls_pairs import Files, python


def test_before_ssl_is_imported() -> None:
    shown = python(
        """
        import sys
        assert "ssl" not in sys.modules
        from sslsock import ssl
        ssl.install()
        import ssl as stdlib, _ssl
        from ssl import SSLContext, MemoryBIO, create_default_context
        assert _ssl is ssl._ssl is stdlib._ssl
        assert SSLContext is ssl.SSLContext and MemoryBIO is ssl.MemoryBIO and stdlib.SSLSession is ssl.SSLSession
        context = create_default_context()
        assert type(context) is stdlib.SSLContext and isinstance(context, stdlib.SSLContext)
        print(stdlib.OPENSSL_VERSION == ssl.OPENSSL_VERSION, stdlib.OPENSSL_VERSION_NUMBER == ssl.OPENSSL_VERSION_NUMBER)
        """
    )
    assert shown == "True True\n"


def test_after_ssl_is_imported() -> None:
    shown = python(
        """
        import http.client, ssl
        from ssl import SSLContext, create_default_context, get_server_certificate
        import sslsock.ssl
        sslsock.ssl.install()
        for name in ("SSLContext", "MemoryBIO", "SSLSession", "RAND_bytes", "_ssl", "OPENSSL_VERSION", "OPENSSL_VERSION_INFO",
                     "OPENSSL_VERSION_NUMBER"):
            assert getattr(ssl, name) is getattr(sslsock.ssl, name), name
        assert SSLContext is ssl.SSLContext and create_default_context is ssl.create_default_context
        assert get_server_certificate is ssl.get_server_certificate
        assert ssl.get_default_verify_paths() == sslsock.ssl.get_default_verify_paths()
        for context in (SSLContext(ssl.PROTOCOL_TLS_CLIENT), create_default_context(), ssl._create_unverified_context(),
                        ssl._create_stdlib_context(), ssl._create_default_https_context(),
                        http.client.HTTPSConnection("localhost")._context):
            assert type(context) is sslsock.ssl.SSLContext, context
        print("ok")
        """
    )
    assert shown == "ok\n"


def test_a_connection_is_ours(files: Files) -> None:
    """Through modules of the standard library that were imported before, and one that is imported after."""
    shown = python(
        """
        import http.client, http.server, ssl, sys, threading
        import sslsock.ssl
        sslsock.ssl.install()
        import urllib.request

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self):
                self.send_response(200)
                self.end_headers()
                self.wfile.write(type(self.connection._sslobj).__module__.encode())
            def log_message(self, *arguments):
                pass

        server = http.server.HTTPServer(("127.0.0.1", 0), Handler)
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(sys.argv[2])
        server.socket = context.wrap_socket(server.socket, server_side=True)
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        client = ssl.create_default_context(cafile=sys.argv[1])
        with urllib.request.urlopen(f"https://localhost:{server.server_port}/", context=client) as answer:
            print(answer.read().decode())
        connection = http.client.HTTPSConnection("localhost", server.server_port, context=client)
        connection.request("GET", "/")
        print(type(connection.sock._sslobj).__module__, connection.getresponse().read().decode())
        connection.close()
        server.shutdown()
        thread.join()
        server.server_close()
        """,
        files.ca_file,
        files.server_file,
    )
    own = "sslsock._ssl.ssl_connection"
    assert shown == f"{own}\n{own} {own}\n"


def test_uninstall_puts_everything_back() -> None:
    shown = python(
        """
        import sys, ssl, _ssl, http.client, urllib.request, asyncio.sslproto, smtplib
        from ssl import SSLContext, SSLContext as Other, create_default_context, OPENSSL_VERSION, RAND_bytes
        from sslsock import ssl as own

        def everything():
            spaces = {name: dict(vars(module)) for name, module in list(sys.modules.items())
                      if hasattr(module, "__dict__") and not name.startswith("sslsock") and name != "__main__"}
            spaces["main"] = {name: globals()[name] for name in ("SSLContext", "Other", "create_default_context", "RAND_bytes")}
            spaces["class"] = dict(vars(spaces["main"]["SSLContext"]))
            spaces["modules"] = dict(sys.modules)
            return spaces

        before = everything()
        own.install()
        assert SSLContext is own.SSLContext and Other is own.SSLContext and RAND_bytes is own.RAND_bytes
        own.uninstall()
        after = everything()
        assert set(after) == set(before)
        for name in before:
            assert set(after[name]) == set(before[name]), name
            for key in before[name]:
                assert after[name][key] is before[name][key], (name, key)
        print(type(create_default_context()).__module__, sys.modules["_ssl"] is _ssl is ssl._ssl)
        """
    )
    assert shown == "ssl True\n"


def test_twice_and_in_turn() -> None:
    shown = python(
        """
        import ssl, sslsock.ssl as own
        plain = [ssl.SSLContext]  # no global, so it stays
        own.uninstall()
        assert ssl.SSLContext is plain[0]
        for _ in range(3):
            own.install()
            own.install()
            assert ssl.SSLContext is own.SSLContext
            own.uninstall()
            assert ssl.SSLContext is plain[0]
            own.uninstall()
            assert ssl.SSLContext is plain[0]
        print(own.install(), own.uninstall())
        """
    )
    assert shown == "None None\n"


def test_what_others_have_put_there_since_stays() -> None:
    shown = python(
        """
        import ssl, sslsock.ssl as own
        from ssl import SSLContext, create_default_context
        plain = [ssl.SSLContext, ssl.create_default_context]
        own.install()

        class Theirs(ssl.SSLContext):
            pass

        ssl.SSLContext = Theirs
        create_default_context = None
        ssl.added = "by somebody"
        own.uninstall()
        assert ssl.SSLContext is Theirs and create_default_context is None and ssl.added == "by somebody"
        assert SSLContext is plain[0] and ssl.create_default_context is plain[1]
        print("ok")
        """
    )
    assert shown == "ok\n"


def test_what_others_had_put_there_before_stays() -> None:
    """`ssl._create_default_https_context = ssl._create_unverified_context` is in many programs; so are functions round the
    interpreter's."""
    shown = python(
        """
        import ssl, sslsock.ssl as own
        inner = [ssl.create_default_context]
        def wrapped(*arguments, **options):
            context = inner[0](*arguments, **options)
            context.options |= ssl.OP_NO_TICKET
            return context
        ssl.create_default_context = wrapped
        ssl._create_default_https_context = ssl._create_unverified_context
        own.install()
        assert ssl.create_default_context is wrapped
        context = ssl.create_default_context()
        assert type(context) is own.SSLContext and context.options & ssl.OP_NO_TICKET
        context = ssl._create_default_https_context()
        assert type(context) is own.SSLContext and context.verify_mode == ssl.CERT_NONE
        own.uninstall()
        assert ssl.create_default_context is wrapped and ssl._create_default_https_context is ssl._create_unverified_context
        assert type(ssl._create_default_https_context()) is ssl.SSLContext is not own.SSLContext
        print("ok")
        """
    )
    assert shown == "ok\n"


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_class_that_somebody_has_put_into_ssl_is_the_one_that_is_used(when: str) -> None:
    """Functions of `ssl` look for it there. What was there before install has nothing of ours: a warning says what to do."""
    shown = python(
        """
        import sys, warnings, ssl, sslsock.ssl as own
        from ssl import SSLContext, create_default_context

        def put():
            class Theirs(ssl.SSLContext):
                pass
            ssl.SSLContext = Theirs

        if sys.argv[1] == "before":
            put()
        with warnings.catch_warnings(record=True) as warned:
            warnings.simplefilter("always")
            own.install()
        if sys.argv[1] == "after":
            put()
        assert SSLContext is own.SSLContext
        for context in (create_default_context(), ssl.create_default_context(), ssl._create_default_https_context()):
            assert type(context) is ssl.SSLContext and issubclass(type(context), own.SSLContext) == (sys.argv[1] == "after")
        print([(str(one.message), one.filename) for one in warned])
        own.uninstall()
        assert ssl.SSLContext.__name__ == "Theirs"
        """,
        when,
    )
    words = "ssl.SSLContext is __main__.put.<locals>.Theirs, and stays so: its contexts are not sslsock's. "
    words += "Call sslsock.ssl.install() before whatever has put it there"
    assert shown == (f"{[(words, '<string>')]}\n" if when == "before" else "[]\n")


@pytest.mark.parametrize("when", ["injected", "imported", "later"])
def test_truststore_has_contexts_of_ours_below_it(when: str, files: Files) -> None:
    """Whether it is there before install or comes after: its class stays in `ssl`, with its trust, and the TLS is ours."""
    pytest.importorskip("truststore")
    shown = python(
        """
        import socket, ssl, sys, threading
        from ssl import SSLContext, create_default_context
        when, server_file = sys.argv[1:]
        server = SSLContext(ssl.PROTOCOL_TLS_SERVER)
        server.load_cert_chain(server_file)
        if when != "later":
            import truststore
        if when == "injected":
            truststore.inject_into_ssl()
        import sslsock.ssl as own
        own.install()
        import truststore
        if when != "injected":
            truststore.inject_into_ssl()
        assert ssl.SSLContext is truststore.SSLContext and SSLContext is own.SSLContext
        context = create_default_context()
        assert type(context) is truststore.SSLContext and type(context._ctx) is own.SSLContext
        assert isinstance(context, ssl.SSLContext) and isinstance(context, SSLContext)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.verify_flags |= ssl.VERIFY_X509_STRICT
        left, right = socket.socketpair()
        thread = threading.Thread(target=lambda: server.wrap_socket(right, server_side=True).close())
        thread.start()
        with context.wrap_socket(left, server_hostname="localhost") as tls:
            print(type(tls._sslobj).__module__)
        thread.join()
        own.uninstall()
        assert ssl.SSLContext is truststore.SSLContext
        truststore.extract_from_ssl()
        print(ssl.SSLContext is own.SSLContext)
        """,
        when, files.server_file, SSL_CERT_FILE=str(files.ca_file),
    )  # fmt: skip
    assert shown == f"sslsock._ssl.ssl_connection\n{when == 'later'}\n"


def test_contexts_that_exist_go_on_working(files: Files) -> None:
    shown = python(
        """
        import socket, ssl, sys, threading, sslsock.ssl as own
        client = ssl.create_default_context(cafile=sys.argv[1])
        server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        server.load_cert_chain(sys.argv[2])

        def use(client, server):
            for context in (client, server):
                assert isinstance(context, ssl.SSLContext)
                context.options |= ssl.OP_NO_TICKET
                context.verify_flags |= ssl.VERIFY_X509_TRUSTED_FIRST
                context.minimum_version = ssl.TLSVersion.TLSv1_2
                context.maximum_version = ssl.TLSVersion.TLSv1_3
                context._msg_callback = None
            client.verify_mode = ssl.CERT_REQUIRED
            left, right = socket.socketpair()
            accepted = []
            thread = threading.Thread(target=lambda: accepted.append(server.wrap_socket(right, server_side=True)))
            thread.start()
            with client.wrap_socket(left, server_hostname="localhost") as tls:
                thread.join()
                with accepted[0]:
                    tls.sendall(b"x")
                    assert accepted[0].recv(1) == b"x" and isinstance(tls, ssl.SSLSocket)
            one, other = ssl.MemoryBIO(), ssl.MemoryBIO()
            waiting = ends = [client.wrap_bio(one, other, server_hostname="localhost"), server.wrap_bio(other, one, True)]
            while waiting:
                for end in list(waiting):
                    try:
                        end.do_handshake()
                        waiting = [still for still in waiting if still is not end]
                    except ssl.SSLWantReadError:
                        pass
            ends[0].write(b"y" * 100000)
            got = bytearray(100000)
            assert sum(ends[1].read(100000, memoryview(got)[at:]) for at in range(0, 100000, 16384)) == 100000
            assert got == b"y" * 100000 and ends[0].context is client and ends[1].cipher() == ends[0].cipher()
            try:
                ends[1].read()
                raise AssertionError("there is more")
            except ssl.SSLWantReadError:
                pass
            other.write_eof()
            try:
                end = ends[1].read()  # where CPython 3.9 ignores that there was no close_notify
            except ssl.SSLEOFError:
                end = b""
            assert end == b""

        use(client, server)
        own.install()
        new = ssl.create_default_context(cafile=sys.argv[1])
        use(client, server)
        use(new, server)
        own.uninstall()
        use(client, server)
        use(new, server)
        print(type(client._ssl if hasattr(client, "_ssl") else client).__module__, type(new).__module__)
        """,
        files.ca_file,
        files.server_file,
    )
    assert shown == "ssl sslsock.ssl\n"


def test_modules_that_have_derived_a_class_keep_it(tmp_path: Path) -> None:
    """They call what they inherit by the name that they imported, as truststore does."""
    (tmp_path / "derived.py").write_text(
        "from ssl import SSLContext, create_default_context\n"
        "class Own(SSLContext):\n"
        "    @property\n"
        "    def options(self): return super().options\n"
        "    @options.setter\n"
        "    def options(self, value): super(SSLContext, SSLContext).options.__set__(self, value)\n"
    )
    (tmp_path / "user.py").write_text("from ssl import SSLContext\nfrom ssl import SSLContext as Renamed\n")
    shown = python(
        """
        import sys
        sys.path.insert(0, sys.argv[1])
        import derived, user, sslsock.ssl as own
        own.install()
        assert user.SSLContext is user.Renamed is own.SSLContext is not derived.SSLContext
        assert type(derived.create_default_context()) is own.SSLContext
        context = derived.Own(own.PROTOCOL_TLS_CLIENT)
        context.options |= own.OP_NO_TICKET
        import ssl
        class Later(ssl.SSLContext):
            pass
        assert isinstance(Later(ssl.PROTOCOL_TLS_CLIENT), own.SSLContext)
        print("ok")
        """,
        tmp_path,
    )
    assert shown == "ok\n"


def test_a_package_that_has_derived_a_class_keeps_it_everywhere(tmp_path: Path) -> None:
    """Another module of it has the name, and the descriptors (truststore)."""
    (tmp_path / "trusting").mkdir()
    (tmp_path / "trusting/__init__.py").write_text("from ._api import Own\n")
    (tmp_path / "trusting/_api.py").write_text("import ssl\nclass Own(ssl.SSLContext):\n    pass\n")
    (tmp_path / "trusting/_constants.py").write_text(
        "import ssl\n"
        "original = ssl.SSLContext\n"
        "original_super = super(original, original)\n"
        "def make():\n"
        "    context = original(ssl.PROTOCOL_TLS_CLIENT)\n"
        "    original_super.verify_mode.__set__(context, ssl.CERT_REQUIRED)\n"
        "    return context\n"
    )
    shown = python(
        """
        import sys
        sys.path.insert(0, sys.argv[1])
        import trusting, trusting._constants as constants, ssl
        from sslsock import ssl as own
        own.install()
        context = constants.make()
        assert type(context) is constants.original is not own.SSLContext and isinstance(context, ssl.SSLContext)
        assert isinstance(trusting.Own(ssl.PROTOCOL_TLS_CLIENT), ssl.SSLContext)
        print("ok")
        """,
        tmp_path,
    )
    assert shown == "ok\n"


def test_a_lazy_module_stays_lazy() -> None:
    shown = python(
        """
        import importlib.util, sys
        spec = importlib.util.find_spec("colorsys")
        spec.loader = importlib.util.LazyLoader(spec.loader)
        lazy = importlib.util.module_from_spec(spec)
        sys.modules["colorsys"] = lazy
        spec.loader.exec_module(lazy)
        sys.modules["no module"] = object()
        import sslsock.ssl
        sslsock.ssl.install()
        print(type(lazy).__name__)
        """
    )
    assert shown == "_LazyModule\n"


def test_contexts_that_libraries_have_made_when_imported(tmp_path: Path) -> None:
    """With modules of the libraries' names, that hold what those hold; the libraries themselves are in test_libraries.py."""
    for package in ("aiohttp", "tornado", "requests"):
        (tmp_path / package).mkdir()
        (tmp_path / package / "__init__.py").write_text("")
    (tmp_path / "aiohttp/connector.py").write_text(
        "import ssl\n"
        "def _make_ssl_context(verified):\n"
        "    return ssl.create_default_context() if verified else ssl._create_unverified_context()\n"
        "_SSL_CONTEXT_VERIFIED = _make_ssl_context(True)\n"
        "_SSL_CONTEXT_UNVERIFIED = _make_ssl_context(False)\n"
    )
    (tmp_path / "tornado/netutil.py").write_text(
        "import ssl\n"
        "_client_ssl_defaults = ssl.create_default_context(ssl.Purpose.SERVER_AUTH)\n"
        "_server_ssl_defaults = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)\n"
    )
    (tmp_path / "tornado/iostream.py").write_text("from tornado.netutil import _client_ssl_defaults, _server_ssl_defaults\n")
    (tmp_path / "requests/adapters.py").write_text("_preloaded_ssl_context = 1\n")  # of no version that is known
    shown = python(
        """
        import sys, ssl
        sys.path.insert(0, sys.argv[1])
        import aiohttp.connector as connector, tornado.netutil as netutil, tornado.iostream as iostream, requests.adapters
        from sslsock import ssl as own
        before = [connector._SSL_CONTEXT_VERIFIED, netutil._client_ssl_defaults]
        own.install()
        for context in (connector._SSL_CONTEXT_VERIFIED, connector._SSL_CONTEXT_UNVERIFIED, netutil._client_ssl_defaults,
                        netutil._server_ssl_defaults):
            assert type(context) is own.SSLContext
        assert connector._SSL_CONTEXT_VERIFIED.verify_mode == ssl.CERT_REQUIRED
        assert connector._SSL_CONTEXT_UNVERIFIED.verify_mode == ssl.CERT_NONE
        assert iostream._client_ssl_defaults is netutil._client_ssl_defaults
        assert netutil._client_ssl_defaults.options & ssl.OP_NO_COMPRESSION and requests.adapters._preloaded_ssl_context == 1
        own.uninstall()
        assert [connector._SSL_CONTEXT_VERIFIED, iostream._client_ssl_defaults] == before
        print("ok")
        """,
        tmp_path,
    )
    assert shown == "ok\n"


def test_threads_install_and_use_it_at_once() -> None:
    shown = python(
        """
        import ssl, threading, sslsock.ssl as own
        begin, kinds = threading.Barrier(8), set()
        def work(number):
            begin.wait()
            for _ in range(20):
                if number == 0: own.install()
                if number == 1: own.uninstall()
                context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
                context.options |= ssl.OP_NO_TICKET
                context.minimum_version = ssl.TLSVersion.TLSv1_2
                kinds.add(isinstance(context, ssl.SSLContext) or type(context))
        threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
        for thread in threads: thread.start()
        for thread in threads: thread.join()
        own.uninstall()
        assert ssl.SSLContext is not own.SSLContext
        print("ok")
        """
    )
    assert shown == "ok\n"


def test_names_that_the_interpreters_ssl_lacks_come_and_go() -> None:
    shown = python(
        """
        import ssl, sslsock.ssl as own
        before = set(dir(ssl))
        own.install()
        assert set(dir(own)) - set(dir(ssl)) == {"install", "uninstall"}
        own.uninstall()
        print(set(dir(ssl)) == before)
        """
    )
    assert shown == "True\n"
