"""What does every test stand on: no network, few threads, and the folder of shared material?"""

from __future__ import annotations

import os

# Before anything imports torch: xdist's workers share the cores, and threads on top only wait.
os.environ["HF_HUB_OFFLINE"] = "1"
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("OMP_NUM_THREADS", "1")

import ipaddress
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of real weights and public data beside the checkout."""
    folder = Path(os.environ.get("TUNEDIFF_SHARED", ROOT.parent / "shared"))
    if not folder.is_dir():
        pytest.skip(f"no folder of shared material at {folder}")
    return folder


@pytest.fixture(scope="session")
def cuda() -> str:
    """The name of a CUDA device; tests that need one ask for it here."""
    import torch

    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    return "cuda"


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The marker follows from the fixture, so that neither can be forgotten."""
    for item in items:
        if "shared" in getattr(item, "fixturenames", ()):
            item.add_marker("shared")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Any:
    """In CI the shared folder is there: a skipped test of it means that something is broken."""
    report = yield
    if report.skipped and os.environ.get("CI") and item.get_closest_marker("shared"):
        report.outcome = "failed"
        report.longrepr = f"{item.nodeid} reads the shared folder and was skipped in CI"
    return report


def is_local(host: str) -> bool:
    """Whether a host is this machine itself."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


@pytest.fixture(scope="session", autouse=True)
def no_network() -> Iterator[None]:
    """Connecting to another machine, or looking up its name, is an error in every test."""

    def guarded(real: Any, host_of: Any) -> Any:
        def call(*args: Any, **kwargs: Any) -> Any:
            host = host_of(*args)
            if host is not None and not is_local(host):
                raise RuntimeError(f"a test reached for the network: {host}")
            return real(*args, **kwargs)

        return call

    def peer(sock: socket.socket, address: Any) -> str | None:
        return None if sock.family == socket.AF_UNIX else address[0]

    with pytest.MonkeyPatch.context() as patch:
        for name in ("connect", "connect_ex"):
            patch.setattr(socket.socket, name, guarded(getattr(socket.socket, name), peer))
        lookup = guarded(socket.getaddrinfo, lambda host, *_: host or None)
        patch.setattr(socket, "getaddrinfo", lookup)
        yield
