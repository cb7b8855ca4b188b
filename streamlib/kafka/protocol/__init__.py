"""The Kafka wire protocol: message tables and a codec compiled from them.

`schema` has the words the tables are written in, `messages` the tables, `codec` compiles them (`primitives`
has the basic types), `request` puts a message on an aiokafka connection.
"""
