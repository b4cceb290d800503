import java.io.BufferedReader;
import java.io.IOException;
import java.io.InputStreamReader;
import java.net.URI;
import java.nio.charset.StandardCharsets;
import java.util.Arrays;
import java.util.HashMap;
import java.util.Map;
import java.util.zip.CRC32;
import org.apache.hadoop.conf.Configuration;
import org.apache.hadoop.fs.BlockLocation;
import org.apache.hadoop.fs.FSDataInputStream;
import org.apache.hadoop.fs.FSDataOutputStream;
import org.apache.hadoop.fs.FileStatus;
import org.apache.hadoop.fs.FileSystem;
import org.apache.hadoop.fs.Path;
import org.apache.hadoop.hdfs.DistributedFileSystem;
import org.apache.hadoop.hdfs.protocol.HdfsConstants.DatanodeReportType;

/**
 * A Hadoop client that does what lines on its standard input say, and answers each with one line:
 * "ok", "ok VALUE" or "failed CLASS: MESSAGE". Arguments: the cluster's URI, and settings as KEY=VALUE.
 *
 * <p>What a file holds follows from its name alone: lines of 20 bytes, the CRC-32 of the name and the
 * line's number. So anybody can tell of any byte whether it is the right one.
 */
public final class Driver {
  private static final int LINE_BYTES = 20;

  private final DistributedFileSystem fs;
  private final Map<String, FSDataOutputStream> open = new HashMap<>();

  private Driver(DistributedFileSystem fs) {
    this.fs = fs;
  }

  public static void main(String[] args) throws Exception {
    Configuration conf = new Configuration();
    for (String setting : Arrays.asList(args).subList(1, args.length)) {
      conf.set(setting.substring(0, setting.indexOf('=')), setting.substring(setting.indexOf('=') + 1));
    }
    FileSystem fs = FileSystem.newInstance(URI.create(args[0]), conf);
    Driver driver = new Driver((DistributedFileSystem) fs);
    BufferedReader lines = new BufferedReader(new InputStreamReader(System.in, StandardCharsets.UTF_8));
    System.out.println("ready");
    for (String line = lines.readLine(); line != null; line = lines.readLine()) {
      System.out.println(driver.answer(line.split(" ")));
    }
    System.exit(0); // files left open stay open: whoever wants them closed says so
  }

  private String answer(String[] words) {
    try {
      return "ok " + carryOut(words);
    } catch (Exception | AssertionError problem) {
      return "failed " + problem.getClass().getName() + ": " + String.valueOf(problem.getMessage()).replace('\n', ' ');
    }
  }

  private Object carryOut(String[] words) throws IOException {
    Path path = words.length > 1 ? new Path(words[1]) : null;
    switch (words[0]) {
      case "live": return fs.getDataNodeStats(DatanodeReportType.LIVE).length;
      case "create": return opened(path, fs.create(path, true));
      case "append": return opened(path, fs.append(path));
      case "write": return write(path, Integer.parseInt(words[2]));
      case "hflush": open.get(words[1]).hflush(); return "";
      case "hsync": open.get(words[1]).hsync(); return "";
      case "close": open.remove(words[1]).close(); return "";
      case "read": return read(path, Long.parseLong(words[2]));
      case "length": return fs.getFileStatus(path).getLen();
      case "recover": return fs.recoverLease(path);
      case "closed": return fs.isFileClosed(path);
      case "replicas": return replicas(path);
      case "rename": return fs.rename(path, new Path(words[2]));
      case "truncate": return fs.truncate(path, Long.parseLong(words[2]));
      case "delete": return fs.delete(path, true);
      case "mkdirs": return fs.mkdirs(path);
      default: throw new IllegalArgumentException(words[0]);
    }
  }

  private long opened(Path path, FSDataOutputStream stream) throws IOException {
    open.put(path.toString(), stream);
    return stream.getPos();
  }

  private long write(Path path, int length) throws IOException {
    FSDataOutputStream stream = open.get(path.toString());
    stream.write(contents(path, stream.getPos(), length));
    return stream.getPos();
  }

  /** Reads all there is, which must be right and at least so long; gives its length. */
  private long read(Path path, long least) throws IOException {
    byte[] buffer = new byte[1 << 16];
    long position = 0;
    try (FSDataInputStream in = fs.open(path)) {
      for (int count = in.read(buffer); count >= 0; count = in.read(buffer)) {
        byte[] expected = contents(path, position, count);
        int at = Arrays.mismatch(buffer, 0, count, expected, 0, count);
        if (at >= 0) {
          throw new AssertionError(path + " is wrong from byte " + (position + at));
        }
        position += count;
      }
    }
    if (position < least) {
      throw new AssertionError(path + " ends at byte " + position + " of " + least);
    }
    return position;
  }

  /** Replicas of the block that has fewest; of an empty file none. */
  private int replicas(Path path) throws IOException {
    FileStatus status = fs.getFileStatus(path);
    BlockLocation[] blocks = fs.getFileBlockLocations(status, 0, Math.max(1, status.getLen()));
    int fewest = blocks.length == 0 ? 0 : Integer.MAX_VALUE;
    for (BlockLocation block : blocks) {
      fewest = Math.min(fewest, block.isCorrupt() ? 0 : block.getNames().length);
    }
    return fewest;
  }

  private static byte[] contents(Path path, long from, int length) {
    CRC32 crc = new CRC32();
    crc.update(path.getName().getBytes(StandardCharsets.UTF_8));
    long first = from / LINE_BYTES;
    StringBuilder lines = new StringBuilder(length + 2 * LINE_BYTES);
    for (long line = first; line * LINE_BYTES < from + length; line++) {
      lines.append(String.format("%08x %010d%n", crc.getValue(), line));
    }
    int skip = (int) (from - first * LINE_BYTES);
    return Arrays.copyOfRange(lines.toString().getBytes(StandardCharsets.UTF_8), skip, skip + length);
  }
}
