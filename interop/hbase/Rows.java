import java.io.BufferedReader;
import java.io.IOException;
import java.io.InputStreamReader;
import java.nio.charset.StandardCharsets;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.BitSet;
import java.util.List;
import org.apache.hadoop.conf.Configuration;
import org.apache.hadoop.hbase.HBaseConfiguration;
import org.apache.hadoop.hbase.RegionMetrics;
import org.apache.hadoop.hbase.ServerName;
import org.apache.hadoop.hbase.TableName;
import org.apache.hadoop.hbase.client.Admin;
import org.apache.hadoop.hbase.client.ColumnFamilyDescriptorBuilder;
import org.apache.hadoop.hbase.client.Connection;
import org.apache.hadoop.hbase.client.ConnectionFactory;
import org.apache.hadoop.hbase.client.Put;
import org.apache.hadoop.hbase.client.Result;
import org.apache.hadoop.hbase.client.ResultScanner;
import org.apache.hadoop.hbase.client.Scan;
import org.apache.hadoop.hbase.client.Table;
import org.apache.hadoop.hbase.client.TableDescriptorBuilder;
import org.apache.hadoop.hbase.util.Bytes;

/**
 * A client of HBase that does what lines on its standard input say, and answers each with one line: "ok", "ok VALUE" or
 * "failed CLASS: MESSAGE". Arguments: settings as KEY=VALUE. It writes in threads of its own, and knows which rows of which
 * table were acknowledged; what a row holds follows from its number alone.
 */
public final class Rows {
  private static final byte[] FAMILY = Bytes.toBytes("f");
  private static final byte[] COLUMN = Bytes.toBytes("c");
  private static final int VALUE_BYTES = 200;
  private static final int ROWS_AT_ONCE = 20;
  private static final int WRITERS = 4;

  private final Configuration conf;
  private Connection connection;
  private Writing writing;

  private Rows(Configuration conf) { this.conf = conf; }

  public static void main(String[] args) throws Exception {
    Configuration conf = HBaseConfiguration.create();
    for (String setting : args) conf.set(setting.replaceAll("=.*", ""), setting.substring(setting.indexOf('=') + 1));
    Rows rows = new Rows(conf);
    BufferedReader lines = new BufferedReader(new InputStreamReader(System.in, StandardCharsets.UTF_8));
    System.out.println("ready");
    for (String line = lines.readLine(); line != null; line = lines.readLine()) {
      System.out.println(rows.answer(line.split(" ")));
    }
    System.exit(0);
  }

  private String answer(String[] words) {
    try {
      return "ok " + carryOut(words);
    } catch (Exception problem) {
      problem.printStackTrace();
      return "failed " + problem.getClass().getName() + ": " + String.valueOf(problem.getMessage()).replace('\n', ' ');
    }
  }

  private Object carryOut(String[] words) throws Exception {
    if (connection == null) connection = ConnectionFactory.createConnection(conf);
    TableName table = words.length > 1 ? TableName.valueOf(words[1]) : null;
    try (Admin admin = connection.getAdmin()) {
      switch (words[0]) {
        case "servers": return admin.getClusterMetrics().getLiveServerMetrics().size();
        case "create":
          admin.createTable(TableDescriptorBuilder.newBuilder(table)
              .setColumnFamily(ColumnFamilyDescriptorBuilder.of(FAMILY)).build(),
              new byte[][] {key(20_000), key(40_000)});
          return "";
        case "begin": // TABLE FIRST END: writes these rows from now on
          writing = new Writing(table, Integer.parseInt(words[2]), Integer.parseInt(words[3]));
          return "";
        case "acknowledged": return writing.count();
        case "ended": return writing.ended();
        case "failure": return String.valueOf(writing.failure);
        case "end": writing.stopped = true; return "";
        case "flush": admin.flush(table); return "";
        case "compact": admin.majorCompact(table); return "";
        case "compacting": return admin.getCompactionState(table);
        case "files": return files(admin, table);
        case "locality": return locality(admin, table);
        case "check": return check(table); // that every row acknowledged is there, and each row right: how many there are
        case "snapshot": admin.snapshot(words[2], table); return "";
        case "clone": admin.cloneSnapshot(words[2], table); return "";
        case "restore": admin.restoreSnapshot(words[2]); return "";
        case "truncate": admin.disableTable(table); admin.truncateTable(table, true); return "";
        case "disable": admin.disableTable(table); return "";
        case "enable": admin.enableTable(table); return "";
        case "drop": admin.disableTable(table); admin.deleteTable(table); return "";
        case "forget": admin.deleteSnapshot(words[1]); return "";
        case "roll":
          for (ServerName server : admin.getRegionServers()) admin.rollWALWriter(server);
          return "";
        case "count": return count(table);
        default: throw new IllegalArgumentException(words[0]);
      }
    }
  }

  private List<RegionMetrics> regions(Admin admin, TableName table) throws IOException {
    List<RegionMetrics> all = new ArrayList<>();
    for (ServerName server : admin.getRegionServers()) all.addAll(admin.getRegionMetrics(server, table));
    return all;
  }

  private int files(Admin admin, TableName table) throws IOException {
    return regions(admin, table).stream().mapToInt(RegionMetrics::getStoreFileCount).sum();
  }

  private float locality(Admin admin, TableName table) throws IOException {
    float least = 1;
    for (RegionMetrics region : regions(admin, table)) {
      if (region.getStoreFileCount() > 0) least = Math.min(least, region.getDataLocality());
    }
    return least;
  }

  private int count(TableName name) throws IOException {
    int rows = 0;
    try (Table table = connection.getTable(name); ResultScanner scanner = table.getScanner(new Scan().setCaching(500))) {
      for (Result ignored : scanner) rows++;
    }
    return rows;
  }

  private int check(TableName name) throws IOException {
    BitSet missing = writing.acknowledged();
    int rows = 0;
    try (Table table = connection.getTable(name); ResultScanner scanner = table.getScanner(new Scan().setCaching(500))) {
      for (Result row : scanner) {
        int number = Integer.parseInt(Bytes.toString(row.getRow()));
        if (!Arrays.equals(row.getValue(FAMILY, COLUMN), value(number))) throw new IOException("row " + number + " is wrong");
        missing.clear(number);
        rows++;
      }
    }
    if (!missing.isEmpty()) {
      throw new IOException(missing.cardinality() + " acknowledged rows are missing, the first is " + missing.nextSetBit(0));
    }
    return rows;
  }

  private static byte[] key(int number) { return Bytes.toBytes(String.format("%08d", number)); }

  private static byte[] value(int number) {
    byte[] value = new byte[VALUE_BYTES];
    for (int at = 0; at < value.length; at++) value[at] = (byte) ((number * 31 + at * (number % 7 + 1)) % 251);
    return value;
  }

  /** Rows being written by several threads; those of older calls stay known. */
  private static final BitSet ACKNOWLEDGED = new BitSet();

  private final class Writing {
    final TableName name;
    final List<Thread> threads = new ArrayList<>();
    volatile boolean stopped;
    volatile Throwable failure;

    Writing(TableName name, int first, int end) {
      this.name = name;
      if (first == 0) synchronized (ACKNOWLEDGED) { ACKNOWLEDGED.clear(); }
      for (int writer = 0; writer < WRITERS; writer++) {
        int from = first + writer * ROWS_AT_ONCE;
        Thread thread = new Thread(() -> write(from, end));
        threads.add(thread);
        thread.start();
      }
    }

    private void write(int from, int end) {
      try (Table table = connection.getTable(name)) {
        for (int start = from; start < end && !stopped; start += WRITERS * ROWS_AT_ONCE) {
          int stop = Math.min(end, start + ROWS_AT_ONCE);
          List<Put> puts = new ArrayList<>();
          for (int row = start; row < stop; row++) puts.add(new Put(key(row)).addColumn(FAMILY, COLUMN, value(row)));
          table.put(puts);
          synchronized (ACKNOWLEDGED) { ACKNOWLEDGED.set(start, stop); }
        }
      } catch (Throwable problem) {
        problem.printStackTrace();
        failure = problem;
      }
    }

    int count() { synchronized (ACKNOWLEDGED) { return ACKNOWLEDGED.cardinality(); } }
    BitSet acknowledged() { synchronized (ACKNOWLEDGED) { return (BitSet) ACKNOWLEDGED.clone(); } }
    boolean ended() throws Exception {
      if (failure != null) throw new IOException("a writer failed: " + failure);
      return threads.stream().noneMatch(Thread::isAlive);
    }
  }
}
