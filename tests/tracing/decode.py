"""Reads bodies of OTLP's JSON encoding, one a line, with OpenTelemetry's own definitions, and prints their spans, one a line.

A field that OTLP does not know, or that has another type there, ends it with an error.
"""
import base64
import json
import re
import sys

from google.protobuf import json_format
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

IDS = {"traceId": 32, "spanId": 16, "parentSpanId": 16}


def as_protobuf_has_it(node):
    """OTLP writes the numbers of spans in hexadecimal, where JSON of protocol buffers has base64."""
    if isinstance(node, list):
        return [as_protobuf_has_it(one) for one in node]
    if not isinstance(node, dict):
        return node
    out = {}
    for key, value in node.items():
        if key in IDS:
            assert re.fullmatch("[0-9a-f]{%d}" % IDS[key], value) and value.strip("0"), (key, value)
            value = base64.b64encode(bytes.fromhex(value)).decode()
        out[key] = as_protobuf_has_it(value)
    return out


def value_of(value):
    kind = value.WhichOneof("value")
    if kind == "array_value":
        return [value_of(one) for one in value.array_value.values]
    return getattr(value, kind)


def attributes(of):
    names = [one.key for one in of]
    assert len(names) == len(set(names)), names
    return {one.key: value_of(one.value) for one in of}


for line in sys.stdin:
    message = json_format.ParseDict(as_protobuf_has_it(json.loads(line)), ExportTraceServiceRequest())
    # Once through the encoding that collectors speak among themselves.
    request = ExportTraceServiceRequest.FromString(message.SerializeToString())
    for resource in request.resource_spans:
        for scope in resource.scope_spans:
            assert scope.scope.name == "hotring", scope.scope
            for span in scope.spans:
                print(json.dumps({
                    "trace": span.trace_id.hex(),
                    "id": span.span_id.hex(),
                    "parent": span.parent_span_id.hex(),
                    "name": span.name,
                    "kind": span.kind,
                    "start": span.start_time_unix_nano,
                    "end": span.end_time_unix_nano,
                    "failed": span.status.code == 2,
                    "attributes": attributes(span.attributes),
                    "resource": attributes(resource.resource.attributes),
                }))
