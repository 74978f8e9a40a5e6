"""Servers that speak TLS, with the certificate of test/data/tls: for localhost and 127.0.0.1 only.

Its CA was made once, for a hundred years, and its key thrown away.
"""

import ssl
from pathlib import Path

DATA = Path(__file__).resolve().parents[1] / "data/tls"
CA_FILE = DATA / "ca.pem"


def server_context() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(DATA / "server.pem")
    return context
