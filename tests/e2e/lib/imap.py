"""Another client of the same account: what the server really holds, and changes made by somebody else."""
import hashlib
import imaplib
import re
import ssl

imaplib._MAXLINE = 200_000_000
LITERAL = re.compile(rb"\{(\d+)\}$")


class Client:
    def __init__(self, port, user, password, ca=None, host="127.0.0.1"):
        context = ssl.create_default_context(cafile=str(ca)) if ca else None
        self.imap = imaplib.IMAP4_SSL(host, port, ssl_context=context, timeout=60) if ca else imaplib.IMAP4(host, port, timeout=60)
        self.imap.login(user, password)

    def __enter__(self):
        return self

    def __exit__(self, *ignored):
        try:
            self.imap.logout()
        except (OSError, imaplib.IMAP4.error):
            pass

    @staticmethod
    def quote(name):
        if isinstance(name, str):
            name = encode_utf7(name)
        return '"' + name.replace("\\", "\\\\").replace('"', '\\"') + '"'

    def command(self, name, *arguments):
        kind, data = getattr(self.imap, name)(*arguments)
        assert kind == "OK", (name, arguments[:2], kind, data)
        return data

    def capabilities(self):
        return self.command("capability")[0].decode().split()

    def create(self, mailbox):
        self.command("create", self.quote(mailbox))

    def select(self, mailbox="INBOX", readonly=False):
        return int(self.command("select", self.quote(mailbox), readonly)[0])

    def uidvalidity(self):
        return int(self.imap.response("UIDVALIDITY")[1][0])

    def append(self, mailbox, message, flags="", date=None):
        self.command("append", self.quote(mailbox), flags, date, message)

    def _fetch(self, uids, items):
        """[(attributes before the literal, literal or b'')]"""
        rows = []
        for part in self.command("uid", "FETCH", uids, items):
            if isinstance(part, tuple):
                rows.append([part[0], part[1]])
            elif part not in (None, b")"):
                if rows and not part[:1].isdigit():
                    rows[-1][0] += part       # what followed the literal
                else:
                    rows.append([part, b""])
        return rows

    def uids(self):
        return [int(uid) for uid in self.command("uid", "SEARCH", "ALL")[0].split()]

    def bodies(self, mailbox="INBOX", uids="1:*"):
        """{uid: every byte}"""
        if self.select(mailbox, readonly=True) == 0:
            return {}
        return {int(re.search(rb"UID (\d+)", head).group(1)): body for head, body in self._fetch(uids, "(UID BODY.PEEK[])")}

    def digests(self, mailbox="INBOX"):
        """sorted SHA-256 of all messages"""
        return sorted(hashlib.sha256(body).hexdigest() for body in self.bodies(mailbox).values())

    def flags(self, mailbox="INBOX"):
        if self.select(mailbox, readonly=True) == 0:
            return {}
        found = {}
        for head, _ in self._fetch("1:*", "(UID FLAGS)"):
            uid = int(re.search(rb"UID (\d+)", head).group(1))
            found[uid] = set(re.search(rb"FLAGS \(([^)]*)\)", head).group(1).decode().split())
        return found

    def store(self, mailbox, uids, change, flags):
        self.select(mailbox)
        self.command("uid", "STORE", str(uids), change, f"({flags})")

    def expunge(self, mailbox, uids):
        self.store(mailbox, uids, "+FLAGS", "\\Deleted")
        self.command("uid", "EXPUNGE", str(uids))


def encode_utf7(name):
    """modified UTF-7 (RFC 3501 section 5.1.3)"""
    import base64
    out, run = [], []

    def flush():
        if run:
            data = base64.b64encode("".join(run).encode("utf-16-be")).decode().rstrip("=").replace("/", ",")
            out.append("&" + data + "-")
            run.clear()
    for c in name:
        if "\x20" <= c <= "\x7e":
            flush()
            out.append("&-" if c == "&" else c)
        else:
            run.append(c)
    flush()
    return "".join(out)
