"""Messages: every byte that mail can hold, names of every kind, and crowds of realistic size. All of it seeded."""
import base64
import random
import time
import zlib

WORDS = ("the of and to a in is that for it as was with be by on not he his but at are this have from or had an they which one "
         "you were all her she there would their we him been has when who will no more if out so up said what its about than "
         "into them can only other time new some could these two may first then do any like my now over such our man me even "
         "most made after also did many off before must well back through years much where your way down should because long "
         "each just state those people too mister how little good world make very year still see own work long here get both "
         "between life being under three never know same last another while us might great go come since against right came "
         "budget meeting invoice release kernel patch review holiday train ticket number please find attached regards").split()
NAMES = ["Alice Example", "Bob Builder", "Carol Müller", "Dr. Dora Díaz", "李小龙", "Ὀδυσσεύς", "مريم حسن", "O'Neil, Sean", "build-server"]
BASE = 1_600_000_000   # seconds since 1970 of the first message


def date(when):
    return time.strftime("%a, %d %b %Y %H:%M:%S +0000", time.gmtime(when))


def encoded(text):
    """RFC 2047, in words short enough, folded"""
    if text.isascii():
        return text
    words = [base64.b64encode(text[i:i + 10].encode()).decode() for i in range(0, len(text), 10)]
    return "\r\n ".join(f"=?utf-8?B?{word}?=" for word in words)


def message(subject="hello", sender="Alice Example <alice@example.org>", when=BASE, body=b"Hello.\r\n", mid=None, extra=b"", eol=b"\r\n"):
    mid = mid or f"<{zlib.crc32(repr((subject, sender, when, body)).encode())}@example.org>"
    head = [f"From: {sender}", "To: me@example.net", f"Subject: {subject}", f"Date: {date(when)}", f"Message-ID: {mid}"]
    return eol.join(line.encode("utf-8", "surrogateescape") for line in head) + eol + extra + eol + body


def multipart(parts, boundary=b"b1"):
    out = b"MIME-Version: 1.0\r\nContent-Type: multipart/mixed; boundary=\"" + boundary + b"\"\r\n\r\n"
    for part in parts:
        out += b"--" + boundary + b"\r\n" + part + b"\r\n"
    return out + b"--" + boundary + b"--\r\n"


def nested(levels):
    inner = b"Content-Type: text/plain\r\n\r\ndeep\r\n"
    for level in range(levels):
        b = b"n%d" % level
        inner = b"Content-Type: multipart/mixed; boundary=" + b + b"\r\n\r\n--" + b + b"\r\n" + inner + b"\r\n--" + b + b"--\r\n"
    return inner


def every_byte(huge=0):
    """[(what it is, bytes)]: contents a server can hold. huge: also one of that many bytes."""
    head = b"From: x@example.org\r\nSubject: %s\r\nDate: Fri, 20 Nov 2026 10:00:00 +0000\r\nMessage-ID: <%s@bytes>\r\n\r\n"

    def m(name, body):
        return name, head % (name.encode(), name.encode()) + body
    part = b"Content-Type: application/octet-stream; name=\"%d.bin\"\r\nContent-Transfer-Encoding: base64\r\n\r\nAAEC\r\n"
    wild = random.Random(7)
    found = [
        m("all-bytes", bytes(range(256)) * 4 + b"\r\n"),
        m("nul", b"a\0b\0\0c\r\n" + b"\0" * 5000 + b"\r\n"),
        m("eight-bit", bytes(range(128, 256)) * 8 + b"\r\n"),
        m("bare-cr", b"one\rtwo\rthree\r\r\n"),
        m("bare-lf", b"one\ntwo\nthree\n\n"),
        m("mixed-ends", b"a\r\nb\nc\rd\n\re\r\r\n\n\r"),
        m("no-final-newline", b"the end"),
        m("ends-in-cr", b"the end\r"),
        m("literal-lookalike", b"x {5}\r\n* 1 FETCH (UID 1)\r\n+ go\r\na1 OK done\r\n)\r\n"),
        m("dots", b".\r\n..\r\n.\r\n"),
        m("random", wild.randbytes(70_000)),
        m("page-minus-1", b"p" * (4096 - 130)), m("64k", b"q" * 65536), m("one-line-300k", b"r" * 300_000),
        ("empty", b""),
        ("one-byte", b"x"),
        ("only-newline", b"\r\n"),
        ("no-separator", b"From: x@example.org\r\nSubject: no separator"),
        ("no-header", b"\r\njust text\r\n"),
        ("not-a-header", b"this is no header\r\nneither is this\r\n\r\ntext\r\n"),
        ("long-header", b"Subject: long header\r\nX-Long: " + b"h" * 1_000_000 + b"\r\n\r\nbody\r\n"),
        ("folded-100k", b"Subject: folded\r\nX-Fold: a" + b"\r\n b" * 30_000 + b"\r\n\r\nbody\r\n"),
        ("thousand-parts", b"Subject: a thousand parts\r\n" + multipart([part % i for i in range(1000)])),
        ("nested-500", b"Subject: nested\r\nMIME-Version: 1.0\r\n" + nested(500)),
        ("rfc822-in-rfc822", b"Subject: turtles\r\n" + b"Content-Type: message/rfc822\r\n\r\n" * 300 + b"Subject: the last\r\n\r\nx\r\n"),
        ("8bit-header", "Subject: Grüße ohne Kodierung\r\nFrom: Jürgen <j@example.org>\r\n\r\nx\r\n".encode("latin-1")),
        ("nul-header", b"Subject: a\0b\r\nFrom: n\0ul@example.org\r\n\r\nx\r\n"),
    ]
    if huge:
        line = bytes(wild.choices(b"abcdefghijklmnopqrstuvwxyz0123456789", k=76)) + b"\r\n"
        found.append(m("huge", line * (huge // len(line))))
    return found


def names_zoo():
    """[bytes]: subjects, senders and dates that make bad file names"""
    subjects = [
        "", " ", "a/b/c", "..", ".", "../../etc/passwd", ".hidden", "-rf", "--help", "~", "*?[a]", "new\x01line\x1b[31mred\x07",
        "中文主题：预算", "مرحبا بالعالم", "🎉🚀👩‍👩‍👧‍👦 emoji", "\u202eevil\u202c RTL override", "\u200bzero\u200dwidth", "e\u0301 é NFC", "ﬁ ﬂ ligatures",
        "x" * 10_000, "漢" * 3000, "a" * 199 + "é" * 20, "tab\tand  spaces", "trailing.", "con", "NUL", "name.eml", "=?utf-8?B?broken", "=?x-unknown?Q?=FF=FE?=",
        "=?utf-8?Q?=2E=2E=2Fslash?=", "=?utf-8?Q?nul=00byte?=", "=?utf-8?Q?new=0Aline?=", "=?utf-16?B?/v8AYQBi?=", "=?utf-8?B?" + "w7w=" + "?= =?utf-8?B?w7w=?=",
        "Re: Fwd: AW: [list] subject", "\u0000", "quote \" ' ` $(touch x) ; & | <>", "\\back\\slash", "%s%n%x", "ⅷ ½ ²", "\ufeffbom", "\U0010ffff", "é" * 100,
    ]
    senders = ["", "<>", "a@example.org", "\"Doe, Jane\" <jane@example.org>", "=?utf-8?B?5p2O5bCP6b6Z?= <li@example.org>", "Undisclosed:;", "<a@b>, <c@d>",
               "\"..\" <x@y>", "\"/\" <x@y>", "a" * 5000 + "@example.org", "no address at all", "@", "x@[127.0.0.1]", "\"\\\"q\\\"\" <q@q>"]
    dates = [None, "", "yesterday", "Thu, 32 Foo 20999 99:99:99 +9999", "Mon, 01 Jan 0001 00:00:00 +0000", "Fri, 31 Dec 9999 23:59:59 -1200",
             "Thu, 01 Jan 1970 00:00:00 +0000", "1 Jan 1900 00:00 UT", "-1", "Wed, 20 Nov 2026 23:30:00 -0800 (Pacific)", "99999999999999999999", "20 Nov 26 10:00 EST",
             "Fri,20Nov2026 10:00:00+0000", "Fri, 29 Feb 2027 10:00:00 +0000"]
    out = []
    for i, subject in enumerate(subjects):
        raw = subject.encode("utf-8", "surrogateescape").replace(b"\0", b"") if "=?" in subject or subject.isascii() else None
        line = raw if raw is not None else encoded(subject).encode()
        out.append(b"From: Zoo <zoo@example.org>\r\nDate: " + date(BASE + i).encode() + b"\r\nMessage-ID: <s%d@zoo>\r\nSubject: " % i + line + b"\r\n\r\nx\r\n")
    for i, sender in enumerate(senders):
        out.append(b"From: " + sender.encode() + b"\r\nDate: " + date(BASE + i).encode() + b"\r\nMessage-ID: <f%d@zoo>\r\nSubject: sender %d\r\n\r\nx\r\n" % (i, i))
    for i, when in enumerate(dates):
        field = b"" if when is None else b"Date: " + when.encode() + b"\r\n"
        out.append(b"From: d@example.org\r\n" + field + b"Message-ID: <d%d@zoo>\r\nSubject: date %d\r\n\r\nx\r\n" % (i, i))
    twin = b"From: t@example.org\r\nDate: " + date(BASE).encode() + b"\r\nMessage-ID: <same@zoo>\r\nSubject: twins\r\n\r\n%s\r\n"
    out += [twin % b"one", twin % b"two", twin % b"two"]
    out.append(b"Date: " + date(BASE).encode() + b"\r\nDate: " + date(BASE + 86400).encode() + b"\r\nMessage-ID: <1@zoo>\r\nMessage-ID: <2@zoo>\r\n"
               b"Subject: first\r\nSubject: second\r\n\r\nx\r\n")
    return out


# --- crowds ---------------------------------------------------------------------------------------------------------

# how many bytes the message at each fraction of the crowd has: median 9 KB, nine tenths below 36 KB, some of 1 MB
SIZES = [(0, 1_400), (.1, 2_900), (.5, 9_000), (.9, 36_000), (.952, 100_000), (.99, 806_000), (1, 1_060_000)]


def _size(fraction):
    for (f0, s0), (f1, s1) in zip(SIZES, SIZES[1:]):
        if fraction <= f1:
            return int(s0 * (s1 / s0) ** ((fraction - f0) / (f1 - f0)))
    return SIZES[-1][1]


class _Filler:
    """Text and base64 lines by slicing a pool: as fast as the disk."""

    def __init__(self, rng):
        lines = []
        for _ in range(6000):
            line = ""
            while len(line) < 60:
                line += rng.choice(WORDS) + " "
            lines.append(line[:72].rstrip())
        self.text = "\n".join(lines).encode() + b"\n"
        self.base64 = base64.encodebytes(rng.randbytes(1_200_000))

    def cut(self, rng, pool, size):
        start = pool.index(b"\n", rng.randrange(len(pool) - min(size, len(pool) // 2) - 200)) + 1
        data = pool[start:start + size]
        while len(data) < size:
            data += pool[:size - len(data)]
        return data[:data.rindex(b"\n") + 1] if b"\n" in data else data + b"\n"


def realistic(count, seed=20261120):
    """yields (bytes with LF, seconds since 1970, Maildir flags): a person's mailbox"""
    rng = random.Random(seed)
    fill = _Filler(rng)
    for i in range(count):
        when = BASE + i * 3600 + rng.randrange(3000)
        size = _size(rng.random())
        sender = rng.choice(NAMES)
        subject = ("Re: " if rng.random() < .4 else "") + " ".join(rng.choices(WORDS, k=rng.randrange(2, 9)))
        if rng.random() < .1:
            subject += " — größer €"
        trace = b"".join(b"Received: from mx%d.example.net (mx%d.example.net [192.0.2.%d])\n\tby mail.example.org (Postfix) with ESMTPS id %012X\n\tfor <me@example.org>; %s\n"
                         % (k, k, k, rng.getrandbits(48), date(when - k).encode()) for k in range(rng.randrange(1, 5)))
        head = trace + message(encoded(subject).replace("\r", ""), f"{encoded(sender) if not sender.isascii() else chr(34) + sender + chr(34)} <{i % 97}@example.com>", when,
                               b"", mid=f"<{rng.getrandbits(64):x}.{i}@example.com>", eol=b"\n")[:-1]
        rest = max(size - len(head), 200)
        kind = rng.random()
        if kind < .3:
            body = b"Content-Type: text/plain; charset=utf-8\n\n" + fill.cut(rng, fill.text, rest)
        else:
            b = b"=_%016x" % rng.getrandbits(64)
            text = fill.cut(rng, fill.text, max(rest // 3, 100) if kind < .84 else min(rest // 4, 4000) + 100)
            other = (b"Content-Type: text/html; charset=utf-8\n\n<html><body>" + fill.cut(rng, fill.text, max(rest * 2 // 3, 100)) + b"</body></html>\n" if kind < .84 else
                     b"Content-Type: application/pdf; name=\"report.pdf\"\nContent-Transfer-Encoding: base64\nContent-Disposition: attachment; filename=\"report.pdf\"\n\n"
                     + fill.cut(rng, fill.base64, max(rest - len(text), 100)))
            body = (b"MIME-Version: 1.0\nContent-Type: multipart/%s; boundary=\"%s\"\n\n--%s\nContent-Type: text/plain; charset=utf-8\n\n%s\n--%s\n%s\n--%s--\n"
                    % (b"alternative" if kind < .84 else b"mixed", b, b, text, b, other, b))
        yield head + body, when, "" if rng.random() < .1 else "S"


def small(count, seed=1):
    """yields (bytes with LF, seconds, flags): many and little"""
    rng = random.Random(seed)
    for i in range(count):
        yield (b"From: \"Sender %d\" <s%d@example.com>\nTo: me@example.org\nSubject: %s %d\nDate: %s\nMessage-ID: <%d.small@example.com>\n\nNumber %d.\n"
               % (i % 211, i % 211, " ".join(rng.choices(WORDS, k=4)).encode(), i, date(BASE + i * 60).encode(), i, i)), BASE + i * 60, "S" if i % 3 else ""


def patches(count=5):
    """[bytes]: a series for git am, each patch adding a line to file.txt"""
    out = []
    for i in range(1, count + 1):
        before = "".join(f" line {k}\n" for k in range(max(1, i - 3), i))
        first = max(1, i - 3)
        old = i - first
        diff = (f"diff --git a/file.txt b/file.txt\n--- a/file.txt\n+++ b/file.txt\n@@ -{first if old else 0},{old} +{first},{old + 1} @@\n{before}+line {i}\n" if i > 1 else
                "diff --git a/file.txt b/file.txt\nnew file mode 100644\n--- /dev/null\n+++ b/file.txt\n@@ -0,0 +1 @@\n+line 1\n")
        body = f"Add line {i}.\n---\n file.txt | 1 +\n\n{diff}-- \n2.39.5\n"
        out.append(message(f"[PATCH v3 {i}/{count}] Add line {i}", "Patch Author <patch@example.org>", BASE + i, body.replace("\n", "\r\n").encode(), mid=f"<p{i}@patches>"))
    return out
