"""A POP3 server in Python, without TLS, that can die at any of its steps."""
import threading

from .listener import Listener


class Pop3Server:
    """messages: bytes of each. arm(step, when, what): at the step-th command from now what() is called, before or after ("before",
    "after") the command was carried out, and the connection is cut without an answer. refuse: the UIDLs whose DELE is refused.
    hides: what one session has been given by RETR is not shown to later ones, as by Gmail; show() shows it again."""

    def __init__(self, messages=(), hides=False):
        self.lock = threading.Lock()
        self.drop = []              # [UIDL, bytes]
        self.given = 0
        self.refuse = set()
        self.hides, self.hidden = hides, set()
        self.commands = []          # all that were ever heard, with their arguments
        self.retrieved = {}         # UIDL: how often
        self.armed = None
        self.sessions = 0
        for message in messages:
            self.deliver(message)
        self.listener = Listener(self._serve)
        self.port, self.stop = self.listener.port, self.listener.stop

    def settings(self):
        return {"imap": None, "pop3": f"pop3://127.0.0.1:{self.port}", "tls": "none", "user": "alice", "password": "secret"}

    def deliver(self, message):
        with self.lock:
            self.given += 1
            self.drop.append((f"u{self.given}", message))

    def show(self):
        with self.lock:
            self.hidden.clear()

    def arm(self, step, when, what=lambda: None):
        with self.lock:
            self.armed = [step, when, what]

    def _strikes(self, when):
        """Whether it is to die here; what is to happen then is called"""
        with self.lock:
            if not self.armed or self.armed[1] != when:
                return False
            self.armed[0] -= 1
            if self.armed[0] > 0:
                return False
            what, self.armed = self.armed[2], None
        what()
        return True

    def _serve(self, handler):
        self.sessions += 1
        handler.wfile.write(b"+OK ready\r\n")
        with self.lock:
            session = [item for item in self.drop if item[0] not in self.hidden]
        marked = set()
        while line := handler.rfile.readline():
            words = line.decode().split()
            self.commands.append(line.decode().strip())
            if self._strikes("before"):
                break
            answer = self._answer(words[0].upper(), words[1:], session, marked)
            if self._strikes("after"):
                break
            handler.wfile.write(answer)
            if self.hides and words[0].upper() == "RETR" and answer.startswith(b"+OK"):
                with self.lock:
                    self.hidden.add(session[int(words[1]) - 1][0])
            if words[0].upper() == "QUIT":
                break

    def _answer(self, verb, arguments, session, marked):
        alive = [(n, key, data) for n, (key, data) in enumerate(session, 1) if key not in marked]
        if verb == "CAPA":
            return b"+OK\r\nTOP\r\nUIDL\r\nUSER\r\nPIPELINING\r\n.\r\n"
        if verb in ("USER", "PASS", "NOOP"):
            return b"+OK\r\n"
        if verb == "UIDL":
            return b"+OK\r\n" + b"".join(f"{n} {key}\r\n".encode() for n, key, _ in alive) + b".\r\n"
        if verb == "LIST":
            return b"+OK\r\n" + b"".join(f"{n} {len(data)}\r\n".encode() for n, _, data in alive) + b".\r\n"
        if verb == "RSET":
            marked.clear()
            return b"+OK\r\n"
        if verb == "QUIT":
            with self.lock:
                self.drop = [item for item in self.drop if item[0] not in marked]
            return b"+OK bye\r\n"
        found = [(key, data) for n, key, data in alive if arguments and str(n) == arguments[0]]
        if verb not in ("TOP", "RETR", "DELE") or not found:
            return b"-ERR no such message\r\n"
        key, data = found[0]
        if verb == "DELE":
            if key in self.refuse:
                return b"-ERR that one stays\r\n"
            marked.add(key)
            return b"+OK\r\n"
        if verb == "RETR":
            self.retrieved[key] = self.retrieved.get(key, 0) + 1
        else:
            data = data[:data.index(b"\r\n\r\n") + 4]
        return b"+OK\r\n" + b"".join(b"." + l if l.startswith(b".") else l for l in data.splitlines(True)) + b".\r\n"
