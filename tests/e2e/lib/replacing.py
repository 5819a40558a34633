"""Gives a real server what none of Debian's has: REPLACE (RFC 8508).

It stands between mailfs and the server, in clear. UID REPLACE goes to the server as an APPEND and, when that was answered, as the
STORE and the UID EXPUNGE of the old version; everything else passes as it is."""
import re
import socket
import threading

from .listener import Listener

COMMAND = re.compile(rb"(\S+) UID REPLACE (\d+) (.*)", re.S)
LITERAL = re.compile(rb"\{(\d+)\+?\}\r\n$")
FINISH = b"replaced"     # the tag of the commands that are this front's own


class Replacing:
    """before_answer: what to do when the server has done it, and has not yet been heard of; True: the connection is lost then."""

    def __init__(self, suite, port):
        self.upstream, self.count, self.before_answer = port, 0, lambda: False
        self.listener = Listener(lambda client: Connection(self, client).run())
        self.port = self.listener.port
        suite.callback(self.listener.stop)


class Connection:
    def __init__(self, front, client):
        self.front, self.client = front, client
        self.server = socket.create_connection(("127.0.0.1", front.upstream))
        self.answers = self.server.makefile("rb")
        self.tag = self.uid = None
        self.over = threading.Event()     # of the REPLACE under way

    def run(self):
        threading.Thread(target=self._down, daemon=True).start()
        try:
            while line := self.client.rfile.readline():
                self._up(line)
        finally:
            self._close()

    def _close(self):
        for end in (self.client.connection, self.server):
            try:
                end.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass
        self.over.set()

    def _up(self, line):
        """one command, or a line of one"""
        replace = COMMAND.match(line)
        if not replace:
            self.server.sendall(line)
            return
        self.over.clear()
        self.tag, self.uid, rest = replace.groups()
        line = self.tag + b" APPEND " + rest
        while literal := LITERAL.search(line):
            self.server.sendall(line + self.client.rfile.read(int(literal.group(1))))
            line = self.client.rfile.readline()
        self.server.sendall(line)
        self.over.wait()

    def _down(self):
        try:
            while line := self.answers.readline():
                if self.tag and line.startswith(self.tag + b" OK "):
                    code = re.search(rb"\[APPENDUID .*?\]", line).group()
                    self.client.wfile.write(b"* OK " + code + b" replaced\r\n")
                    self.server.sendall(b"%s UID STORE %s +FLAGS.SILENT (\\Deleted)\r\n" % (FINISH[1:], self.uid)
                                        + b"%s UID EXPUNGE %s\r\n" % (FINISH, self.uid))
                elif self.tag and line.startswith(self.tag + b" "):
                    self._end(line)
                elif line.startswith(FINISH + b" "):
                    self.front.count += 1
                    if self.front.before_answer():
                        break
                    self._end(self.tag + line[len(FINISH):])
                elif not line.startswith(FINISH[1:] + b" "):
                    self.client.wfile.write(re.sub(rb"(CAPABILITY IMAP4rev1)(.*) COMPRESS=DEFLATE", rb"\1 REPLACE\2", line))
        except (OSError, ValueError):
            pass
        finally:
            self._close()

    def _end(self, line):
        self.tag = None
        self.client.wfile.write(line)
        self.over.set()
