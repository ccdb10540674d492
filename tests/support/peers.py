"""What interop tests start and trust: the servers and certificates of `locum.demo`, under one import."""

from locum.demo.peers import NginxServer, Openssl4Server, OpensslServer, Server, ServerOptions
from locum.demo.pki import CertificateAuthority, Issued
from locum.demo.process import BackgroundProcess

__all__ = [
    "BackgroundProcess",
    "CertificateAuthority",
    "Issued",
    "NginxServer",
    "Openssl4Server",
    "OpensslServer",
    "Server",
    "ServerOptions",
]
