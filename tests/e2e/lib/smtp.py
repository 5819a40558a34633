"""A submission server in Python, without TLS, that can fail where it is told to."""
import re
import time

from .listener import Listener


class SmtpServer:
    """fail: called with the stage ("greeting", "mail", "rcpt", "data", "dot", "answer") and the message's subject (at "dot" and
    "answer"); what it returns is said instead of the usual answer; "close" hangs up, None goes on. delay: seconds before the
    answer to a whole message. "answer" is asked when the message has been recorded. taken: called with its bytes before that.
    pace: called with the lines read so far of a message that is being sent."""

    def __init__(self, fail=None, delay=0.0, extensions=("8BITMIME", "PIPELINING", "SIZE 10000000"), taken=None, pace=None):
        self.fail = fail or (lambda stage, subject: None)
        self.delay, self.extensions, self.taken = delay, list(extensions), taken
        self.pace = pace or (lambda lines: None)
        self.accepted = []           # subjects, in the order of taking
        self.commands = []           # all but what a message holds
        self.connections = 0
        self.listener = Listener(self._serve)
        self.port, self.stop = self.listener.port, self.listener.stop

    def _say(self, handler, usual, stage, subject=None):
        """False: hung up"""
        text = self.fail(stage, subject) or usual
        if text == "close":
            handler.connection.close()
            return False
        handler.wfile.write(text.encode() + b"\r\n")
        handler.wfile.flush()
        return not text.startswith("421")

    def _message(self, handler):
        lines = []
        while True:
            line = handler.rfile.readline()
            if not line:
                return None
            if line == b".\r\n":
                return b"".join(lines)
            lines.append(line[1:] if line.startswith(b".") else line)
            self.pace(len(lines))

    def _take(self, handler):
        if not self._say(handler, "354 go", "data"):
            return False
        data = self._message(handler)
        return data is not None and self._judge(handler, data)

    def _chunk(self, handler, size, last):
        data = handler.rfile.read(size)
        assert last == "LAST", "mailfs sends one chunk"
        return len(data) == size and self._judge(handler, data)

    def _judge(self, handler, data):
        subject = re.search(rb"^Subject: (.*?)\r\n", data, re.M).group(1).decode()
        refusal = self.fail("dot", subject)
        if refusal:
            if refusal == "close":
                return False
            handler.wfile.write(refusal.encode() + b"\r\n")
            return True
        self.accepted.append(subject)
        if self.taken:
            self.taken(data)
        time.sleep(self.delay)
        return self._say(handler, "250 2.0.0 taken", "answer", subject)

    def _serve(self, handler):
        self.connections += 1
        if not self._say(handler, "220 test", "greeting"):
            return
        for line in iter(handler.rfile.readline, b""):
            verb = line[:4].upper()
            self.commands.append(line.decode().rstrip("\r\n"))
            if verb == b"EHLO":
                words = ["test"] + self.extensions
                handler.wfile.write("".join(f"250{'-' if w is not words[-1] else ' '}{w}\r\n" for w in words).encode())
            elif verb == b"DATA":
                if not self._take(handler):
                    return
            elif verb == b"BDAT":
                if not self._chunk(handler, int(line.split()[1]), line.decode().split()[-1]):
                    return
            elif verb == b"QUIT":
                handler.wfile.write(b"221 bye\r\n")
                return
            elif not self._say(handler, "250 ok", {b"MAIL": "mail", b"RCPT": "rcpt"}.get(verb, "other")):
                return
