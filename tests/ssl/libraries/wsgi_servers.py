"""werkzeug (`ssl_context=context`), and wsgiref with a wrapped socket."""

import threading
import wsgiref.simple_server

from common import SERVER_FILE, HOW, peer_request, report, server_context, switch
import werkzeug.serving

switch()


def application(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [f"{environ['wsgi.url_scheme']} {environ['PATH_INFO']}".encode() + b"!" * 200_000]


class Quiet(werkzeug.serving.WSGIRequestHandler):
    def log(self, *arguments):
        pass


def served(server):
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    answers = [peer_request(server.server_port, f"/{number}") for number in range(2)]
    server.shutdown()
    thread.join()
    server.server_close()
    return answers


context = server_context() if HOW in ("stdlib", "context") else (SERVER_FILE, SERVER_FILE)
with_werkzeug = served(
    werkzeug.serving.make_server("127.0.0.1", 0, application, threaded=True, request_handler=Quiet, ssl_context=context)
)


class QuietHandler(wsgiref.simple_server.WSGIRequestHandler):
    def log_message(self, *arguments):
        pass


plain = wsgiref.simple_server.make_server("127.0.0.1", 0, application, handler_class=QuietHandler)
plain.socket = server_context().wrap_socket(plain.socket, server_side=True)
report(werkzeug=with_werkzeug, wsgiref=served(plain))
