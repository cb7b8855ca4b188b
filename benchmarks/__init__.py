"""Benchmarks against a real broker; README.md tells how to read them.

python -m benchmarks.latency       from a producer's call to a read_committed consumer, over rates
python -m benchmarks.throughput    records per second, CPU seconds per million records, peak memory
python -m benchmarks.compare       the same jobs on Kafka Streams and other libraries
python -m benchmarks.scaling       what a record costs as keys, partitions, workers, bytes grow
python -m benchmarks.profile       where the time of a worker goes
python -m benchmarks.restore       records per second at which stores come back from their changelogs
"""
