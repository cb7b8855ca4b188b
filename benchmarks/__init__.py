"""Benchmarks against a real broker; README.md tells how to read them.

python -m benchmarks.latency       from a producer's call to a read_committed consumer, over rates
python -m benchmarks.throughput    records per second, CPU seconds per million records, peak memory
"""
