"""Shows others what an application measures: Prometheus, OpenTelemetry, and whoever asks whether it is well.

Each module needs its extra, and is imported by those who use it only:

    streamlib.monitoring.endpoint        /metrics, /health and /ready over HTTP     streamlib[prometheus]
    streamlib.monitoring.prometheus      a collector for a registry of one's own    streamlib[prometheus]
    streamlib.monitoring.opentelemetry   instruments of OpenTelemetry               streamlib[opentelemetry]
    streamlib.monitoring.tracing         traces of records, for OpenTelemetry       streamlib[opentelemetry]
"""
