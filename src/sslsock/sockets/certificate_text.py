"""What people are shown of a certificate: its subject, issuer, times and names, each on one line.

What does not print in a certificate is escaped already (`SslCertificate`), so a line stays one.
"""

from __future__ import annotations

from ..core.certificate import SslCertificate

__all__ = ["all_names_text", "alternative_names_text", "certificate_lines", "name_text"]


def name_text(name: dict[str, list[str]]) -> str:
    """A subject or issuer."""
    return ", ".join(f"{kind}={value}" for kind, values in name.items() for value in values) or "(empty)"


def alternative_names_text(certificate: SslCertificate) -> str:
    """Every name of the subjectAltName extension, with its kind."""
    return ", ".join(f"{kind}:{value}" for kind, value in certificate.subject_alternative_names) or "(none)"


def all_names_text(certificate: SslCertificate) -> str:
    """Whom a certificate is for: the common name and all alternative names."""
    common = [("CN", value) for value in certificate.subject.get("CN", ())]
    return ", ".join(f"{kind}:{value}" for kind, value in [*common, *certificate.subject_alternative_names]) or "(none)"


def certificate_lines(certificate: SslCertificate) -> list[tuple[str, str]]:
    """What people ask of a certificate: (what, text)."""
    begin, end = certificate.not_before, certificate.not_after
    times = [time.strftime("%Y-%m-%d %H:%M:%S") if time is not None else "unknown" for time in (begin, end)]
    return [
        ("subject", name_text(certificate.subject)),
        ("issuer", name_text(certificate.issuer)),
        ("valid", f"{times[0]} to {times[1]} UTC"),
        ("names", alternative_names_text(certificate)),
    ]
