"""An IMAP server in memory: exact bytes (NUL, bare CR and LF), any certificate, faults at any point, and scripts that
let it misbehave (tests/e2e/hostile/*.txt; the language is described in hostile/README).

It knows what a client of one account needs to read mail; writing is not its business."""
import base64
import re
import socket
import socketserver
import ssl
import struct
import threading
import time

from .imap import encode_utf7

CAPABILITIES = "IMAP4rev1 SASL-IR LITERAL+ ID ENABLE IDLE NAMESPACE UIDPLUS ESEARCH UNSELECT SPECIAL-USE LIST-EXTENDED LIST-STATUS STATUS=SIZE AUTH=PLAIN"


class Message:
    def __init__(self, uid, data, flags=(), when=1_600_000_000, size=None):
        self.uid, self.data, self.flags, self.when = uid, data, set(flags), when
        self.size = len(data) if size is None else size     # a server may lie


class Mailbox:
    def __init__(self, messages=(), uidvalidity=1, attributes=""):
        self.uidvalidity, self.attributes = uidvalidity, attributes
        self.messages, self.uidnext = [], 1
        for item in messages:
            self.add(item)

    def add(self, item):
        message = item if isinstance(item, Message) else Message(self.uidnext, item)
        self.messages.append(message)
        self.uidnext = max(self.uidnext, message.uid + 1)
        return message


class ScriptedServer:
    """mailboxes: {name: Mailbox or list of bytes}. certificate: None is plain text. starttls: offered on a plain port."""

    def __init__(self, mailboxes=None, script="", capabilities=CAPABILITIES, authority=None, certificate=None, starttls=False,
                 user="alice", password="correct horse"):
        self.user, self.password, self.authority, self.capabilities = user, password, authority, capabilities
        self.mailboxes = {name: box if isinstance(box, Mailbox) else Mailbox(box) for name, box in (mailboxes or {"INBOX": []}).items()}
        self.script = Script(script)
        self.capabilities = self.script.capability or capabilities
        self.starttls, self.context = starttls, None
        self.lock = threading.RLock()
        self.log = []                 # (connection number, command line)
        self.connections = 0
        self.sockets = set()
        self.body_bytes = 0           # of BODY[] sent
        self.fetched = []             # uids whose whole body was asked for, in order
        if certificate:
            self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            self.context.load_cert_chain(certificate.certificate, certificate.key)
        server = self

        class Handler(socketserver.BaseRequestHandler):
            def handle(self):
                Session(server, self.request).run()
        socketserver.ThreadingTCPServer.allow_reuse_address = True
        socketserver.ThreadingTCPServer.request_queue_size = 50
        self.tcp = socketserver.ThreadingTCPServer(("127.0.0.1", 0), Handler)
        self.tcp.daemon_threads = True
        self.tcp.handle_error = lambda *ignored: None
        self.port = self.tcp.server_address[1]
        threading.Thread(target=self.tcp.serve_forever, kwargs={"poll_interval": .05}, daemon=True).start()

    def url(self):
        scheme = "imaps" if self.context and not self.starttls else "imap"
        return f"{scheme}://127.0.0.1:{self.port}"

    def settings(self):
        """for Home: how an account reaches this server"""
        found = {"imap": self.url(), "user": self.user, "password": self.password}
        if not self.context:
            found["tls"] = "none"
        elif self.authority:
            found["tls-ca-file"] = str(self.authority.ca)
        return found

    def stop(self):
        self.tcp.shutdown()
        self.tcp.server_close()
        self.drop()

    def drop(self):
        """all connections are reset"""
        for connection in list(self.sockets):
            try:
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                connection.close()
            except OSError:
                pass

    def commands(self, pattern=""):
        return [line for _, line in self.log if re.search(pattern, line, re.I)]


class Closed(Exception):
    pass


class Session:
    def __init__(self, server, connection):
        self.server, self.socket = server, connection
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        server.sockets.add(connection)
        server.connections += 1
        self.number = server.connections
        self.buffer = b""
        self.selected = None
        self.known = 0
        self.authenticated = False

    def run(self):
        try:
            if self.server.context and not self.server.starttls:
                self._wrap()
            self._greet()
            while True:
                self._command()
        except (Closed, OSError, ssl.SSLError, ValueError):
            pass
        finally:
            self.server.sockets.discard(self.socket)
            try:
                self.socket.close()
            except OSError:
                pass

    def _wrap(self):
        self.server.sockets.discard(self.socket)
        self.socket = self.server.context.wrap_socket(self.socket, server_side=True)
        self.server.sockets.add(self.socket)

    # --- bytes

    def send(self, data):
        self.socket.sendall(data.encode("utf-8", "surrogateescape") if isinstance(data, str) else data)

    def _more(self):
        data = self.socket.recv(65536)
        if not data:
            raise Closed
        self.buffer += data

    def _line(self):
        while b"\n" not in self.buffer:
            self._more()
        line, _, self.buffer = self.buffer.partition(b"\n")
        return line.rstrip(b"\r")

    def _read_command(self):
        line = self._line()
        while True:
            literal = re.search(rb"\{(\d+)(\+?)\}$", line)
            if not literal:
                return line.decode("utf-8", "surrogateescape")
            if not literal.group(2):
                self.send("+ go\r\n")
            size = int(literal.group(1))
            while len(self.buffer) < size:
                self._more()
            data, self.buffer = self.buffer[:size], self.buffer[size:]
            line = line[:literal.start()] + b'"' + data.replace(b"\\", b"\\\\").replace(b'"', b'\\"') + b'"' + self._line()

    # --- commands

    def _greet(self):
        block = self.server.script.find("GREETING", "")
        if block:
            block.play(self, "", lambda: None)
        else:
            shown = self.server.capabilities + (" STARTTLS" if self.server.starttls and self.server.context else "")
            self.send(self.server.script.greeting or f"* OK [CAPABILITY {shown}] ready\r\n")

    def _command(self):
        text = self._read_command()
        self.server.log.append((self.number, text))
        tag, _, rest = text.partition(" ")
        verb = rest.split(" ")[0].upper()
        arguments = rest[len(verb):].strip()
        if verb == "UID":
            verb += " " + arguments.split(" ")[0].upper()
            arguments = arguments.partition(" ")[2]
        block = self.server.script.find(verb, arguments)

        def normal():
            method = getattr(self, "do_" + verb.lower().replace(" ", "_"), None)
            if method is None:
                self.send(f"{tag} BAD unknown command\r\n")
                return
            result = method(arguments, tag)
            self.send(f"{tag} {result or 'OK done'}\r\n")
            if verb == "STARTTLS":
                self._wrap()
            if verb == "LOGOUT":
                raise Closed
        if block:
            if verb in ("SELECT", "EXAMINE"):
                self.selected = self._box(arguments)
            block.play(self, tag, normal)
        else:
            normal()

    def do_capability(self, arguments, tag):
        starttls = " STARTTLS" if self.server.starttls and not isinstance(self.socket, ssl.SSLSocket) else ""
        self.send(f"* CAPABILITY {self.server.capabilities}{starttls}\r\n")

    def do_starttls(self, arguments, tag):
        return "OK begin"

    def do_noop(self, arguments, tag):
        self._news()

    def do_id(self, arguments, tag):
        self.send('* ID ("name" "scripted")\r\n')

    def do_enable(self, arguments, tag):
        self.send(f"* ENABLED {arguments}\r\n")

    def do_namespace(self, arguments, tag):
        self.send('* NAMESPACE (("" "/")) NIL NIL\r\n')

    def do_logout(self, arguments, tag):
        self.send("* BYE bye\r\n")

    def do_login(self, arguments, tag):
        return self._accept(*_words(arguments)[:2])

    def do_authenticate(self, arguments, tag):
        mechanism, _, initial = arguments.partition(" ")
        if not initial:
            self.send("+ \r\n")
            initial = self._line().decode()
        data = base64.b64decode(initial).decode()
        if mechanism.upper() == "PLAIN":
            return self._accept(*data.split("\0")[1:3])
        return self._accept(self.server.user if f"={self.server.user}" in data else "?",
                            data.partition("auth=Bearer ")[2].split("\1")[0])

    def _accept(self, user, password):
        if (user, password) != (self.server.user, self.server.password):
            return "NO [AUTHENTICATIONFAILED] wrong"
        self.authenticated = True
        return f"OK [CAPABILITY {self.server.capabilities}] hello"

    def do_list(self, arguments, tag):
        wants_status = re.search(r"STATUS \(([^)]*)\)", arguments, re.I)
        with self.server.lock:
            for name, box in self.server.mailboxes.items():
                self.send(f'* LIST ({box.attributes}) "/" {_quote(name)}\r\n')
                if wants_status and "\\Noselect" not in box.attributes:
                    self._status(name, box, wants_status.group(1))

    do_lsub = do_list

    def do_status(self, arguments, tag):
        name, items = re.match(r'("(?:[^"\\]|\\.)*"|\S+) \((.*)\)', arguments).groups()
        box = self._box(name)
        if box is None:
            return "NO [NONEXISTENT] none"
        self._status(_words(name)[0], box, items)
        return None

    def _status(self, name, box, items):
        values = {"MESSAGES": len(box.messages), "UIDNEXT": box.uidnext, "UIDVALIDITY": box.uidvalidity, "RECENT": 0,
                  "UNSEEN": sum("\\Seen" not in m.flags for m in box.messages), "SIZE": sum(m.size for m in box.messages), "HIGHESTMODSEQ": 1}
        known = [item for item in items.upper().split() if item in values]
        self.send(f"* STATUS {_quote(name, raw=True)} ({' '.join(f'{item} {values[item]}' for item in known)})\r\n")

    def _box(self, name):
        word = _words(name)[0]
        for known, box in self.server.mailboxes.items():
            if encode_utf7(known) == word or (known == "INBOX" and word.upper() == "INBOX"):
                return box
        return None

    def do_select(self, arguments, tag):
        box = self._box(arguments)
        if box is None:
            return "NO [NONEXISTENT] none"
        with self.server.lock:
            self.selected, self.known = box, len(box.messages)
            self.send("* FLAGS (\\Answered \\Flagged \\Deleted \\Seen \\Draft)\r\n* OK [PERMANENTFLAGS ()] none\r\n"
                      f"* {self.known} EXISTS\r\n* 0 RECENT\r\n* OK [UIDVALIDITY {box.uidvalidity}] v\r\n* OK [UIDNEXT {box.uidnext}] n\r\n")
        return "OK [READ-ONLY] done"

    do_examine = do_select

    def do_unselect(self, arguments, tag):
        self.selected = None

    do_close = do_unselect

    def _news(self):
        if self.selected is not None and len(self.selected.messages) != self.known:
            self.known = len(self.selected.messages)
            self.send(f"* {self.known} EXISTS\r\n")

    def do_idle(self, arguments, tag):
        self.send("+ idling\r\n")
        while b"\n" not in self.buffer:
            self.socket.settimeout(.05)
            try:
                self._more()
            except (TimeoutError, ssl.SSLWantReadError):
                self._news()
            finally:
                self.socket.settimeout(None)
        self._line()

    def _chosen(self, text):
        """[(sequence number, message)] of a set of UIDs"""
        last = max((m.uid for m in self.selected.messages), default=0)
        ranges = []
        for part in text.split(","):
            low, _, high = part.partition(":")
            low, high = (last if v == "*" else int(v) for v in (low, high or low))
            ranges.append((min(low, high), max(low, high)))
        return [(n, m) for n, m in enumerate(self.selected.messages, 1) if any(a <= m.uid <= b for a, b in ranges)]

    def do_uid_search(self, arguments, tag):
        uids = [m.uid for m in self.selected.messages]
        wanted = re.search(r"UID (\S+)", arguments)
        if wanted:
            uids = [m.uid for _, m in self._chosen(wanted.group(1))]
        if "RETURN" in arguments.upper():
            everything = f" ALL {','.join(map(str, uids))}" if uids else ""
            self.send(f'* ESEARCH (TAG "{tag}") UID{everything} COUNT {len(uids)}\r\n')
        else:
            self.send(f"* SEARCH {' '.join(map(str, uids))}\r\n")

    def do_uid_fetch(self, arguments, tag):
        which, _, items = arguments.partition(" ")
        with self.server.lock:
            chosen = self._chosen(which)
        for number, message in chosen:
            self.send(self.row(number, message, items))

    def row(self, number, message, items):
        """one FETCH response"""
        out = [b"UID %d" % message.uid]
        upper = items.upper()
        if "FLAGS" in upper:
            out.append(b"FLAGS (%s)" % " ".join(sorted(message.flags)).encode())
        if "INTERNALDATE" in upper:
            out.append(b'INTERNALDATE "%s"' % time.strftime("%d-%b-%Y %H:%M:%S +0000", time.gmtime(message.when)).encode())
        if "RFC822.SIZE" in upper:
            out.append(b"RFC822.SIZE %d" % message.size)
        if re.search(r"\bMODSEQ\b", upper):
            out.append(b"MODSEQ (1)")
        for section, fields, start, length in re.findall(r"BODY(?:\.PEEK)?\[(HEADER\.FIELDS|HEADER|TEXT|)(?: \(([^)]*)\))?\](?:<(\d+)\.(\d+)>)?", items, re.I):
            data = self._section(message.data, section.upper(), fields)
            name = "BODY[" + section.upper() + (f" ({fields})" if fields else "") + "]"
            if not section:
                self.server.fetched.append(message.uid)
            if start:
                data = data[int(start):int(start) + int(length)]
                name += f"<{start}>"
            if not section:
                self.server.body_bytes += len(data)
            out.append(name.encode() + b" {%d}\r\n" % len(data) + data)
        return b"* %d FETCH (" % number + b" ".join(out) + b")\r\n"

    @staticmethod
    def _section(data, section, fields):
        if not section:
            return data
        end = re.search(rb"\r\n\r\n|\n\n", data)
        header, text = (data[:end.end()], data[end.end():]) if end else (data, b"")
        if header.startswith((b"\r\n", b"\n")):
            header, text = header[:2], data[2:]
        if section == "TEXT":
            return text
        if section == "HEADER":
            return header
        wanted = fields.lower().encode().split()
        kept = [field for field in re.split(rb"(?<=\n)(?![ \t])", header) if field.partition(b":")[0].strip().lower() in wanted]
        return b"".join(kept) + b"\r\n"


def _words(text):
    return [re.sub(r"\\(.)", r"\1", quoted) if quoted or not plain else plain
            for quoted, plain in re.findall(r'"((?:[^"\\]|\\.)*)"|([^\s"]+)', text)]


def _quote(name, raw=False):
    text = name if raw and name.isascii() and "&" in name else encode_utf7(name)
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


# --- scripts --------------------------------------------------------------------------------------------------------

class Script:
    """See hostile/README."""

    def __init__(self, text):
        self.title, self.expect, self.capability, self.greeting, self.blocks = "", "any", None, None, []
        block = None
        for line in text.split("\n"):
            if line.startswith(("\t", "    ")) and block is not None:
                block.lines.append(line.lstrip("\t "))
            elif line.startswith("#"):
                self.title = self.title or line[1:].strip()
            elif match := re.match(r"(on|once|after (\d+)) (.*):\s*$", line):
                block = Block(match.group(3), once=match.group(1) == "once", skip=int(match.group(2) or 0))
                self.blocks.append(block)
            elif match := re.match(r"(capability|expect|greeting): *(.*)$", line):
                value = match.group(2)
                setattr(self, match.group(1), _escapes(value) + b"\r\n" if match.group(1) == "greeting" else value)

    def find(self, verb, arguments):
        for block in self.blocks:
            if re.match(block.pattern, f"{verb} {arguments}".strip(), re.I) and block.takes():
                return block
        return None


class Block:
    def __init__(self, pattern, once, skip):
        self.pattern, self.once, self.skip, self.used, self.lines = pattern, once, skip, 0, []
        self.lock = threading.Lock()

    def takes(self):
        with self.lock:
            self.used += 1
            return self.used > self.skip and not (self.once and self.used > 1)

    def play(self, session, tag, normal):
        ended = not tag
        for line in self.lines:
            word, _, rest = line.partition(" ")
            ended = ended or bool(re.search(r"(^|\\n|^!raw )\{tag\} ", line))
            if word == "!raw":
                session.send(_escapes(rest, tag))
            elif word == "!repeat":
                count, _, text = rest.partition(" ")
                _send_many(session, _escapes(text, tag), int(count))
            elif word == "!lines":
                count, _, text = rest.partition(" ")
                around = [_escapes(part, tag) for part in text.split("{n}")]      # once: there may be a million of them
                for first in range(1, int(count) + 1, 1000):
                    session.send(b"".join(str(n).encode().join(around) + b"\r\n" for n in range(first, min(first + 1000, int(count) + 1))))
            elif word == "!normal":
                normal()
                ended = True
            elif word == "!close":
                raise Closed
            elif word == "!reset":
                session.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                raise Closed
            elif word == "!hang":
                while True:
                    session._more()
            else:
                session.send(_escapes(line, tag) + b"\r\n")
        if not ended:
            session.send(f"{tag} OK done\r\n")


def _send_many(session, data, count):
    batch = max(1, 65536 // max(1, len(data)))
    while count > 0:
        session.send(data * min(batch, count))
        count -= batch


def _escapes(text, tag=""):
    text = text.replace("{tag}", tag)
    return re.sub(rb"\\(x[0-9a-fA-F]{2}|.)", lambda m: {b"r": b"\r", b"n": b"\n", b"0": b"\0", b"t": b"\t"}.get(m.group(1)) or
                  (bytes([int(m.group(1)[1:], 16)]) if len(m.group(1)) == 3 else m.group(1)), text.encode())
