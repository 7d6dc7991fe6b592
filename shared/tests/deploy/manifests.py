"""What is wrong with rendered manifests, or with compose.yaml: one line each, and nothing when nothing is.

    manifests.py kubernetes RENDERED.yaml .env.example
    manifests.py compose compose.yaml .env.example
"""

import re
import sys

import jsonschema
import kubernetes_validate
import yaml

from shapes import SHAPES

KUBERNETES = "1.34"

# What one signal to a process may take besides its graces, in seconds.
TO_SPARE = 5


def main():
    what, path, env_file = sys.argv[1:]
    with open(env_file, encoding="utf-8") as lines:
        known = set(re.findall(r"^#? ?([A-Z][A-Z0-9_]+)=", lines.read(), re.MULTILINE))
    with open(path, encoding="utf-8") as text:
        documents = [document for document in yaml.safe_load_all(text) if document]
    found = list(compose(documents[0], known) if what == "compose" else kubernetes(documents, known))
    print("\n".join(found))
    sys.exit(bool(found))


def kubernetes(documents, known):
    for document in documents:
        kind = document["kind"]
        name = f"{kind}/{document['metadata']['name']}"
        yield from (f"{name}: {text}" for text in against_schema(document))
        template = document.get("spec", {}).get("template") if kind != "Job" else document["spec"]["template"]
        if template:
            yield from (f"{name}: {text}" for text in pod(document, template, documents))
        if kind == "ConfigMap" and document["metadata"]["name"] == "balas":
            yield from (f"{name}: {text}" for text in unknown(document["data"], known))
        if kind == "Secret" and document["metadata"]["name"].startswith("balas"):
            yield from (f"{name}: {text}" for text in unknown(document.get("data", {}), known))
        if kind == "ExternalSecret" and document["spec"]["target"]["name"] != "balas-openrouter":
            keys = [entry["secretKey"] for entry in document["spec"]["data"]]
            yield from (f"{name}: {text}" for text in unknown(keys, known))
        if kind in ("ServiceMonitor", "PodMonitor"):
            yield from (f"{name}: {text}" for text in monitor(document, documents))
        if kind == "Ingress":
            yield from (f"{name}: {text}" for text in ingress(document, documents))
        if kind in ("PodDisruptionBudget", "HorizontalPodAutoscaler", "ScaledObject"):
            yield from (f"{name}: {text}" for text in about_a_deployment(document, documents))


def against_schema(document):
    kind = f"{document['apiVersion']}/{document['kind']}"
    if kind in SHAPES:
        for error in jsonschema.Draft202012Validator(SHAPES[kind]).iter_errors(document["spec"]):
            yield f"spec.{'.'.join(str(part) for part in error.path)}: {error.message}"
        return
    try:
        kubernetes_validate.validate(document, KUBERNETES, strict=True)
    except kubernetes_validate.ValidationError as error:
        yield f"{'.'.join(str(part) for part in error.path)}: {error.message}"
    except kubernetes_validate.SchemaNotFoundError:
        yield "nobody knows this kind"


def pod(document, template, documents):
    spec = template["spec"]
    labels = template["metadata"]["labels"]
    selector = document["spec"].get("selector", {}).get("matchLabels", {})
    if not selector.items() <= labels.items():
        yield "its selector does not match its pods"
    security = spec.get("securityContext", {})
    if not security.get("runAsNonRoot") or security.get("seccompProfile", {}).get("type") != "RuntimeDefault":
        yield "its pods are not restricted"
    if spec.get("automountServiceAccountToken") is not False:
        yield "its pods have a token of the cluster's API"
    for container in spec["containers"]:
        security = container.get("securityContext", {})
        if (
            security.get("allowPrivilegeEscalation") is not False
            or security.get("readOnlyRootFilesystem") is not True
            or security.get("capabilities", {}).get("drop") != ["ALL"]
        ):
            yield f"container {container['name']} is not restricted"
        if "memory" not in container.get("resources", {}).get("limits", {}):
            yield f"container {container['name']} has no limit of memory"
        if "requests" not in container.get("resources", {}):
            yield f"container {container['name']} asks for nothing"
        tag = container["image"].rpartition(":")[2] if ":" in container["image"] else ""
        # The base leaves the name to the overlays.
        if tag in ("", "latest") and container["image"] != "balas":
            yield f"image {container['image']} has no version"
        if document["kind"] in ("Deployment", "StatefulSet") and "readinessProbe" not in container:
            yield f"container {container['name']} is never asked whether it is ready"
        secrets = {d["metadata"]["name"] for d in documents if d["kind"] == "Secret"}
        secrets |= {d["spec"]["target"]["name"] for d in documents if d["kind"] == "ExternalSecret"}
        wanted = [source["secretRef"]["name"] for source in container.get("envFrom", []) if "secretRef" in source]
        wanted += [
            entry["valueFrom"]["secretKeyRef"]["name"]
            for entry in container.get("env", [])
            if "secretKeyRef" in entry.get("valueFrom", {})
        ]
        wanted += [v["secret"]["secretName"] for v in spec.get("volumes", []) if "secret" in v]
        if secrets:
            yield from (f"there is no secret {name}" for name in wanted if name not in secrets)
    yield from grace(document, spec, documents)


def grace(document, spec, documents):
    """Kubernetes may not kill what is still draining."""
    settings = next((d["data"] for d in documents if d["kind"] == "ConfigMap" and d["metadata"]["name"] == "balas"), {})
    takes = {"balas-api": ("SHUTDOWN_DELAY", "SHUTDOWN_GRACE"), "balas-worker": ("DRAIN_GRACE",)}
    parts = takes.get(document["metadata"]["name"])
    if document["kind"] != "Deployment" or not parts:
        return
    hook = spec["containers"][0].get("lifecycle", {}).get("preStop", {}).get("sleep", {}).get("seconds", 0)
    needed = hook + TO_SPARE + sum(float(settings[part]) for part in parts)
    given = spec.get("terminationGracePeriodSeconds", 30)
    if given < needed:
        yield f"terminationGracePeriodSeconds is {given}, and draining may take {needed:g}"


def monitor(document, documents):
    spec = document["spec"]
    wanted = spec["selector"]["matchLabels"].items()
    if document["kind"] == "ServiceMonitor":
        matching = [d for d in documents if d["kind"] == "Service" and wanted <= d["metadata"].get("labels", {}).items()]
        ports = {port["name"] for service in matching for port in service["spec"]["ports"]}
        endpoints = spec["endpoints"]
    else:
        pods = [d["spec"]["template"] for d in documents if d["kind"] == "Deployment"]
        matching = [p for p in pods if wanted <= p["metadata"]["labels"].items()]
        ports = {port["name"] for p in matching for c in p["spec"]["containers"] for port in c["ports"]}
        endpoints = spec["podMetricsEndpoints"]
    if len(matching) != 1:
        yield f"it watches {len(matching)}"
    yield from (f"there is no port {e['port']}" for e in endpoints if e["port"] not in ports)


def ingress(document, documents):
    services = {d["metadata"]["name"]: d for d in documents if d["kind"] == "Service"}
    for rule in document["spec"]["rules"]:
        for path in rule["http"]["paths"]:
            backend = path["backend"]["service"]
            ports = [port["name"] for port in services.get(backend["name"], {}).get("spec", {}).get("ports", [])]
            if backend["port"]["name"] not in ports:
                yield f"{path['path']} leads nowhere"
            if path["path"] == "/" and path["pathType"] != "Exact":
                yield "it opens /internal and /metrics"


def about_a_deployment(document, documents):
    deployments = [d for d in documents if d["kind"] in ("Deployment", "StatefulSet")]
    spec = document["spec"]
    if document["kind"] == "PodDisruptionBudget":
        wanted = spec["selector"]["matchLabels"].items()
        found = [d for d in deployments if wanted <= d["spec"]["template"]["metadata"]["labels"].items()]
    else:
        found = [d for d in deployments if d["metadata"]["name"] == spec["scaleTargetRef"]["name"]]
    if len(found) != 1:
        yield f"it is about {len(found)} deployments"


def unknown(names, known):
    # What the SDK of OpenTelemetry reads by itself.
    own = (name for name in names if name not in known)
    yield from (f"{name} is no setting of Balas (.env.example)" for name in own)


def compose(document, known):
    services = document["services"]
    for name, service in services.items():
        if "mem_limit" not in service:
            yield f"{name} has no limit of memory"
        image = service["image"]
        if ":" not in image or image.endswith(":latest"):
            yield f"{name}: image {image} has no version"
        if "healthcheck" not in service and name != "simulator":
            yield f"{name} is never asked how it is"
        for other, how in service.get("depends_on", {}).items():
            if other not in services:
                yield f"{name} waits for {other}, which is not there"
            if how["condition"] == "service_healthy" and "healthcheck" not in services[other]:
                yield f"{name} waits for the health of {other}, which has none"
        if service.get("image", "").startswith("balas"):
            if service.get("read_only") is not True or service.get("cap_drop") != ["ALL"]:
                yield f"{name} may write to its image, or more"
        if name in ("migrate", "api", "worker"):
            yield from (f"{name}: {text}" for text in unknown(service.get("environment", {}), known))
        for volume in service.get("volumes", []):
            if volume.split(":")[0] not in document["volumes"]:
                yield f"{name}: there is no volume {volume}"
    if services["worker"]["deploy"]["replicas"] != 2:
        yield "there are not two workers"


main()
