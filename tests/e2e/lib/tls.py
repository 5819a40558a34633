"""A certificate authority of our own, by the openssl command."""
import os
import subprocess
from collections import namedtuple
from pathlib import Path

Certificate = namedtuple("Certificate", "certificate key")


def _openssl(*arguments, folder):
    subprocess.run(["openssl", *arguments], cwd=folder, check=True, capture_output=True, stdin=subprocess.DEVNULL)


class Authority:
    def __init__(self, folder):
        self.folder = Path(folder)
        self.folder.mkdir(parents=True, exist_ok=True)
        self.serial = 0
        self.ca = self.folder / "ca.pem"
        _openssl("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "30",
                 "-subj", "/CN=mailfs test CA", "-keyout", "ca.key", "-out", "ca.pem",
                 "-addext", "basicConstraints=critical,CA:TRUE", "-addext", "keyUsage=critical,keyCertSign", folder=self.folder)

    def issue(self, names=("DNS:localhost", "IP:127.0.0.1"), expired=False, self_signed=False):
        self.serial += 1
        name = f"server-{self.serial}"
        extensions = self.folder / f"{name}.ext"
        extensions.write_text(f"subjectAltName={','.join(names)}\nbasicConstraints=CA:FALSE\nextendedKeyUsage=serverAuth\n")
        _openssl("req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-subj", f"/CN={name}",
                 "-keyout", f"{name}.key", "-out", f"{name}.csr", folder=self.folder)
        signer = ["-signkey", f"{name}.key"] if self_signed else ["-CA", "ca.pem", "-CAkey", "ca.key", "-set_serial", str(self.serial)]
        days = ["-days", "-1"] if expired else ["-days", "30"]
        _openssl("x509", "-req", "-in", f"{name}.csr", *signer, *days, "-extfile", extensions.name, "-out", f"{name}.pem",
                 folder=self.folder)
        os.chmod(self.folder / f"{name}.key", 0o600)
        return Certificate(self.folder / f"{name}.pem", self.folder / f"{name}.key")
