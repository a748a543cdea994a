import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from line import Line  # noqa: E402


@pytest.fixture
def line(tmp_path):
    """A relay over plain TCP."""
    with Line(tmp_path) as line:
        yield line


@pytest.fixture
def tls_line(tmp_path, monkeypatch):
    """A relay over TLS, with its certificate trusted the way it tells its user to."""
    with Line(tmp_path, tls=True) as line:
        monkeypatch.setenv("SSL_CERT_FILE", line.certificate)
        yield line


@pytest.fixture(autouse=True)
def no_ambient_settings(monkeypatch):
    """What the tester has set for these packages must not decide a test."""
    for name in (
        "OPENAI_API_KEY",
        "OPENAI_BASE_URL",
        "OPENAI_ORG_ID",
        "OPENAI_PROJECT_ID",
        "OPENAI_API_VERSION",
        "AZURE_OPENAI_API_KEY",
        "AZURE_OPENAI_AD_TOKEN",
        "AZURE_OPENAI_ENDPOINT",
        "HTTP_PROXY",
        "HTTPS_PROXY",
        "ALL_PROXY",
        "http_proxy",
        "https_proxy",
        "all_proxy",
    ):
        monkeypatch.delenv(name, raising=False)
