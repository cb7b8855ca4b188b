"""The same jobs on streamlib, on Kafka Streams and on other Python libraries, in one run on one broker.

    python -m benchmarks.compare --help

__main__.py   what is run, in which order
data.py       the input records, made from their numbers
jobs.py       the jobs, and for each an oracle that knows what has to come out
peers.py      the libraries: how each is installed and started
java.py       Kafka Streams: its jars, and the compiled program of benchmarks/java
programs/     the jobs as each Python library has them written
measure.py    one run: a process, its progress by committed offsets, its cost by /proc
latency.py    one run at a steady rate
report.py     tables, ratios, plots
"""
