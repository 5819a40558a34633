"""Connections to a server of a test's own, each served by a thread."""
import contextlib
import socketserver
import threading


class Listener:
    """Listens on a free port of the loopback; serve(handler) has .rfile, .wfile and .connection of each client until it returns.
    buffered False: no byte is read before rfile is asked for it, so that the connection can be handed on."""

    def __init__(self, serve, buffered=True):
        class Handler(socketserver.StreamRequestHandler):
            rbufsize = -1 if buffered else 0

            def handle(self):
                with contextlib.suppress(OSError):
                    serve(self)

        class Server(socketserver.ThreadingTCPServer):
            allow_reuse_address = True
            daemon_threads = True

            def handle_error(self, request, client_address):
                pass

        self.server = Server(("127.0.0.1", 0), Handler)
        self.port = self.server.server_address[1]
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def stop(self):
        self.server.shutdown()
        self.server.server_close()
