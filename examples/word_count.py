"""Word count: lines of text in, the running count of each word out.

streamlib broker topic lines word-counts --partitions 4
streamlib run examples/word_count.py --workers 2
echo 'to be or not to be' | streamlib produce lines
streamlib consume word-counts --value int
"""

from streamlib import StreamsBuilder

builder = StreamsBuilder()
(
    builder.stream("lines", key=str, value=str)
    .flat_map_values(lambda line: line.lower().split())
    # The words of a line belong to different tasks: each word goes to the one that counts it, by way of an
    # internal topic.
    .group_by(lambda _, word: word, key=str)
    # The counts are kept in RocksDB on this machine and in a changelog in Kafka. Input offsets, counts and output
    # become visible in one transaction, so a crash at any moment neither loses a word nor counts one twice.
    .count(store="counts")
    .to_stream()
    .to("word-counts")
)
topology = builder.build()
