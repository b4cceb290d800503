import java.nio.charset.StandardCharsets;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.concurrent.TimeUnit;
import java.util.stream.Collectors;
import java.util.stream.IntStream;
import org.apache.hadoop.fs.FSDataOutputStream;
import org.apache.hadoop.fs.FileStatus;
import org.apache.hadoop.fs.FileSystem;
import org.apache.hadoop.fs.LocatedFileStatus;
import org.apache.hadoop.fs.Path;
import org.apache.hadoop.fs.RemoteIterator;
import org.apache.hadoop.io.compress.BZip2Codec;
import org.apache.hadoop.io.compress.GzipCodec;
import org.apache.spark.TaskContext;
import org.apache.spark.api.java.JavaRDD;
import org.apache.spark.api.java.JavaSparkContext;
import org.apache.spark.sql.Dataset;
import org.apache.spark.sql.Row;
import org.apache.spark.sql.SparkSession;
import org.apache.spark.sql.streaming.DataStreamWriter;
import org.apache.spark.sql.streaming.Trigger;

/**
 * Spark's ways of writing and reading files, against the file system at a URI.
 *
 * <p>SparkJudge URI [PART OF A NAME]...: a line a case, and at the end how many passed. "SparkJudge URI --stream" is what
 * one case starts as a process of its own, and kills: it runs the streaming query until its standard input ends.
 */
public class SparkJudge {
  static final int ROWS = 60;
  static final int STREAM_FILES = 8;
  static final long WAIT_S_MAX = 120;
  static final String STREAM_OUT = "/stream/out";
  static final String EVENTS = "/events";

  interface Case {
    void run() throws Exception;
  }

  final String uri;
  final SparkSession spark;
  final JavaSparkContext context;
  final FileSystem files;

  SparkJudge(String uri) throws Exception {
    this.uri = uri;
    files = FileSystem.get(new org.apache.hadoop.conf.Configuration()); // what `mobula local --write-config` wrote
    check(files.getUri().equals(java.net.URI.create(uri)), "the configuration names " + files.getUri());
    files.mkdirs(new Path(EVENTS));
    spark = SparkSession.builder().master("local[2,2]").appName("interop")
        .config("spark.sql.warehouse.dir", uri + "/warehouse")
        .config("spark.ui.enabled", "false")
        .config("spark.driver.host", "127.0.0.1").config("spark.driver.bindAddress", "127.0.0.1")
        .config("spark.sql.shuffle.partitions", "2")
        .config("spark.eventLog.enabled", "true").config("spark.eventLog.dir", uri + EVENTS)
        .config("spark.eventLog.rolling.enabled", "true").config("spark.eventLog.rolling.maxFileSize", "10m")
        .getOrCreate();
    context = JavaSparkContext.fromSparkContext(spark.sparkContext());
  }

  public static void main(String[] arguments) throws Exception {
    List<String> wanted = Arrays.asList(arguments).subList(1, arguments.length);
    SparkJudge judge = new SparkJudge(arguments[0]);
    if (wanted.equals(List.of("--stream"))) {
      judge.streamUntilKilled();
      return;
    }
    int failed = judge.runAll(wanted);
    System.exit(failed == 0 ? 0 : 1);
  }

  int runAll(List<String> wanted) {
    Map<String, Case> cases = new LinkedHashMap<>();
    for (String format : List.of("parquet", "csv", "json", "orc")) {
      cases.put(format + ", committer 1", () -> format(format, "1"));
    }
    cases.put("parquet, committer 2", () -> format("parquet", "2"));
    cases.put("text of RDDs, with codecs and globs", this::texts);
    cases.put("binary files", this::binaries);
    cases.put("a table in the warehouse", this::table);
    cases.put("an attempt that fails, and another", this::retry);
    cases.put("a job that fails", this::failure);
    cases.put("a streaming query whose driver is killed", this::streaming);
    cases.put("the event log", this::eventLog); // the last one: it ends Spark
    int passed = 0;
    int failed = 0;
    for (Map.Entry<String, Case> each : cases.entrySet()) {
      if (!wanted.isEmpty() && wanted.stream().noneMatch(each.getKey()::contains)) {
        continue;
      }
      long begun = System.nanoTime();
      try {
        each.getValue().run();
        passed++;
        System.out.printf("ok   %s (%.1f s)%n", each.getKey(), (System.nanoTime() - begun) / 1e9);
      } catch (Throwable problem) {
        failed++;
        System.out.println("FAIL " + each.getKey());
        System.out.println("     " + String.valueOf(problem).lines().limit(5).collect(Collectors.joining(" / ")));
        problem.printStackTrace(); // into the log
      }
    }
    System.out.println(passed + " passed, " + failed + " failed");
    return passed == 0 ? 1 : failed;
  }

  // ---- data sets

  Dataset<Row> rows(String where) {
    return spark.range(ROWS).selectExpr("id", "concat('v', id) as v", "cast(id % 3 as int) as k").where(where);
  }

  /** All save modes on a partitioned data set, one partition of it alone overwritten, and nothing left beside it. */
  void format(String format, String algorithm) throws Exception {
    String path = "/formats/" + format + algorithm;
    write(rows("true"), format, algorithm, "errorifexists", path);
    same(read(format, path), ids("true"));
    refused("PATH_ALREADY_EXISTS", () -> write(rows("true"), format, algorithm, "errorifexists", path));
    write(rows("id < 7"), format, algorithm, "append", path);
    same(read(format, path), ids("true", "id < 7"));
    write(rows("id < 9"), format, algorithm, "overwrite", path);
    same(read(format, path), ids("id < 9"));
    spark.conf().set("spark.sql.sources.partitionOverwriteMode", "dynamic");
    write(rows("k = 1"), format, algorithm, "overwrite", path);
    spark.conf().set("spark.sql.sources.partitionOverwriteMode", "static");
    same(read(format, path), ids("id < 9 and k <> 1", "k = 1"));
    same(read(format, path + "/k={0,2}"), ids("id < 9 and k <> 1"));
    nothingTemporary(path);
    check(files.exists(new Path(path, "_SUCCESS")), "no _SUCCESS");
  }

  void write(Dataset<Row> rows, String format, String algorithm, String mode, String path) {
    rows.repartition(2).write().mode(mode).format(format).partitionBy("k")
        .option("mapreduce.fileoutputcommitter.algorithm.version", algorithm).save(path);
  }

  List<String> read(String format, String path) {
    return sorted(spark.read().schema("id long, v string").format(format).load(path));
  }

  List<String> ids(String... wheres) {
    Dataset<Row> all = rows("false");
    for (String where : wheres) {
      all = all.union(rows(where));
    }
    return sorted(all);
  }

  static List<String> sorted(Dataset<Row> rows) {
    return rows.select("id", "v").collectAsList().stream().map(Row::toString).sorted().collect(Collectors.toList());
  }

  void table() throws Exception {
    spark.sql("create database d");
    rows("true").write().partitionBy("k").saveAsTable("d.t");
    rows("id < 7").write().mode("append").partitionBy("k").saveAsTable("d.t");
    same(sorted(spark.table("d.t")), ids("true", "id < 7"));
    rows("true").write().bucketBy(2, "id").saveAsTable("d.b");
    spark.sql("insert overwrite table d.t partition (k = 1) select id, v from d.b where id < 4");
    check(spark.table("d.t").where("k = 1").count() == 4, "an overwritten partition");
    spark.sql("alter table d.t drop partition (k = 2)");
    check(!files.exists(new Path("/warehouse/d.db/t/k=2")), "a dropped partition is there");
    spark.sql("alter table d.t rename to d.u");
    files.setPermission(new Path("/warehouse/d.db/b"), new org.apache.hadoop.fs.permission.FsPermission((short) 0750));
    spark.sql("truncate table d.b");
    check(spark.table("d.b").count() == 0, "a truncated table");
    FileStatus truncated = files.getFileStatus(new Path("/warehouse/d.db/b"));
    check(truncated.getPermission().toShort() == 0750, "the mode of a truncated table is kept");
    spark.sql("drop table d.u");
    check(!files.exists(new Path("/warehouse/d.db/u")), "a dropped table is there");
    spark.sql("drop database d cascade");
  }

  // ---- RDDs

  void texts() throws Exception {
    List<String> lines = IntStream.range(0, 1000).mapToObj(i -> "line " + i).sorted().collect(Collectors.toList());
    JavaRDD<String> rdd = context.parallelize(lines, 4);
    rdd.saveAsTextFile("/texts/plain");
    rdd.saveAsTextFile("/texts/gzip", GzipCodec.class);
    rdd.saveAsTextFile("/texts/bzip2", BZip2Codec.class);
    rdd.saveAsObjectFile("/objects");
    for (String name : List.of("plain", "gzip", "bzip2")) {
      same(context.textFile("/texts/" + name).collect().stream().sorted().collect(Collectors.toList()), lines);
    }
    check(context.wholeTextFiles("/texts/*/part-0000[02]*").count() == 6, "files of a glob");
    check(context.textFile("/texts/{plain,gzip}/part-*").count() == 2000, "lines of two folders");
    check(context.objectFile("/objects").count() == 1000, "a sequence file");
    refused("already exists", () -> rdd.saveAsTextFile("/texts/plain"));
    context.setCheckpointDir("/checkpoints");
    JavaRDD<String> again = rdd.map(line -> line + "!");
    again.checkpoint();
    check(again.count() == 1000 && again.isCheckpointed() && again.count() == 1000, "a checkpoint");
  }

  void binaries() throws Exception {
    byte[] bytes = new byte[300_000];
    new java.util.Random(1).nextBytes(bytes);
    for (String name : List.of("a.bin", "b.bin", "c.not")) {
      try (FSDataOutputStream out = files.create(new Path("/binaries/" + name), true, 4096, (short) 3, 65536)) {
        out.write(bytes);
      }
    }
    List<Row> read = spark.read().format("binaryFile").option("pathGlobFilter", "*.bin").load("/binaries")
        .orderBy("path").collectAsList();
    check(read.size() == 2, "files of a filter");
    for (Row row : read) {
      check(Arrays.equals(row.getAs("content"), bytes), "what is in " + row.getAs("path"));
    }
    check(context.binaryRecords("/binaries", 1000).count() == 900, "records");
  }

  /** What it had written when it broke off is taken back, and the second attempt's is what counts. */
  void retry() throws Exception {
    context.parallelize(IntStream.range(0, 400).boxed().collect(Collectors.toList()), 2)
        .map(i -> {
          check(i != 390 || TaskContext.get().attemptNumber() > 0, "the first attempt");
          return String.valueOf(i);
        }).saveAsTextFile("/retry");
    check(context.textFile("/retry").distinct().count() == 400, "each line");
    check(context.textFile("/retry").count() == 400, "each line once");
    nothingTemporary("/retry");
  }

  void failure() throws Exception {
    JavaRDD<String> bad = context.parallelize(List.of(1, 2, 3, 0), 2).map(i -> String.valueOf(6 / i));
    refused("/ by zero", () -> bad.saveAsTextFile("/failure"));
    nothingTemporary("/failure");
    check(!files.exists(new Path("/failure/_SUCCESS")), "a job that failed has _SUCCESS");
  }

  // ---- streaming

  DataStreamWriter<Row> query() {
    return spark.readStream().schema("id long, v string, k int").option("maxFilesPerTrigger", 1).json("/stream/in")
        .writeStream().format("parquet").partitionBy("k").option("path", STREAM_OUT)
        .option("checkpointLocation", "/stream/checkpoint");
  }

  void streamUntilKilled() throws Exception {
    Thread lifeline = new Thread(() -> {
      try {
        while (System.in.read() >= 0) {}
      } catch (java.io.IOException gone) {
        // as good as its end
      }
      Runtime.getRuntime().halt(1);
    });
    lifeline.setDaemon(true);
    lifeline.start();
    query().trigger(Trigger.ProcessingTime(100)).start().awaitTermination();
  }

  /** A driver killed between two batches, or within one; the next goes on from its checkpoint, and each row is there once. */
  void streaming() throws Exception {
    rows("true").repartition(STREAM_FILES).write().json("/stream/in");
    List<String> command = new ArrayList<>(List.of(System.getProperty("java.home") + "/bin/java"));
    command.addAll(java.lang.management.ManagementFactory.getRuntimeMXBean().getInputArguments());
    command.addAll(List.of("-cp", System.getProperty("java.class.path"), "SparkJudge", uri, "--stream"));
    Process driver = new ProcessBuilder(command).redirectErrorStream(true)
        .redirectOutput(ProcessBuilder.Redirect.DISCARD).start();
    try {
      long end = System.nanoTime() + TimeUnit.SECONDS.toNanos(WAIT_S_MAX);
      while (!files.exists(new Path("/stream/checkpoint/commits/1"))) {
        check(driver.isAlive() && System.nanoTime() < end, "the first driver committed nothing");
        Thread.sleep(20);
      }
    } finally {
      driver.destroyForcibly().waitFor();
    }
    check(!files.exists(new Path("/stream/checkpoint/commits/" + (STREAM_FILES - 1))), "killed too late");
    query().trigger(Trigger.AvailableNow()).start().awaitTermination();
    same(sorted(spark.read().parquet(STREAM_OUT)), ids("true"));
  }

  /** Written with hflush all the while; Spark renames the status file at its end. */
  void eventLog() throws Exception {
    Path folder = new Path(EVENTS, "eventlog_v2_" + context.sc().applicationId());
    String status = "appstatus_" + context.sc().applicationId();
    check(files.exists(new Path(folder, status + ".inprogress")), "Spark runs, and its log does not say so");
    context.parallelize(List.of(1)).count();
    spark.stop();
    check(files.exists(new Path(folder, status)), "the status file was not renamed");
    FileStatus[] logs = files.globStatus(new Path(folder, "events_*"));
    check(logs.length > 0, "no events");
    byte[] last = new byte[(int) logs[logs.length - 1].getLen()];
    try (var in = files.open(logs[logs.length - 1].getPath())) {
      in.readFully(0, last);
    }
    String text;
    try (var in = new com.github.luben.zstd.ZstdInputStream(new java.io.ByteArrayInputStream(last))) {
      text = new String(in.readAllBytes(), StandardCharsets.UTF_8);
    }
    check(text.contains("SparkListenerApplicationEnd"), "the log lacks its end");
  }

  // ---- what must hold

  void nothingTemporary(String path) throws Exception {
    RemoteIterator<LocatedFileStatus> all = files.listFiles(new Path(path), true);
    while (all.hasNext()) {
      String name = all.next().getPath().toString();
      check(!name.contains("_temporary") && !name.contains(".spark-staging"), name + " was left");
    }
    check(!files.exists(new Path(path, "_temporary")), "_temporary was left");
  }

  static void check(boolean holds, String what) {
    if (!holds) {
      throw new AssertionError(what);
    }
  }

  static void same(List<String> seen, List<String> wanted) {
    check(seen.equals(wanted), seen.size() + " rows instead of " + wanted.size() + ", or others: " + seen);
  }

  static void refused(String words, Case attempt) throws Exception {
    try {
      attempt.run();
    } catch (Exception problem) {
      for (Throwable cause = problem; cause != null; cause = cause.getCause()) {
        if (String.valueOf(cause).contains(words)) {
          return;
        }
      }
      throw problem;
    }
    throw new AssertionError("not refused");
  }
}
