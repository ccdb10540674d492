"""The contract that keeps public-key code out of terminals notices when it is broken."""

import grimp
from scripts.import_contracts import ClosedContract, imported_names


def kept(source: str, forbidden: str) -> bool:
    graph = grimp.build_graph("locum", include_external_packages=True, cache_dir=None)
    options = {"source_modules": [source], "forbidden_modules": [forbidden]}
    contract = ClosedContract(name="test", session_options={"root_packages": ["locum"]}, contract_options=options)
    return contract.check(graph, verbose=False).kept


def test_part_of_a_package_is_told_from_the_whole() -> None:
    assert not kept("locum.demo.pki", "cryptography.x509")
    assert kept("locum.crypto.symmetric", "cryptography.x509")
    assert not kept("locum.crypto.symmetric", "cryptography.hazmat.primitives.ciphers")


def test_imports_through_others_count() -> None:
    assert not kept("locum.demo.peers", "cryptography.x509")
    assert not kept("locum.demo.scenario", "cryptography.hazmat.primitives.asymmetric")


def test_imports_inside_functions_count() -> None:
    assert "OpenSSL._util.lib" in set(imported_names("locum.demo.openssl4_server"))
