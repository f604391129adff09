# PYTHON_ARGCOMPLETE_OK
"""`python -m sslsock COMMAND` and `sslsock COMMAND`: the arguments of all commands, and the way to the one that is asked for.

Exit status: 0 clean, 1 a failure of TLS, the network or a file, 2 wrong usage, 130 interrupted.
"""

from __future__ import annotations

import argparse
import importlib
import os
import sys
from collections.abc import Sequence
from contextlib import suppress
from typing import Any, NoReturn, Optional

from . import __version__, openssl_version
from ._version import DOCUMENTATION
from .commands.common import (
    CommandError,
    address,
    listen_address,
    names_list,
    positive,
    positive_count,
    print_error,
)
from .core.event_loop import EventLoop
from .proxy.settings.options import add_arguments as add_proxy_arguments

DESCRIPTION = "Event-driven sockets with TLS: a client, a server, a proxy, a demonstration and a benchmark."

EXAMPLES = """\
examples:
  %(prog)s connect example.com:443 --alpn h2,http/1.1
  %(prog)s connect mail.example.com:587 --starttls smtp
  %(prog)s serve --listen 127.0.0.1:8443 --www . --ca-out ca.pem
  %(prog)s proxy --listen tls://:8443 --to tcp://127.0.0.1:8080 --ca-out ca.pem
  %(prog)s proxy --config proxy.toml --check
  %(prog)s run -m uvicorn app:app --ssl-certfile cert.pem --ssl-keyfile key.pem
  %(prog)s demo
  %(prog)s bench --quick
"""


MODULE = "python -m sslsock"


class Parser(argparse.ArgumentParser):
    """words: the whole command line. Wrong usage of the proxy is told in the form that its log is to have. Help ends with where
    to read more.
    """

    def __init__(self, *args: Any, words: Sequence[str] = (), **options: Any) -> None:
        super().__init__(*args, **options)
        self._words = words

    def format_help(self) -> str:
        return f"{super().format_help()}\ndocumentation: {DOCUMENTATION}\n"

    def error(self, message: str) -> NoReturn:
        if self._words[:1] == ["proxy"]:
            from .commands.proxy import tell_wrong_usage

            if tell_wrong_usage(self._words, message):
                self.exit(2)
        super().error(message)


def make_parser(words: Sequence[str] = (), name: str = MODULE) -> argparse.ArgumentParser:
    """words: what it is to parse, as far as that is known. name: what the user has called it by."""
    plain = argparse.RawDescriptionHelpFormatter
    parser = Parser(name, description=DESCRIPTION, epilog=EXAMPLES, formatter_class=plain, words=words)
    parser.add_argument("--version", action="version", version=f"sslsock {__version__}, {openssl_version()}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", title="commands")

    connect = commands.add_parser(
        "connect",
        help="connect to a TLS server, show what was agreed on, join standard input and output to it",
        description="Connect to a TLS server. What it shows of itself and what was agreed on goes to "
        "standard error; then standard input is sent and what comes is written to standard output. At the "
        "end of the input the peer's answer is still awaited (--wait).",
        epilog="exit status: 0 clean, 1 TLS or network failure (a connection cut without close_notify is "
        "one), 2 usage",
    )
    connect.add_argument(
        "address", metavar="HOST:PORT", type=address, help="an IPv6 address stands in brackets: [::1]:443"
    )
    connect.add_argument(
        "--starttls", choices=("smtp", "imap", "pop3"), help="begin in the clear with this protocol"
    )
    connect.add_argument(
        "--ca", metavar="FILE", help="trust the authorities in this PEM file, in place of the system's"
    )
    connect.add_argument(
        "--crl",
        metavar="FILE",
        action="append",
        default=[],
        help="look the server's certificate up in the revocation lists of this file (PEM or DER; may be given several times)",
    )
    connect.add_argument(
        "--partial-chain",
        action="store_true",
        help="a certificate of --ca is enough, also one of an intermediate authority, or the server's own",
    )
    connect.add_argument("--cert", metavar="FILE", help="own certificate (PEM), with its chain after it")
    connect.add_argument(
        "--key", metavar="FILE", help="its private key (PEM); may be missing if it is in the --cert file"
    )
    connect.add_argument(
        "--alpn", metavar="A,B", type=names_list, default=[], help="protocols to offer, best first"
    )
    connect.add_argument(
        "--server-name", metavar="NAME", help="ask for and verify this name in place of HOST"
    )
    connect.add_argument(
        "--insecure", action="store_true", help="go on in spite of verification errors; they are still shown"
    )
    connect.add_argument(
        "--session-file",
        metavar="FILE",
        help="resume the session that is kept in this file, and keep there what the server gives; as secret as a private key",
    )
    connect.add_argument(
        "--legacy-server", action="store_true", help="the server may lack secure renegotiation (RFC 5746)"
    )
    connect.add_argument(
        "--wait",
        metavar="SECONDS",
        type=positive,
        default=10.0,
        help="after the end of the input, close once nothing has come for so long (%(default)g)",
    )

    serve = commands.add_parser(
        "serve",
        help="a TLS server that echoes, or serves the files of a folder",
        description="Serve TLS until interrupted. The line that says where goes to standard output once it "
        "listens.",
        epilog="Without --cert a certificate for localhost is made in memory; clients trust it by the file "
        "of --ca-out.",
    )
    serve.add_argument(
        "--listen",
        metavar="HOST:PORT",
        type=listen_address,
        required=True,
        help="port 0: any free one; no HOST: every address",
    )
    what = serve.add_mutually_exclusive_group(required=True)
    what.add_argument("--echo", action="store_true", help="send back what comes")
    what.add_argument("--www", metavar="DIR", help="serve the files of DIR by HTTP/1.1")
    serve.add_argument("--cert", metavar="FILE", help="certificate (PEM), with its chain after it")
    serve.add_argument(
        "--key", metavar="FILE", help="its private key (PEM); may be missing if it is in the --cert file"
    )
    serve.add_argument(
        "--ca-out", metavar="FILE", help="write the authority of the certificate made in memory here (PEM)"
    )

    add_proxy_arguments(
        commands.add_parser("proxy", help="a TLS proxy: joins connections to back ends, TLS on either side", words=words)
    )

    commands.add_parser(
        "demo",
        help="a server and a client in one process, and all that happens between them",
        description="Show a server and a client in one process: states, modes and handlers as they happen, a "
        "certificate for the wrong name, resumption, STARTTLS, and a transfer with its rate. Needs "
        "no network and takes a few seconds.",
    )

    bench = commands.add_parser(
        "bench",
        help="measure sslsock on this machine, against the interpreter's ssl and others",
        description="Measure sslsock against the interpreter's ssl module and, where installed, uvloop, "
        "aiofastnet, pyOpenSSL, HAProxy and nginx: the engine over memory, handshakes, a server process and a "
        "client over the loopback, and proxies. All with one cipher suite; takes about eight minutes.",
    )
    bench.add_argument("--quick", action="store_true", help="about half a minute, rougher figures")
    bench.add_argument("--json", metavar="FILE", help="write every single figure to FILE as JSON")
    bench.add_argument(
        "--plot", metavar="FILE.png", help="draw the medians (needs matplotlib: the extra `bench`)"
    )
    bench.add_argument("--peers", metavar="A,B", type=names_list, default=[], help="measure only these")
    bench.add_argument(
        "--own-ciphers", action="store_true", help="each library with its default cipher suite, in the place of one for all"
    )
    bench.add_argument(
        "--rounds", metavar="N", type=positive_count, help="rounds of every measure (5; quick: 3)"
    )
    bench.add_argument(
        "--seconds",
        metavar="S",
        type=positive,
        help="about how long one measure of one peer takes (1; quick: 0.07)",
    )

    run = commands.add_parser(
        "run",
        help="run a Python program with sslsock.ssl in the place of the standard library's ssl",
        usage=f"{name} run [-h] [--loop] (PROGRAM | -m MODULE | -c CODE) [ARGUMENTS...]",
        description="Run a Python program as Python would, with sslsock.ssl in the place of ssl (sslsock.ssl.install), also in "
        "the processes that it starts with multiprocessing. Everything after PROGRAM, MODULE or CODE is the program's own. "
        "Options of Python itself stand before -m sslsock.",
        epilog="exit status: the program's; 1 or 2, as Python's, if it cannot be found",
    )
    run.add_argument("--loop", action="store_true", help="asyncio's event loops are those of sslsock.aio too")
    what = run.add_mutually_exclusive_group(required=True)
    what.add_argument(
        "program", metavar="PROGRAM", nargs="?", help="a script, or a folder or zip file with a __main__.py; -: standard input"
    )
    what.add_argument("-m", dest="module", metavar="MODULE", help="a module, as with python -m")
    what.add_argument("-c", dest="code", metavar="CODE", help="the text of a program, as with python -c")

    commands.add_parser("version", help="print the versions of sslsock, OpenSSL, Python and the system")
    return parser


def open_standard_descriptors() -> None:
    """Where one of them is closed, the next socket would get its number, and be taken for the input or output."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # the lowest number that is free: this one


def parse(words: list[str], name: str) -> tuple[argparse.ArgumentParser, argparse.Namespace]:
    parser = make_parser(words, name)
    if "_ARGCOMPLETE" in os.environ:  # a shell asks what could come next; the answer ends the process
        complete(parser)
    count = own_words(words) if words[:1] == ["run"] else len(words)
    arguments, unknown = parser.parse_known_args(words[:count])
    if unknown:
        hint = meant(parser, arguments.command, unknown)
        if (arguments.command, name) == ("run", MODULE):
            hint += "; options of Python itself stand before -m sslsock"
        parser.error(f"unrecognized arguments: {' '.join(unknown)}{hint}")
    arguments.arguments = words[count:]
    return parser, arguments


def meant(parser: argparse.ArgumentParser, command: Optional[str], unknown: list[str]) -> str:
    """What the first option that `command` does not know is likely a slip for; "" if nothing is like it."""
    import difflib

    commands = next(action for action in parser._actions if isinstance(action, argparse._SubParsersAction))
    wrong = next((word.partition("=")[0] for word in unknown if word.startswith("--")), None)
    if command is None or wrong is None:
        return ""
    known = [option for option in commands.choices[command]._option_string_actions if option.startswith("--")]
    found = difflib.get_close_matches(wrong.lower().replace("_", "-"), known, n=1, cutoff=0.7)
    return f"; did you mean {found[0]}?" if found else ""


def complete(parser: argparse.ArgumentParser) -> None:
    """Completion in a shell, by the protocol of argcomplete; nothing without it."""
    with suppress(ImportError):
        importlib.import_module("argcomplete").autocomplete(parser)


def own_words(words: list[str]) -> int:
    """How many words of `run` are ours: those behind its program are the program's, and argparse must not see them."""
    for number, word in enumerate(words[1:], 1):
        if word in ("-m", "-c", "--"):
            return number + 2
        if word == "-" or not word.startswith("-") or word.startswith(("-m", "-c")):
            return number + 1
    return len(words)


def script() -> int:
    """The command `sslsock`."""
    return main(name="sslsock")


def main(argv: Optional[list[str]] = None, name: str = MODULE) -> int:
    open_standard_descriptors()
    parser, arguments = parse(sys.argv[1:] if argv is None else argv, name)
    if arguments.command is None:
        parser.print_help(sys.stderr)
        return 2
    command = importlib.import_module(f"{__package__}.commands.{arguments.command}")
    if arguments.command == "run":
        ended: int = command.run(arguments)  # its exceptions and what it prints are the program's
        return ended
    try:
        status: int = command.run(arguments)
        return status if flush_output() else 1
    except CommandError as exc:
        print_error(str(exc))
        flush_output(tell=False)
        return exc.status
    except BrokenPipeError:
        give_up_output()  # whoever read it has seen enough
        return 0
    except KeyboardInterrupt:
        return 130
    finally:
        # What has ended the command may have come before its sockets were served, of which there would be a warning.
        with suppress(OSError, RuntimeError):
            EventLoop.current().close()


def flush_output(tell: bool = True) -> bool:
    """False, with a message if it is to tell, if standard output takes no more, as on a full disk."""
    try:
        if sys.stdout is not None:
            sys.stdout.flush()
    except OSError as exc:
        if tell and isinstance(exc, BrokenPipeError):
            raise
        give_up_output()
        if tell:
            print_error(f"standard output: {exc.strerror or exc}")
        return False
    return True


def give_up_output() -> None:
    """The interpreter flushes once more at its end: to nowhere."""
    with suppress(OSError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)


if __name__ == "__main__":
    sys.exit(main())
