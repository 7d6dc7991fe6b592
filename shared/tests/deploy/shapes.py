"""The shapes of kinds that other operators define, as far as our manifests use them: JSON Schema, in the terms of their published definitions.

Whoever uses another field looks it up there and adds it here, so that a typing mistake is found before the cluster drops it.
"""

STRING = {"type": "string", "minLength": 1}
COUNT = {"type": "integer", "minimum": 0}
FLAG = {"type": "boolean"}
STRINGS = {"type": "object", "additionalProperties": {"type": "string"}}
# As Prometheus writes it: 15s, 1h30m.
DURATION = {"type": "string", "pattern": r"^(0|([0-9]+(y|w|d|h|m|s|ms))+)$"}
QUANTITY = {"type": ["string", "integer"], "pattern": r"^[0-9]+(\.[0-9]+)?(m|k|M|G|T|[KMGT]i)?$"}
QUANTITIES = {"type": "object", "additionalProperties": QUANTITY}
DNS_NAME = {"type": "string", "pattern": r"^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$"}


def one_of(*values):
    return {"enum": list(values)}


def some(items):
    return {"type": "array", "items": items, "minItems": 1}


def fields(required=(), **properties):
    """An object; a trailing underscore stands for a name that Python keeps for itself."""
    properties = {name.rstrip("_"): shape for name, shape in properties.items()}
    return {"type": "object", "required": list(required), "properties": properties, "additionalProperties": False}


NAMED = fields(["name"], name=DNS_NAME)
KEY_OF_SECRET = fields(["name", "key"], name=DNS_NAME, key=STRING)
SELECTOR = fields(["matchLabels"], matchLabels=STRINGS)
SCRAPED = some(fields(["port"], port=STRING, path=STRING, interval=DURATION))
SCALING = fields(
    stabilizationWindowSeconds=COUNT,
    policies=some(
        fields(["type", "value", "periodSeconds"], type=one_of("Pods", "Percent"), value=COUNT, periodSeconds=COUNT)
    ),
)

SHAPES = {
    "postgresql.cnpg.io/v1/Cluster": fields(
        ["instances", "storage"],
        instances={"type": "integer", "minimum": 1},
        imageName=STRING,
        postgresql=fields(
            synchronous=fields(
                ["method", "number"],
                method=one_of("any", "first"),
                number={"type": "integer", "minimum": 1},
                dataDurability=one_of("required", "preferred"),
            ),
            parameters=STRINGS,
        ),
        bootstrap=fields(
            initdb=fields(
                database=STRING,
                owner=STRING,
                secret=NAMED,
                postInitSQL=some(STRING),
                postInitApplicationSQL=some(STRING),
            )
        ),
        storage=fields(["size"], size=QUANTITY),
        walStorage=fields(["size"], size=QUANTITY),
        resources=fields(requests=QUANTITIES, limits=QUANTITIES),
        affinity=fields(topologyKey=STRING),
        monitoring=fields(enablePodMonitor=FLAG),
        backup=fields(
            retentionPolicy={"type": "string", "pattern": "^[1-9][0-9]*[dwm]$"},
            barmanObjectStore=fields(
                ["destinationPath"],
                destinationPath=STRING,
                s3Credentials=fields(accessKeyId=KEY_OF_SECRET, secretAccessKey=KEY_OF_SECRET),
                wal=fields(compression=one_of("bzip2", "gzip", "lz4", "snappy", "xz", "zstd")),
            ),
        ),
    ),
    "postgresql.cnpg.io/v1/ScheduledBackup": fields(
        ["schedule", "cluster"],
        # Six fields: seconds come first.
        schedule={"type": "string", "pattern": r"^\S+( \S+){5}$"},
        cluster=NAMED,
        backupOwnerReference=one_of("none", "self", "cluster"),
    ),
    "postgresql.cnpg.io/v1/Pooler": fields(
        ["cluster", "pgbouncer"],
        cluster=NAMED,
        instances=COUNT,
        type=one_of("rw", "ro", "r"),
        pgbouncer=fields(poolMode=one_of("session", "transaction"), parameters=STRINGS),
    ),
    "external-secrets.io/v1/ExternalSecret": fields(
        ["secretStoreRef", "target", "data"],
        refreshInterval=DURATION,
        secretStoreRef=fields(["name"], name=DNS_NAME, kind=one_of("SecretStore", "ClusterSecretStore")),
        target=NAMED,
        data=some(
            fields(
                ["secretKey", "remoteRef"],
                secretKey={"type": "string", "pattern": "^[-._a-zA-Z0-9]+$"},
                remoteRef=fields(["key"], key=STRING, property=STRING),
            )
        ),
    ),
    "keda.sh/v1alpha1/ScaledObject": fields(
        ["scaleTargetRef", "triggers"],
        scaleTargetRef=NAMED,
        pollingInterval=COUNT,
        cooldownPeriod=COUNT,
        minReplicaCount=COUNT,
        maxReplicaCount=COUNT,
        fallback=fields(["failureThreshold", "replicas"], failureThreshold=COUNT, replicas=COUNT),
        advanced=fields(
            horizontalPodAutoscalerConfig=fields(behavior=fields(scaleUp=SCALING, scaleDown=SCALING)),
        ),
        triggers=some(
            fields(
                ["type", "metadata"],
                type=STRING,
                name=STRING,
                metricType=one_of("AverageValue", "Value", "Utilization"),
                # Numbers, too, are written as text.
                metadata=STRINGS,
            )
        ),
    ),
    "monitoring.coreos.com/v1/ServiceMonitor": fields(["selector", "endpoints"], selector=SELECTOR, endpoints=SCRAPED),
    "monitoring.coreos.com/v1/PodMonitor": fields(
        ["selector", "podMetricsEndpoints"], selector=SELECTOR, podMetricsEndpoints=SCRAPED
    ),
    "monitoring.coreos.com/v1/PrometheusRule": fields(
        ["groups"],
        groups=some(
            fields(
                ["name", "rules"],
                name=STRING,
                interval=DURATION,
                rules=some(
                    fields(
                        ["expr"],
                        alert=STRING,
                        record=STRING,
                        expr=STRING,
                        for_=DURATION,
                        labels=STRINGS,
                        annotations=STRINGS,
                    )
                ),
            )
        ),
    ),
}
