"""User processors."""

from __future__ import annotations

from typing import Any

from streamlib.engine.context import OpenProcessor, ProcessorContext
from streamlib.engine.inputs import NodeFn
from streamlib.engine.operators.site import Site, user_error
from streamlib.errors import StreamsError
from streamlib.records import FixedKeyRecord, Headers, Record
from streamlib.topology import operators as op


def compile_process(operator: op.Process, site: Site) -> NodeFn:
    """One instance per task. It is initialised when all of the task is compiled, for `init` may forward."""
    name = site.name
    try:
        processor = operator.supplier()
    except Exception as error:
        raise user_error(name, None, error) from error
    stores = {store: site.store(store) for store in site.stores}
    readable = {store: opened.rows for store, opened in (*site.work.global_stores.items(), *stores.items())}
    context = ProcessorContext(site, readable, keeps_key=operator.keeps_key)
    site.work.processors.append(OpenProcessor(name, processor, context))
    process = processor.process
    make_record = FixedKeyRecord if operator.keeps_key else Record

    def node(key: Any, value: Any, timestamp: int, headers: Headers) -> None:
        # A node is never entered twice at once (no cycles within a task), so this needs no restoring afterwards.
        context.record = record = make_record(key, value, timestamp, headers)
        context.timestamp = timestamp
        try:
            process(record)
        except StreamsError:
            raise  # from a node downstream, or from a store: it names its place already
        except Exception as error:
            raise user_error(name, key, error) from error

    return node
