"""What docs/security.md tells users to do works: its OpenSSL commands make certificates with which nodes start."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from kinfolk import Cookie, Node, OwnCertificates, new_cookie
from kinfolk.observer import Observer
from tests.system.fleet import free_port

DOCUMENT = (Path(__file__).parent.parent / "docs" / "security.md").read_text()


@pytest.fixture
def certificates(tmp_path: Path) -> Path:
    """The directory in which the commands for OpenSSL have been run."""
    (commands,) = (block for block in re.findall(r"```console\n(.*?)```", DOCUMENT, re.DOTALL) if "openssl" in block)
    script = re.sub(r"(?m)^\$ ", "", commands)
    subprocess.run(["sh", "-e", "-c", script], cwd=tmp_path, check=True, capture_output=True)
    return tmp_path


@pytest.mark.skipif(shutil.which("openssl") is None, reason="the commands are those of openssl")
async def test_the_commands_for_openssl_make_certificates_that_fit(certificates: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(certificates)
    tls = OwnCertificates(certificate="ada.crt", key="ada.key", authority="authority.pem")
    assert 'OwnCertificates(certificate="ada.crt", key="ada.key", authority="authority.pem")' in DOCUMENT
    cookie = Cookie(new_cookie())
    async with Node("ada@10.0.0.1:4370", listen=f"127.0.0.1:{free_port()}", cookie=cookie, tls=tls, join=[]) as ada:
        address = str(ada._settings.listen)
        async with Observer(address, cookies=[cookie], cluster="kinfolk", tls=tls) as seen:
            assert seen.name == ada.name
