import com.fasterxml.jackson.core.JsonProcessingException;
import com.fasterxml.jackson.databind.ObjectMapper;
import com.fasterxml.jackson.databind.ObjectReader;
import com.fasterxml.jackson.databind.ObjectWriter;
import java.io.IOException;
import java.time.Duration;
import java.util.Map;
import java.util.Properties;
import java.util.concurrent.CountDownLatch;
import org.apache.kafka.clients.consumer.ConsumerConfig;
import org.apache.kafka.common.errors.SerializationException;
import org.apache.kafka.common.serialization.Serde;
import org.apache.kafka.common.serialization.Serdes;
import org.apache.kafka.streams.KafkaStreams;
import org.apache.kafka.streams.KeyValue;
import org.apache.kafka.streams.StreamsBuilder;
import org.apache.kafka.streams.StreamsConfig;
import org.apache.kafka.streams.Topology;
import org.apache.kafka.streams.errors.StreamsUncaughtExceptionHandler.StreamThreadExceptionResponse;
import org.apache.kafka.streams.kstream.Consumed;
import org.apache.kafka.streams.kstream.Grouped;
import org.apache.kafka.streams.kstream.Joined;
import org.apache.kafka.streams.kstream.KGroupedStream;
import org.apache.kafka.streams.kstream.KStream;
import org.apache.kafka.streams.kstream.KTable;
import org.apache.kafka.streams.kstream.Materialized;
import org.apache.kafka.streams.kstream.Produced;
import org.apache.kafka.streams.kstream.TimeWindows;

/** The jobs of benchmarks.compare on Kafka Streams. What to do is in the environment; ends on SIGTERM. */
public final class ComparedJobs {
  private static final Duration WINDOW = Duration.ofMinutes(1);
  private static final Map<String, String> ENV = System.getenv();

  /** The input: about 100 bytes as JSON. */
  public static final class Event {
    public String user;
    public String action;
    public double amount;
    public long number;
    public String note;
  }

  /** A row of the table. */
  public static final class Profile {
    public String city;
  }

  /** The output of the window count. */
  public static final class WindowCount {
    public long start;
    public long count;

    static WindowCount of(long start, long count) {
      WindowCount result = new WindowCount();
      result.start = start;
      result.count = count;
      return result;
    }
  }

  /** The output of the join. */
  public static final class Enriched {
    public long number;
    public double amount;
    public String city;

    static Enriched of(Event event, Profile profile) {
      Enriched result = new Enriched();
      result.number = event.number;
      result.amount = event.amount;
      result.city = profile.city;
      return result;
    }
  }

  private ComparedJobs() {}

  public static void main(String[] arguments) throws InterruptedException {
    KafkaStreams streams = new KafkaStreams(topology(), settings());
    CountDownLatch over = new CountDownLatch(1);
    streams.setUncaughtExceptionHandler(
        error -> {
          error.printStackTrace();
          over.countDown();
          return StreamThreadExceptionResponse.SHUTDOWN_CLIENT;
        });
    Runtime.getRuntime().addShutdownHook(new Thread(() -> streams.close(Duration.ofSeconds(20))));
    streams.start();
    over.await();
    System.exit(1);
  }

  private static Properties settings() {
    Properties settings = new Properties();
    settings.put(StreamsConfig.APPLICATION_ID_CONFIG, ENV.get("BENCHMARK_APPLICATION"));
    settings.put(StreamsConfig.BOOTSTRAP_SERVERS_CONFIG, ENV.get("BENCHMARK_BOOTSTRAP_SERVERS"));
    settings.put(StreamsConfig.PROCESSING_GUARANTEE_CONFIG, ENV.get("BENCHMARK_GUARANTEE"));
    settings.put(StreamsConfig.COMMIT_INTERVAL_MS_CONFIG, ENV.get("BENCHMARK_COMMIT_INTERVAL_MS"));
    settings.put(StreamsConfig.STATESTORE_CACHE_MAX_BYTES_CONFIG, ENV.get("BENCHMARK_CACHE_BYTES"));
    settings.put(StreamsConfig.STATE_DIR_CONFIG, ENV.get("BENCHMARK_STATE_DIR"));
    settings.put(StreamsConfig.NUM_STREAM_THREADS_CONFIG, 1);
    settings.put(ConsumerConfig.AUTO_OFFSET_RESET_CONFIG, "earliest");
    return settings;
  }

  private static Topology topology() {
    StreamsBuilder builder = new StreamsBuilder();
    Serde<String> text = Serdes.String();
    Serde<Event> event = json(Event.class);
    KStream<String, Event> events = builder.stream(ENV.get("BENCHMARK_INPUT"), Consumed.with(text, event));
    String output = ENV.get("BENCHMARK_OUTPUT");
    switch (ENV.get("BENCHMARK_JOB")) {
      case "passthrough":
        events.to(output, Produced.with(text, event));
        break;
      case "keyed-count":
        grouped(events).count(Materialized.as("counts")).toStream().to(output, Produced.with(text, Serdes.Long()));
        break;
      case "window-count":
        windows(events).to(output, Produced.with(text, json(WindowCount.class)));
        break;
      case "table-join":
        KTable<String, Profile> profiles =
            builder.table(
                ENV.get("BENCHMARK_TABLE"), Consumed.with(text, json(Profile.class)), Materialized.as("profiles"));
        events
            .join(profiles, Enriched::of, Joined.with(text, event, json(Profile.class)))
            .to(output, Produced.with(text, json(Enriched.class)));
        break;
      default:
        throw new IllegalArgumentException("no such job: " + ENV.get("BENCHMARK_JOB"));
    }
    return builder.build();
  }

  private static KGroupedStream<String, Event> grouped(KStream<String, Event> events) {
    return events.groupByKey(Grouped.with(Serdes.String(), json(Event.class)));
  }

  private static KStream<String, WindowCount> windows(KStream<String, Event> events) {
    return grouped(events)
        .windowedBy(TimeWindows.ofSizeWithNoGrace(WINDOW))
        .count(Materialized.as("counts"))
        .toStream()
        .map((key, count) -> KeyValue.pair(key.key(), WindowCount.of(key.window().start(), count)));
  }

  /** Jackson with its readers and writers bound once. */
  private static <T> Serde<T> json(Class<T> type) {
    ObjectMapper mapper = new ObjectMapper();
    ObjectReader reader = mapper.readerFor(type);
    ObjectWriter writer = mapper.writerFor(type);
    return Serdes.serdeFrom((topic, value) -> write(writer, value), (topic, bytes) -> read(reader, bytes));
  }

  private static byte[] write(ObjectWriter writer, Object value) {
    try {
      return value == null ? null : writer.writeValueAsBytes(value);
    } catch (JsonProcessingException error) {
      throw new SerializationException(error);
    }
  }

  private static <T> T read(ObjectReader reader, byte[] bytes) {
    try {
      return bytes == null ? null : reader.readValue(bytes);
    } catch (IOException error) {
      throw new SerializationException(error);
    }
  }
}
