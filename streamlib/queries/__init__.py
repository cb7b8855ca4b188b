"""Interactive queries: what is in the stores of a running application, and which worker can tell.

    metadata.py    who has which stores; who has a key
    parts.py       the parts of a store that a question is about, and reading one
    views.py       what `KafkaStreams.store` returns
    listing.py     rows as JSON, page by page
    text.py        keys from text, values as JSON

What may be answered by this worker is decided in `runtime/local_stores.py`; HTTP is in `web/stores/`.
"""
