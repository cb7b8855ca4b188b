"""Serdes with a schema registry: Avro, Protobuf and JSON Schema.

    pip install 'streamlib[avro]'       # or [protobuf], [json-schema], [schemas] for all of them

Nothing of this is imported by `import streamlib`.
"""

from streamlib.schemas.registry import SchemaRegistry, Subject, SubjectStrategy

__all__ = ["SchemaRegistry", "Subject", "SubjectStrategy"]
