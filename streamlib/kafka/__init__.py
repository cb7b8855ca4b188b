"""The ports of the runtime on a real Kafka cluster. Only this package imports aiokafka."""
