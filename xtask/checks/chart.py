"""Renders the Helm chart in each of its value sets and checks what comes out.

chart.py CHART OUT: the rendered configuration of each set is written to OUT/<set>.json, its alert rules
to OUT/<set>.rules.yml, for the tools that read those. Exits with 1 and a line for each finding.
"""

import json
import pathlib
import sys

import helm_python as helm
import jsonschema
import kubernetes_validate
import yaml

KUBERNETES = "1.37"

# Kinds of operators, whose schemas no package brings: the fields that the chart may use.
TEXT = {"type": "string"}
ANY = {}


def closed(required, **fields):
    return {
        "type": "object",
        "properties": fields,
        "required": required,
        "additionalProperties": False,
    }


def several(of):
    return {"type": "array", "items": of, "minItems": 1}


OPERATORS = {
    # https://gateway-api.sigs.k8s.io/reference/spec/#httproute
    ("gateway.networking.k8s.io/v1", "HTTPRoute"): closed(
        ["parentRefs", "rules"],
        parentRefs=several(
            closed(["name"], name=TEXT, namespace=TEXT, sectionName=TEXT, group=TEXT, kind=TEXT)
        ),
        hostnames=several({"type": "string", "pattern": r"^(\*\.)?[a-z0-9.-]+$"}),
        rules=several(
            closed(
                ["backendRefs"],
                matches=several(
                    closed(
                        ["path"],
                        path=closed(
                            ["type", "value"],
                            type={"enum": ["Exact", "PathPrefix", "RegularExpression"]},
                            value=TEXT,
                        ),
                    )
                ),
                timeouts=closed(
                    [],
                    request={"type": "string", "pattern": r"^([0-9]{1,5}(h|m|s|ms)){1,4}$"},
                    backendRequest=TEXT,
                ),
                backendRefs=several(closed(["name", "port"], name=TEXT, port={"type": "integer"})),
            )
        ),
    ),
    # https://keda.sh/docs/latest/reference/scaledobject-spec/
    ("keda.sh/v1alpha1", "ScaledObject"): closed(
        ["scaleTargetRef", "triggers"],
        scaleTargetRef=closed(["name"], name=TEXT, kind=TEXT, apiVersion=TEXT),
        minReplicaCount={"type": "integer"},
        maxReplicaCount={"type": "integer"},
        fallback=closed(
            ["failureThreshold", "replicas"],
            failureThreshold={"type": "integer"},
            replicas={"type": "integer"},
            behavior={
                "enum": [
                    "static",
                    "currentReplicas",
                    "currentReplicasIfHigher",
                    "currentReplicasIfLower",
                ]
            },
        ),
        advanced=closed([], horizontalPodAutoscalerConfig=closed([], behavior=ANY)),
        triggers=several(
            closed(
                ["type", "metadata"],
                type={"const": "prometheus"},
                metadata=closed(
                    ["serverAddress", "query", "threshold"],
                    serverAddress=TEXT,
                    query=TEXT,
                    threshold={"type": "string", "pattern": "^[0-9]+$"},
                ),
            )
        ),
    ),
    # https://prometheus-operator.dev/docs/api-reference/api/
    ("monitoring.coreos.com/v1", "ServiceMonitor"): closed(
        ["selector", "endpoints"],
        selector=ANY,
        endpoints=several(closed(["port"], port=TEXT, path=TEXT, interval=TEXT)),
    ),
    ("monitoring.coreos.com/v1", "PrometheusRule"): closed(["groups"], groups=several(ANY)),
}

# Values that the schema must refuse.
REFUSED = {
    "scaling by processor time": {"autoscaling": {"kind": "cpu"}},
    "a misspelt key": {"autoscalling": {}},
    "an address that the chart decides": {"config": {"server": {"listen": "0.0.0.0:1"}}},
    "a grace apart from the pod's": {"config": {"limits": {"drainGrace": "5m"}}},
    "no identity": {"workloadIdentity": {"clientId": "nobody"}},
}


def check(chart, name, values, out):
    findings = []
    report = helm.lint(str(chart), values, strict=True, namespace="voice", kube_version=f"v{KUBERNETES}.0")
    findings += [m["error"] for m in report["messages"] if m["severity"] >= 2] + report["errors"]
    loaded = helm.Chart.load(str(chart))
    loaded.validate_schema(loaded.merge_values(values))
    kinds = {}
    for path, text in loaded.render(values, name="talk", namespace="voice").items():
        if path.endswith("NOTES.txt"):
            continue
        for manifest in yaml.safe_load_all(text):
            if manifest is None:
                continue
            kinds[manifest["kind"]] = manifest
            key = (manifest["apiVersion"], manifest["kind"])
            try:
                if key in OPERATORS:
                    jsonschema.validate(manifest["spec"], OPERATORS[key])
                else:
                    kubernetes_validate.validate(manifest, KUBERNETES, strict=True)
            except Exception as error:  # each tool has its own kind
                findings.append(f"{path}: {manifest['kind']}: {str(error).splitlines()[0]}")
    findings += promises(kinds)
    (out / f"{name}.json").write_text(kinds["ConfigMap"]["data"]["talkline.json"])
    if "PrometheusRule" in kinds:
        (out / f"{name}.rules.yml").write_text(yaml.safe_dump(kinds["PrometheusRule"]["spec"]))
    return findings, sorted(kinds)


def promises(kinds):
    """What no schema says and the chart promises all the same."""
    pod = kinds["Deployment"]["spec"]["template"]["spec"]
    container = pod["containers"][0]
    config = json.loads(kinds["ConfigMap"]["data"]["talkline.json"])
    grace = int(config["limits"]["drainGrace"].removesuffix("s"))
    yield_ = []
    if pod["terminationGracePeriodSeconds"] <= grace:
        yield_.append("the pod is killed before its sessions have been drained")
    if pod["securityContext"]["runAsUser"] != 65532 or not pod["securityContext"]["runAsNonRoot"]:
        yield_.append("the pod does not run as 65532")
    if not container["securityContext"]["readOnlyRootFilesystem"]:
        yield_.append("the root can be written")
    ports = {port["name"]: port["containerPort"] for port in container["ports"]}
    if not config["admin"]["listen"].endswith(f":{ports['metrics']}"):
        yield_.append("the metrics port leads nowhere")
    scaler = kinds.get("ScaledObject") or kinds.get("HorizontalPodAutoscaler")
    store = config.get("limitStore", {}).get("kind", "memory")
    policy = kinds.get("NetworkPolicy")
    if policy and store == "redis":
        opened = [port["port"] for rule in policy["spec"]["egress"] for port in rule.get("ports", [])]
        if not {6379, 6380} & set(opened):
            yield_.append("the pods may not reach the limit store")
    if scaler and "talkline_sessions_active" not in json.dumps(scaler):
        yield_.append("it is not scaled by sessions")
    if scaler and "replicas" in kinds["Deployment"]["spec"]:
        yield_.append("the Deployment and the autoscaler both set the replicas")
    return yield_


def main():
    chart, out = pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2])
    out.mkdir(parents=True, exist_ok=True)
    failed = False
    sets = sorted((chart / "ci").glob("*.yaml"))
    for path in sets:
        values = yaml.safe_load(path.read_text())
        findings, kinds = check(chart, path.stem, values, out)
        print(f"{path.stem}: {', '.join(kinds)}")
        for finding in findings:
            failed = True
            print(f"{path.stem}: {finding}")
    base = yaml.safe_load(sets[0].read_text())
    for what, values in REFUSED.items():
        loaded = helm.Chart.load(str(chart))
        try:
            loaded.validate_schema(loaded.merge_values({**base, **values}))
            failed = True
            print(f"values.schema.json lets through: {what}")
        except helm.HelmError:
            pass
    sys.exit(1 if failed or len(sets) < 3 else 0)


main()
