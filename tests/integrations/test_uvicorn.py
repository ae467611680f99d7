"""A web application under `uvicorn --workers 4`: its workers are a cluster. The programs are those of the guide."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Generator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest

from kinfolk import new_cookie
from kinfolk.shell.neighbours import neighbours
from tests.background import Background, free_ports, until
from tests.integrations import guide
from tests.system.fleet import free_port

pytestmark = pytest.mark.slow


class Web:
    """An application that uvicorn serves with several workers."""

    def __init__(self, directory: Path, workers: int, environment: Mapping[str, str], host: str = "127.0.0.1") -> None:
        port = free_port()
        self.url = f"http://{host}:{port}"
        self.program = Background(
            ["-m", "uvicorn", "shop:web", "--workers", str(workers), "--host", host, "--port", str(port)],
            cwd=directory,
            environment=environment,
            log=directory / f"{host}.log",
        )

    def visit(self) -> dict[str, Any] | None:
        """What whichever worker answers that gets this connection; None if it cannot."""
        try:
            answer = httpx.get(self.url, timeout=10, trust_env=False)
        except httpx.TransportError:
            return None
        return answer.json() if answer.status_code == 200 else None

    def workers(self) -> dict[int, dict[str, Any]]:
        """The workers that have answered some visits, by their processes."""
        with ThreadPoolExecutor(8) as together:
            answers = list(together.map(lambda _: self.visit(), range(24)))
        return {answer["worker"]: answer for answer in answers if answer is not None}

    def mesh(self, workers: int, peers: int) -> dict[int, dict[str, Any]]:
        """Wait until so many workers answer, each with so many peers."""

        def look() -> dict[int, dict[str, Any]] | None:
            found = self.workers()
            met = all(len(answer["peers"]) == peers for answer in found.values())
            return found if len(found) == workers and met else None

        return until(look, lambda: f"{workers} workers with {peers} peers each: {self.program.log}")


@pytest.fixture
def serve(tmp_path: Path) -> Generator[Callable[..., Web]]:
    """Serves the guide's application, until the end of the test."""
    served: list[Web] = []

    def serve(workers: int, environment: Mapping[str, str], host: str = "127.0.0.1") -> Web:
        served.append(Web(tmp_path, workers, environment, host))
        return served[-1]

    yield serve
    for web in served:
        web.program.close()


def is_gone(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return False


def test_the_workers_share_their_names_and_a_sigterm_ends_all_of_them_well(
    serve: Callable[..., Web], environment: dict[str, str], tmp_path: Path
) -> None:
    (tmp_path / "shop.py").write_text(guide.file("shop.py"))
    web = serve(4, environment)
    workers = web.mesh(4, 3)
    nodes = {answer["node"] for answer in workers.values()}
    assert len(nodes) == 4 and set(neighbours(tmp_path / "home", "kinfolk")) == nodes

    with ThreadPoolExecutor(8) as together:
        visits = [answer["visit"] for answer in together.map(lambda _: web.visit(), range(80)) if answer is not None]
    assert len(visits) == len(set(visits)) == 80, "all workers count with the same counter"

    log = web.program.stop()
    assert all(map(is_gone, workers)), log
    assert not [word for word in ("Traceback", "ERROR", "WARNING", "never") if word in log], log
    assert neighbours(tmp_path / "home", "kinfolk") == [], "each node has taken its announcement back"


def test_a_worker_that_is_killed_is_replaced_and_its_names_come_back(
    serve: Callable[..., Web], environment: dict[str, str], tmp_path: Path
) -> None:
    (tmp_path / "shop.py").write_text(guide.file("shop.py"))
    web = serve(4, environment)
    workers = web.mesh(4, 3)
    asked = subprocess.run(
        [sys.executable, "-m", "kinfolk", "whereis", "visits"], env=environment, capture_output=True, text=True
    )
    (killed,) = [pid for pid, answer in workers.items() if asked.stdout.startswith(answer["node"])]
    os.kill(killed, signal.SIGKILL)
    again = web.mesh(4, 3)
    assert killed not in again and len(set(again) & set(workers)) == 3
    visits = [answer["visit"] for answer in (web.visit() for _ in range(10)) if answer is not None]
    assert len(set(visits)) == 10, "another worker counts"


def test_workers_of_several_machines_find_each_other_on_a_range_of_ports(
    serve: Callable[..., Web], environment: dict[str, str], tmp_path: Path
) -> None:
    hosts = ("127.0.0.1", "127.0.0.2")  # as good as two machines: the ports are the same, the addresses are not
    first = free_ports(4, hosts)
    program = guide.file("shop.py").replace("(kinfolk.Node())", "(make_node())")
    (tmp_path / "shop.py").write_text(
        program.replace("import kinfolk.asgi\n", "import kinfolk.asgi\nfrom machines import *\n", 1)
    )
    (tmp_path / "machines.py").write_text(guide.file("machines.py").replace("(4370, 4374)", f"({first}, {first + 4})"))
    cookie = tmp_path / "cookie"
    cookie.write_text(new_cookie())
    cookie.chmod(0o600)
    shared = {**environment, "KINFOLK_COOKIE_FILE": str(cookie), "SHOP_HOSTS": ",".join(hosts)}
    here, there = (
        serve(workers, {**shared, "SHOP_HOST": host}, host) for host, workers in zip(hosts, (4, 2), strict=True)
    )
    workers = here.mesh(4, 5)
    assert {answer["node"] for answer in workers.values()} == {f"shop@{hosts[0]}:{first + n}" for n in range(4)}
    others = there.mesh(2, 5)
    assert {answer["node"] for answer in others.values()} == {f"shop@{hosts[1]}:{first + n}" for n in range(2)}
    visits = [answer["visit"] for web in (here, there) for answer in (web.visit(),) if answer is not None]
    assert len(set(visits)) == 2, "both machines count with the same counter"

    killed, answer = next(iter(workers.items()))
    os.kill(killed, signal.SIGKILL)
    again = here.mesh(4, 5)
    (new,) = set(again) - set(workers)
    assert again[new]["node"] == answer["node"], "the new worker has the port that has become free, and its name"
