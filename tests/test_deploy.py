"""The files of deploy/: they name what there is, agree with each other, and the tools that they are for take them."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest
import trustme

from peers import needs_sources
from sslsock.__main__ import make_parser
from sslsock.proxy.fleet.member import FleetState
from sslsock.proxy.observability.metrics import Counters, ProcessState, WorkerProcesses, make_collector
from sslsock.proxy.settings.model import Limits

pytestmark = needs_sources
DEPLOY = Path(__file__).resolve().parent.parent / "deploy"
UNIT = DEPLOY / "systemd" / "sslsock-proxy.service"
METRIC = re.compile(r"\b(?:sslsock|process)_\w+")


def needs(program: str) -> pytest.MarkDecorator:
    return pytest.mark.skipif(shutil.which(program) is None, reason=f"{program} is not installed")


def run(*words: object) -> str:
    result = subprocess.run([str(word) for word in words], capture_output=True, text=True, timeout=60)
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout + result.stderr


def text_of(name: str) -> str:
    return (DEPLOY / name).read_text()


def unit_values(key: str) -> list[str]:
    return re.findall(rf"^{key}=(.*)$", UNIT.read_text(), re.M)


def settings() -> str:
    """The TOML of the ConfigMap."""
    return textwrap.dedent(text_of("kubernetes/configmap.yaml").partition("proxy.toml: |\n")[2])


# Metrics


def known_metrics() -> set[str]:
    prometheus = pytest.importorskip("prometheus_client")
    registry = prometheus.CollectorRegistry()
    prometheus.ProcessCollector(registry=registry)
    state = ProcessState(True, 1.0, 1.0, fleet=FleetState(True, 1.0, 1, 0), workers=WorkerProcesses(2, 2, 0))
    made = make_collector([Counters()], dict, dict, lambda: 0, dict, lambda: state, acme_view=tuple)  # type: ignore[arg-type]
    registry.register(made)
    families: list[Any] = list(registry.collect())
    endings = {"counter": ["_total"], "histogram": ["_bucket", "_sum", "_count"]}
    return {f"{family.name}{ending}" for family in families for ending in endings.get(family.type, [""])}


def test_the_metrics_that_are_named_are_there() -> None:
    dashboard = json.loads(text_of("grafana/dashboard.json"))
    expressions = [target["expr"] for panel in dashboard["panels"] for target in panel["targets"]]
    expressions += [one["query"]["query"] for one in dashboard["templating"]["list"] if one["type"] == "query"]
    rules = re.findall(r"^ +expr: *((?:.*\n)(?: {10,}.*\n)*)", text_of("prometheus/alerts.yml"), re.M)
    named = set(METRIC.findall(" ".join([*expressions, *rules])))
    assert len(expressions) > 10 and len(rules) == text_of("prometheus/alerts.yml").count("- alert:")
    assert named <= known_metrics() | {"sslsock_proxy_build_info"}


@needs("promtool")
def test_promtool_takes_the_rules() -> None:
    assert "SUCCESS" in run("promtool", "check", "rules", DEPLOY / "prometheus" / "alerts.yml")


@needs("promtool")
def test_the_rules_fire(tmp_path: Path) -> None:
    """Two of them, over a made-up history: one that is about a moment, one that is about a rate."""
    (tmp_path / "test.yml").write_text(
        textwrap.dedent(f"""\
        rule_files: [{DEPLOY / "prometheus" / "alerts.yml"}]
        tests:
          - interval: 1m
            input_series:
              - series: 'sslsock_proxy_certificate_expiry_timestamp_seconds{{certificate="a.pem", instance="x"}}'
                values: '600x120'
              - series: 'sslsock_proxy_handshakes_total{{result="ok", instance="x"}}'
                values: '0+10x120'
              - series: 'sslsock_proxy_handshakes_total{{result="failed", instance="x"}}'
                values: '0+10x120'
            alert_rule_test:
              - {{eval_time: 5m, alertname: SslsockCertificateExpired}}
              - eval_time: 20m
                alertname: SslsockCertificateExpired
                exp_alerts:
                  - exp_labels: {{severity: critical, certificate: a.pem, instance: x}}
                    exp_annotations: {{summary: a.pem of x has expired}}
              - eval_time: 60m
                alertname: SslsockHandshakesFail
                exp_alerts:
                  - exp_labels: {{severity: warning, instance: x}}
                    exp_annotations: {{summary: more than a fifth of the handshakes of x fail}}
        """)
    )
    run("promtool", "test", "rules", tmp_path / "test.yml")


# The proxy's own words


def test_the_settings_are_good(tmp_path: Path) -> None:
    issued = trustme.CA().issue_cert("www.example.com")
    issued.private_key_pem.write_to_path(tmp_path / "tls.key")
    for pem in issued.cert_chain_pems:
        pem.write_to_path(tmp_path / "tls.crt", append=True)
    (tmp_path / "proxy.toml").write_text(settings().replace("/etc/sslsock/tls", str(tmp_path)))
    run(sys.executable, "-m", "sslsock", "proxy", "--config", tmp_path / "proxy.toml", "--check")


def seconds(key: str, text: str) -> int:
    found = re.search(rf"{key}\W+(\d+)", text)
    assert found is not None, key
    return int(found[1])


def test_whoever_stops_it_is_patient_enough() -> None:
    ending = seconds("shutdown-delay", settings()) + seconds("drain-timeout", settings())
    assert seconds("terminationGracePeriodSeconds", text_of("kubernetes/deployment.yaml")) > ending
    assert seconds("TimeoutStopSec", UNIT.read_text()) > Limits().drain_timeout


def test_the_commands_of_the_unit_are_ours() -> None:
    commands = [*unit_values("ExecStart"), *unit_values("ExecStartPre")]
    assert len(commands) == 2
    for line in commands:
        program, *words = shlex.split(line)
        assert program.endswith("/sslsock")
        make_parser().parse_args(words)


def test_the_image_runs_our_command() -> None:
    words = [json.loads(found) for found in re.findall(r"^(?:ENTRYPOINT|CMD) (.*)$", text_of("Containerfile"), re.M)]
    program, *arguments = [word for part in words for word in part]
    assert program == "sslsock"
    make_parser().parse_args(arguments)


def test_the_pods_are_restricted() -> None:
    """What the Pod Security Standard "restricted" asks of a pod."""
    text = text_of("kubernetes/deployment.yaml")
    for wanted in (
        *("runAsNonRoot: true", "type: RuntimeDefault", "allowPrivilegeEscalation: false", 'drop: ["ALL"]'),
        "readOnlyRootFilesystem: true",  # and this, which it does not
    ):
        assert wanted in text
    for forbidden in ("hostPath", "hostNetwork", "hostPort", "privileged", "add:"):
        assert forbidden not in text


# systemd


@needs("systemd-analyze")
def test_systemd_takes_the_units(tmp_path: Path) -> None:
    for unit in (UNIT, UNIT.with_suffix(".socket")):
        (tmp_path / unit.name).write_text(unit.read_text().replace("/opt/sslsock/bin/sslsock", "/bin/true"))
    said = run("systemd-analyze", "verify", *tmp_path.iterdir())
    assert "sslsock" not in said, said


@needs("systemd-analyze")
def test_systemd_finds_the_service_well_guarded() -> None:
    said = run("systemd-analyze", "security", "--offline=yes", "--threshold=20", "--no-pager", UNIT)
    assert "Overall exposure level" in said
