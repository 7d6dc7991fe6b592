"""Renders a folder of manifests as `kubectl kustomize` would, for machines that have none: what our own folders use of
kustomize, and an error for whatever else one says.

    render.py k8s/overlays/production                what is sent, as YAML
    render.py k8s/overlays/production THEIRS.yaml    what in another rendering is not the same, one line each
"""

import base64
import copy
import os
import re
import sys

import yaml

UNDERSTOOD = {
    "apiVersion", "kind", "namespace", "labels", "resources", "images", "configMapGenerator", "secretGenerator",
    "generatorOptions", "patches",
}

# Kinds that belong to no namespace.
OF_THE_CLUSTER = {"Namespace", "ClusterRole", "ClusterRoleBinding", "CustomResourceDefinition", "PriorityClass"}


class Unknown(Exception):
    pass


def main():
    documents = render(sys.argv[1])
    if len(sys.argv) == 2:
        yaml.safe_dump_all(documents, sys.stdout, sort_keys=True, allow_unicode=True, width=4096)
        return
    with open(sys.argv[2], encoding="utf-8") as text:
        others = [document for document in yaml.safe_load_all(text) if document]
    ours, theirs = ({identity(d): d for d in every} for every in (documents, others))
    found = list(differences("", ours, theirs))
    print("\n".join(found), end="")
    sys.exit(bool(found))


def differences(path, ours, theirs):
    if isinstance(ours, dict) and isinstance(theirs, dict):
        for key in sorted(ours.keys() | theirs.keys(), key=str):
            if key not in theirs or key not in ours:
                yield f"{path}/{key}: only in {'ours' if key in ours else 'theirs'}"
            else:
                yield from differences(f"{path}/{key}", ours[key], theirs[key])
    elif isinstance(ours, list) and isinstance(theirs, list) and len(ours) == len(theirs):
        for index, (one, other) in enumerate(zip(ours, theirs)):
            yield from differences(f"{path}/{index}", one, other)
    elif ours != theirs:
        yield f"{path}: {ours!r} and {theirs!r}"


def render(folder):
    with open(os.path.join(folder, "kustomization.yaml"), encoding="utf-8") as text:
        kustomization = yaml.safe_load(text)
    only(kustomization, UNDERSTOOD, folder)
    documents = []
    for resource in kustomization.get("resources", []):
        path = os.path.join(folder, resource)
        if os.path.isdir(path):
            documents += render(path)
        else:
            with open(path, encoding="utf-8") as text:
                documents += [document for document in yaml.safe_load_all(text) if document]
    options = kustomization.get("generatorOptions", {})
    only(options, {"disableNameSuffixHash", "labels"}, folder)
    for kind, generator in (("ConfigMap", "configMapGenerator"), ("Secret", "secretGenerator")):
        for wanted in kustomization.get(generator, []):
            generate(documents, kind, wanted, options, folder)
    for patch in kustomization.get("patches", []):
        only(patch, {"target", "patch"}, folder)
        targets = [document for document in documents if is_target(document, patch["target"])]
        if not targets:
            raise Unknown(f"{folder}: nobody is {patch['target']}")
        for document in targets:
            for operation in yaml.safe_load(patch["patch"]):
                change(document, operation)
    for label in kustomization.get("labels", []):
        only(label, {"pairs", "includeSelectors", "includeTemplates"}, folder)
        if label.get("includeSelectors") or label.get("includeTemplates"):
            raise Unknown(f"{folder}: labels for selectors")
        for document in documents:
            document["metadata"].setdefault("labels", {}).update(label["pairs"])
    for image in kustomization.get("images", []):
        only(image, {"name", "newName", "newTag", "digest"}, folder)
        for document in documents:
            rename(document, image)
    if "namespace" in kustomization:
        for document in documents:
            place(document, kustomization["namespace"])
    names = [identity(document) for document in documents]
    twice = {name for name in names if names.count(name) > 1}
    if twice:
        raise Unknown(f"{folder}: more than one {sorted(twice)}")
    return documents


def only(found, known, folder):
    unknown = set(found) - known
    if unknown:
        raise Unknown(f"{folder}: render.py knows no {', '.join(sorted(unknown))}")


def identity(document):
    metadata = document["metadata"]
    return document["kind"], metadata["name"], metadata.get("namespace")


def generate(documents, kind, wanted, options, folder):
    only(wanted, {"name", "namespace", "behavior", "literals", "files", "options"}, folder)
    if not options.get("disableNameSuffixHash"):
        raise Unknown(f"{folder}: a name with a hash")
    own = wanted.get("options", {})
    only(own, {"labels"}, folder)
    data = dict(literal.split("=", 1) for literal in wanted.get("literals", []))
    for name in wanted.get("files", []):
        with open(os.path.join(folder, name), encoding="utf-8") as text:
            data[os.path.basename(name)] = text.read()
    if kind == "Secret":
        data = {key: base64.b64encode(value.encode()).decode() for key, value in data.items()}
    if wanted.get("behavior", "create") == "merge":
        before = [d for d in documents if d["kind"] == kind and d["metadata"]["name"] == wanted["name"]]
        if len(before) != 1:
            raise Unknown(f"{folder}: {len(before)} {wanted['name']} to merge with")
        before[0].setdefault("data", {}).update(data)
        return
    metadata = {"name": wanted["name"]}
    if "namespace" in wanted:
        metadata["namespace"] = wanted["namespace"]
    labels = {**options.get("labels", {}), **own.get("labels", {})}
    if labels:
        metadata["labels"] = labels
    document = {"apiVersion": "v1", "kind": kind, "metadata": metadata, "data": data}
    if kind == "Secret":
        document["type"] = "Opaque"
    documents.append(document)


def is_target(document, target):
    only(target, {"kind", "name"}, "patches")
    return document["kind"] == target.get("kind", document["kind"]) and re.fullmatch(
        target.get("name", ".*"), document["metadata"]["name"]
    )


def change(document, operation):
    """One operation of RFC 6902."""
    steps = [step.replace("~1", "/").replace("~0", "~") for step in operation["path"].split("/")[1:]]
    place = document
    for step in steps[:-1]:
        place = place[int(step) if isinstance(place, list) else step]
    last, value = steps[-1], copy.deepcopy(operation.get("value"))
    if isinstance(place, list) and last != "-":
        last = int(last)
    match operation["op"]:
        case "add" if isinstance(place, list):
            place.insert(len(place) if last == "-" else last, value)
        case "add":
            place[last] = value
        case "replace":
            # What is not there cannot be replaced.
            place[last]
            place[last] = value
        case "remove":
            del place[last]
        case other:
            raise Unknown(f"render.py knows no {other}")


def rename(document, image):
    spec = document.get("spec", {}).get("template", {}).get("spec", {})
    for container in spec.get("containers", []) + spec.get("initContainers", []):
        # The name ends where a tag or a digest begins; a port belongs to the name.
        name = re.sub(r"(@.*|:[^/]*)$", "", container["image"])
        if name != image["name"]:
            continue
        container["image"] = image.get("newName", name)
        if "digest" in image:
            container["image"] += "@" + image["digest"]
        elif "newTag" in image:
            container["image"] += ":" + str(image["newTag"])


def place(document, namespace):
    if document["kind"] == "Namespace":
        document["metadata"]["name"] = namespace
    elif document["kind"] not in OF_THE_CLUSTER:
        document["metadata"]["namespace"] = namespace


if __name__ == "__main__":
    try:
        main()
    except Unknown as problem:
        sys.exit(str(problem))
